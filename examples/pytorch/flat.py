"""The same, by all workers of a job: the two lines of Solon end with "# 1" and "# 2". Beside them, the batches are dealt to groups.

solond --job-dimension 9098 --job-groups 2 --job-adversaries 1 --job-compression 1 --job-scale 0.5
SOLON_ENDPOINT=127.0.0.1:7447 torchrun --nproc_per_node 6 flat.py --lie reverse --liars 1,4
"""

import solon.torch
import torch
from common import arguments, finish, images, lies, loss_of, network, tell_lies

parser = arguments(__doc__)
lies(parser)
args = parser.parse_args()
model = network(args.seed)
optimizer = torch.optim.SGD(model.parameters(), lr=args.rate, momentum=0.9)
exchange = solon.torch.Exchange(model)  # 1
tell_lies(exchange.worker, args)

data = images(args.data, "train")
batches = solon.torch.GroupBatchSampler(data, args.batch // exchange.plan.groups, exchange, seed=args.seed)
loader = torch.utils.data.DataLoader(data, batch_sampler=batches)

step = 0
while step < args.steps:
    batches.set_epoch(step // len(batches))
    for pixels, labels in loader:
        solon.torch.seed_step(step, exchange, seed=args.seed)  # Dropout is the same in all members of a group.
        optimizer.zero_grad()
        loss_of(model, pixels, labels).backward()
        report = exchange.step()  # 2
        optimizer.step()
        step += 1
        if step == args.steps:
            break

if exchange.plan.worker == 0:
    print(f"liars: {sorted({*report.liars, *report.late_liars})}")
exchange.close()
finish(model, args)
