"""What sending gradients during backward saves: the same steps with and without ``overlap``, alternately, by one worker."""

import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../tests"))
import solon.torch
import torch
from support import Daemon, join
from torch import nn

LAYERS, WIDTH, BATCH, STEPS = 12, 1024, 256, 15


def steps(overlap: bool) -> tuple[float, float]:
    """Median seconds of ``step()``, and of ``backward()`` and ``step()`` together."""
    torch.manual_seed(1)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(LAYERS)])
    inputs = torch.randn(BATCH, WIDTH)
    ends, wholes = [], []
    with Daemon(solon.torch.dimension(model), adversaries=0) as daemon, join(daemon, 0) as worker:
        exchange = solon.torch.Exchange(model, worker, overlap=overlap)
        for _ in range(STEPS):
            loss = model(inputs).square().mean()
            began = time.perf_counter()
            loss.backward()
            computed = time.perf_counter()
            exchange.step()
            ended = time.perf_counter()
            ends.append(ended - computed)
            wholes.append(ended - began)
    return statistics.median(ends[2:]), statistics.median(wholes[2:])


def main() -> None:
    torch.set_num_threads(1)
    pairs = [(steps(overlap=True), steps(overlap=False)) for _ in range(3)]
    (end, whole), (end_without, whole_without) = [
        [statistics.median(pair[way][at] for pair in pairs) for at in range(2)] for way in range(2)
    ]
    print(
        f"{LAYERS} layers of {WIDTH} x {WIDTH}, batches of {BATCH}: step() is {end_without * 1e3:.1f} ms of {whole_without * 1e3:.1f} ms"
    )
    print(f"with / without overlap, step(): {end / end_without:.2f}")
    print(f"with / without overlap, backward() and step(): {whole / whole_without:.2f}")


if __name__ == "__main__":
    main()
