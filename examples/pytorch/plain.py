"""Trains a small convolutional network on Fashion-MNIST, on one machine."""

import torch
from common import arguments, finish, images, loss_of, network

args = arguments(__doc__).parse_args()
model = network(args.seed)
optimizer = torch.optim.SGD(model.parameters(), lr=args.rate, momentum=0.9)

data = images(args.data, "train")
loader = torch.utils.data.DataLoader(data, batch_size=args.batch, shuffle=True, drop_last=True)

step = 0
while step < args.steps:
    for pixels, labels in loader:
        optimizer.zero_grad()
        loss_of(model, pixels, labels).backward()
        optimizer.step()
        step += 1
        if step == args.steps:
            break

finish(model, args)
