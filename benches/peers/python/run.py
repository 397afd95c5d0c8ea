"""Measures Python's robust aggregations, and gloo's all-reduce; figures are seconds per call.

`benches/peers/install` says where the interpreter is that has all it takes; docs/peers.md explains the figures.
"""

import argparse
import json
import os
import platform
import sys

# Before numpy and torch are loaded: one thread in every library.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"


def versions():
    """What is measured; ends with what is missing."""
    try:
        import byzfl  # noqa: F401
        import numpy
        import torch
    except ImportError as error:
        sys.exit(f"run.py: {error}: run benches/peers/install, and use the interpreter that it names")
    import importlib.metadata

    torch.set_num_threads(1)
    if not torch.distributed.is_available():
        sys.exit(f"run.py: torch {torch.__version__} was built without torch.distributed, so without gloo")
    return {"python": platform.python_version(), "numpy": numpy.__version__, "torch": torch.__version__,
            "byzfl": importlib.metadata.version("byzfl")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few numbers, one repetition: too short to quote")
    parser.add_argument("--workers", default="15,25,45", help="workers, from 15,25,45 (default: all)")
    parser.add_argument("--dimension", type=int, help="numbers in a gradient (default: 11000000; quick: 20000)")
    parser.add_argument("--repetitions", type=int, help="calls after the first (default: 3; quick: 1)")
    parser.add_argument("--only", choices=["rules", "gloo"], help="one half of it")
    parser.add_argument("--json", metavar="FILE", help="writes the figures here")
    arguments = parser.parse_args()
    workers = arguments.workers.split(",")
    if not set(workers) <= {"15", "25", "45"}:
        parser.error(f"--workers takes 15, 25 and 45, with commas between, not {arguments.workers}")
    dimension = arguments.dimension or (20_000 if arguments.quick else 11_000_000)
    if not 1000 <= dimension <= 100_000_000:
        parser.error(f"--dimension is between 1000 and 100000000, not {dimension}")
    repetitions = arguments.repetitions or (1 if arguments.quick else 3)
    if not 1 <= repetitions <= 100:
        parser.error(f"--repetitions is between 1 and 100, not {repetitions}")
    measured = {"versions": versions(), "quick": arguments.quick, "rules": [], "gloo": []}

    import allreduce
    import rules
    from clock import median

    if arguments.only != "gloo":
        rules.check()
        for count in map(int, workers):
            measured["rules"] += rules.run(count, dimension, repetitions)
    if arguments.only != "rules":
        dimensions = [20_000] if arguments.quick else [1_000_000, 11_000_000]
        measured["gloo"] = allreduce.run(15, dimensions, repetitions, 0.05 if arguments.quick else 3.0)
    print(", ".join(f"{name} {version}" for name, version in measured["versions"].items()))
    for row in measured["rules"] + measured["gloo"]:
        print(f"P = {row['workers']:2}, d = {row['dimension']:8}: {row['what']:30} "
              f"CPU {1e3 * median(row['cpu_s']):9.2f} ms, wall {1e3 * median(row['wall_s']):9.2f} ms")
    if arguments.json:
        try:
            with open(arguments.json, "w", encoding="ascii") as file:
                json.dump(measured, file, indent=1)
        except OSError as error:
            sys.exit(f"run.py: cannot write {arguments.json}: {error.strerror}")


if __name__ == "__main__":
    main()
