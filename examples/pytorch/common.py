"""What the three scripts share: the data, the network, and how it is judged."""

import argparse
import gzip
import os

import torch
from torch import nn


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="directory with Fashion-MNIST as IDX files")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=96, help="samples per step, over all groups")
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--judge", type=int, default=2000, help="how many test images the network is judged on")
    parser.add_argument("--weights", help="file for the final weights")
    return parser


def lies(parser: argparse.ArgumentParser) -> None:
    """For demonstrations: some ranks lie."""
    parser.add_argument("--lie", help="how liars lie: reverse, gaussian, ...")
    parser.add_argument("--liars", default="", help="who lies: 1,4")


def tell_lies(worker, args: argparse.Namespace) -> None:
    if args.lie and str(worker.plan.worker) in args.liars.split(","):
        worker.lie(args.lie)


def _numbers(path: str, header: int) -> torch.Tensor:
    with gzip.open(path) as file:
        return torch.frombuffer(bytearray(file.read()[header:]), dtype=torch.uint8)


def images(directory: str, part: str) -> torch.utils.data.TensorDataset:
    """``part`` is "train" or "t10k"."""
    pixels = _numbers(os.path.join(directory, f"{part}-images-idx3-ubyte.gz"), 16).view(-1, 1, 28, 28)
    labels = _numbers(os.path.join(directory, f"{part}-labels-idx1-ubyte.gz"), 8)
    return torch.utils.data.TensorDataset(pixels, labels.long())


def network(seed: int) -> nn.Module:
    """The same weights wherever it is called with the same seed."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(16 * 7 * 7, 10),
    )


def loss_of(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(pixels.float() / 255), labels)


@torch.no_grad()
def finish(model: nn.Module, args: argparse.Namespace) -> None:
    """Judges the network, and writes its weights."""
    if int(os.environ.get("RANK", "0")) != 0:
        return
    model.eval()
    pixels, labels = images(args.data, "t10k")[: args.judge]
    right = (model(pixels.float() / 255).argmax(1) == labels).float().mean().item()
    print(f"{100 * right:.1f} % of {len(labels)} test images are right after {args.steps} steps")
    if args.weights:
        torch.save(model.state_dict(), args.weights)
