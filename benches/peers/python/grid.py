"""How many times faster our rules are than byzfl's and numpy's, over P and d; benches/peers/grid calls it."""

import argparse
import pathlib
import sys

from clock import median
from report import digits, load, print_table, save

# Ours beside whoever does the same.
PAIRS = [
    ("plain mean, fastest", "numpy mean"),
    ("median, tuned", "numpy median"),
    ("median, tuned", "byzfl median"),
    ("trimmed mean, tuned", "numpy trimmed mean"),
    ("trimmed mean, tuned", "byzfl trimmed mean"),
    ("Krum, tuned", "byzfl Krum"),
    ("Multi-Krum, tuned", "byzfl Multi-Krum"),
    ("geometric median, tuned", "byzfl geometric median"),
    ("Signum, tuned", "numpy signum"),
    ("Signum, packed", "numpy signum"),
]


def ratios(rust, python):
    """One row per P and pair: processor time of theirs over ours."""
    for workers in sorted({contest["workers"] for contest in rust["contests"]}):
        ours, dimension = {}, None
        for contest in (c for c in rust["contests"] if c["workers"] == workers):
            dimension = contest["dimension"]
            ours.update({row["what"]: row["CPU ms"]["median"] for row in contest["table"]["rows"]})
        theirs = {row["what"]: 1e3 * median(row["cpu_s"]) for row in python["rules"]
                  if (row["workers"], row["dimension"]) == (workers, dimension)}
        for our, their in PAIRS:
            yield {"ours": our, "theirs": their, "workers": workers, "dimension": dimension, "ours_ms": ours[our],
                   "theirs_ms": theirs[their], "ratio": theirs[their] / ours[our]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=pathlib.Path, help="where rust-D.json and python-D.json are")
    parser.add_argument("--quick", action="store_true", help="too short to judge")
    parser.add_argument("--json", metavar="FILE", help="writes all ratios here")
    arguments = parser.parse_args()
    rows, machine, versions = [], "", {}
    for path in arguments.directory.glob("rust-*.json"):
        rust, python = load(path), load(path.with_name(path.name.replace("rust", "python")))
        machine, versions = rust["machine"], python["versions"]
        rows += ratios(rust, python)
    points = sorted({(row["dimension"], row["workers"]) for row in rows})
    at = {(row["ours"], row["theirs"], row["dimension"], row["workers"]): row["ratio"] for row in rows}
    cells = [[our, their, *(digits(at[our, their, *point]) for point in points)] for our, their in PAIRS]
    print(f"{machine}; " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    print_table("Processor time of theirs over ours, aggregation alone, one thread",
                ["ours", "theirs", *(f"d={d:.2g} P={p}" for d, p in points)], cells)
    slower = [row for row in rows if row["ratio"] < 1]
    if arguments.json:
        save(arguments.json, {"machine": machine, "versions": versions, "quick": arguments.quick, "ratios": rows})
    for row in [] if arguments.quick else slower:
        print(f"grid.py: {row['ours']} takes {row['ours_ms']:.3f} ms and {row['theirs']} {row['theirs_ms']:.3f} ms "
              f"at P = {row['workers']}, d = {row['dimension']}", file=sys.stderr)
    return 1 if slower and not arguments.quick else 0


if __name__ == "__main__":
    sys.exit(main())
