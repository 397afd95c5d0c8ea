"""Aggregation alone, on one thread: byzfl's rules on torch, numpy's mean and median, Draco's decoders in numpy."""

import sys

import numpy as np

from clock import available_bytes, measure
from draco import Cyclic, repetition

LAYERS = 10
PERIOD = 2048


def apart(workers, dimension):
    """Different gradients: a common direction, and noise of each worker's own spread."""
    random = np.random.default_rng(2)
    gradients = np.empty((workers, dimension), np.float32)
    common = random.standard_normal(dimension, np.float32)
    for row in range(workers):
        gradients[row] = common + random.standard_normal(dimension, np.float32) * np.float32(0.5 + 0.05 * row)
    return gradients


def check():
    """The decoders of our own, against the mean."""
    for workers in (15, 25):
        gradients = apart(workers, 500)
        mean = gradients.mean(axis=0)
        groups = np.repeat(gradients[::5], 5, axis=0)
        groups[0] += 1.0
        assert np.allclose(repetition(groups, 5), gradients[::5].mean(axis=0), atol=1e-4), "Draco's repetition"
        s = (workers - 3) // 4
        for liars in range(s + 1):
            code = Cyclic(workers, s, 500)
            received = code.encode(gradients)
            lying = [4 * liar + 1 for liar in range(liars)]
            received[lying] *= -3.0
            total, lied = code.decode(received)
            assert list(lied) == lying, f"Draco's cyclic code finds {lying}, not {lied}"
            assert np.allclose(total / workers, mean, atol=1e-3), "Draco's cyclic code"


def contestants(workers, dimension):
    """Pairs of a name and a call."""
    import torch
    from byzfl import GeometricMedian, Krum, Median, MultiKrum, TrMean

    f = (workers - 3) // 4
    gradients = apart(workers, dimension)
    tensor = torch.from_numpy(gradients)
    with torch.no_grad():
        yield "numpy mean", lambda: gradients.mean(axis=0)
        yield "numpy median", lambda: np.median(gradients, axis=0)
        yield "numpy trimmed mean", lambda: np.sort(gradients, axis=0)[f:workers - f].mean(axis=0)
        yield "numpy signum", lambda: np.sign(np.sign(gradients).sum(axis=0))
        yield "torch mean", lambda: tensor.mean(dim=0)
        yield "byzfl median", lambda: Median()(tensor)
        yield "byzfl trimmed mean", lambda: TrMean(f)(tensor)
        yield "byzfl Krum", lambda: Krum(f)(tensor)
        yield "byzfl Multi-Krum", lambda: MultiKrum(f)(tensor)
        yield "byzfl geometric median", lambda: GeometricMedian()(tensor)
        for first in range(0, workers, 5):
            gradients[first : first + 5] = gradients[first]
        yield "Draco repetition r=5, numpy", lambda: repetition(gradients, 5)
        del tensor, gradients
        width = -(-dimension // LAYERS)
        code = Cyclic(workers, f, width)
        period = code.encode(apart(workers, min(width, PERIOD)))
        received = np.tile(period, (1, -(-width // period.shape[1])))[:, :width].copy()
        yield f"Draco cyclic s={f}, numpy", lambda: [code.decode(received) for _ in range(LAYERS)]


def run(workers, dimension, repetitions):
    """One result per contestant."""
    # Sorting keeps values and 64-bit places beside its input, and copies it.
    needed = 4 * workers * dimension * 6
    available = available_bytes()
    if available is not None and available < needed:
        gigabytes = lambda count: f"{count / 1e9:.1f} GB"
        sys.exit(f"run.py: P = {workers}, d = {dimension} takes about {gigabytes(needed)} of memory, and "
                 f"{gigabytes(available)} can be had: choose a smaller --dimension or fewer --workers")
    results = []
    for name, call in contestants(workers, dimension):
        taken = measure(call, repetitions)
        print(f"  P = {workers}: {name}: {taken['wall_s'][0]:.3f} s", file=sys.stderr, flush=True)
        results.append({"what": name, "workers": workers, "dimension": dimension, **taken})
    return results
