"""A worker that trains a small network on made-up images, in its own way: test_mixed.py starts several.

Says as one line of JSON what became of its rounds.
"""

import argparse
import json

import solon
import solon.torch
import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--bf16", action="store_true", help="in bfloat16, and in four parts of the batch")
parser.add_argument("--rounds", type=int, required=True)
parser.add_argument("--lie", type=float, default=0, help="relative error that is added to the gradient")
args = parser.parse_args()

torch.set_num_threads(args.threads)
torch.manual_seed(1)
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Conv2d(8, 16, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(16 * 7 * 7, 10),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
words = solon.torch.fingerprint(model)
if args.bf16:
    words["dtype"] = "bfloat16, 4 parts"
exchange = solon.torch.Exchange(model, transport="tcp", fingerprint=words)
said = {"rounds": 0, "undecodable": 0, "named": [], "residual": 0.0}
for step in range(args.rounds):
    generator = torch.Generator().manual_seed(step)
    images, labels = torch.randn(96, 1, 28, 28, generator=generator), torch.randint(10, (96,), generator=generator)
    parts = 4 if args.bf16 else 1
    for some, wanted in zip(images.chunk(parts), labels.chunk(parts)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            scores = model(some)
        (nn.functional.cross_entropy(scores.float(), wanted, reduction="sum") / len(labels)).backward()
    for parameter in model.parameters():
        signs = 1 - 2 * (torch.arange(parameter.numel()) % 2).view_as(parameter)
        parameter.grad.mul_(1 + args.lie * signs)
    try:
        report = exchange.step()
    except solon.Undecodable:
        said["undecodable"] += 1
        continue
    except solon.AggregatorLost:
        # What `solon calibrate` ends with.
        break
    optimizer.step()
    said["rounds"] += 1
    said["named"] = sorted({*said["named"], *report.liars, *report.late_liars})
    said["named_rounds"] = said.get("named_rounds", 0) + bool(report.liars)
    said["residual"] = max(said["residual"], report.residual_ratio)
print(json.dumps(said))
