"""Writes src/rules/vectors.json: what byzfl's rules make of small gradients. benches/peers/install makes the environment for it:

    target/peers-venv/bin/python benches/peers/python/vectors.py > src/rules/vectors.json
"""

import importlib.metadata
import json

import byzfl
import numpy as np


def case(workers, width, f, seed):
    random = np.random.default_rng(seed)
    spread = 0.5 + 0.05 * np.arange(workers)[:, None]
    rows = (random.standard_normal(width) + spread * random.standard_normal((workers, width))).astype(np.float32)
    rows[:f] *= -3
    exact = rows.astype(np.float64)
    # Its geometric median starts at zero and stops after T turns; many of them, and hardly any smoothing, give the limit.
    rules = {
        "mean": byzfl.Average(),
        "median": byzfl.Median(),
        "trimmed-mean": byzfl.TrMean(f),
        "geometric-median": byzfl.GeometricMedian(nu=1e-9, T=5000),
        # These count the P - f - 1 nearest where the papers have P - f - 2, and average the P - f best.
        "byzfl-krum": byzfl.Krum(f),
        "byzfl-multi-krum": byzfl.MultiKrum(f),
    }
    results = {name: [float(x) for x in rule(exact)] for name, rule in rules.items()}
    return {"adversaries": f, "rows": [[float(x) for x in row] for row in rows], "results": results}


if __name__ == "__main__":
    cases = [case(5, 7, 1, 1), case(8, 6, 2, 2), case(11, 9, 4, 3), case(15, 5, 3, 4)]
    print(json.dumps({"byzfl": importlib.metadata.version("byzfl"), "cases": cases}))
