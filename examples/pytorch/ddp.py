"""The same for a script that has DistributedDataParallel already: its process group becomes one of one member, and a hook is set.

solond --job-dimension 9098 --job-groups 2 --job-adversaries 1 --job-compression 1 --job-scale 0.5
SOLON_ENDPOINT=127.0.0.1:7447 torchrun --nproc_per_node 6 ddp.py --lie reverse --liars 1,4
"""

import solon.torch
import torch
from common import arguments, finish, images, lies, loss_of, network, tell_lies
from torch.nn.parallel import DistributedDataParallel

parser = arguments(__doc__)
lies(parser)
args = parser.parse_args()
solon.torch.one_member_group()  # 1, instead of init_process_group
# Several buckets, as a large model has.
model = DistributedDataParallel(network(args.seed), bucket_cap_mb=0.01)
hook = solon.torch.hook_ddp(model)  # 2
tell_lies(hook.worker, args)
optimizer = torch.optim.SGD(model.parameters(), lr=args.rate, momentum=0.9)

data = images(args.data, "train")
batches = solon.torch.GroupBatchSampler(data, args.batch // hook.plan.groups, hook, seed=args.seed)
loader = torch.utils.data.DataLoader(data, batch_sampler=batches)

step = 0
while step < args.steps:
    batches.set_epoch(step // len(batches))
    for pixels, labels in loader:
        solon.torch.seed_step(step, hook, seed=args.seed)
        optimizer.zero_grad()
        loss_of(model, pixels, labels).backward()
        optimizer.step()
        step += 1
        if step == args.steps:
            break

if hook.plan.worker == 0:
    print(f"liars: {sorted({*hook.last.liars, *hook.last.late_liars})}")
hook.worker.leave()
finish(model.module, args)
