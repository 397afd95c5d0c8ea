"""One table of what Rust and Python measured, whole rounds beside gloo, and the goals; benches/peers/run calls it."""

import argparse
import json
import sys

from clock import median
from rounds import NotMeasured, whole_round

READ = "read every gradient once"
WORKERS = 15
# adversaries, stragglers, compression, of 15 workers
JOBS = [(2, 0, 1), (5, 0, 5), (2, 1, 10)]


def digits(x):
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 0.1 else f"{x:.3f}"


def figure(samples):
    """Milliseconds, as the Rust half writes them."""
    ordered = sorted(samples)
    return f"{digits(median(ordered))} ({digits(ordered[0])} to {digits(ordered[-1])})"


def print_table(title, columns, rows):
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [columns, *rows]) for at in range(len(columns))]
    print(f"\n**{title}**\n")
    for row in [columns, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")


def aggregation(rust, python):
    """Tables of aggregation alone, one per number of workers; ratios to the read floor of the same set of gradients."""
    counts = sorted({contest["workers"] for contest in rust["contests"]})
    for workers in counts:
        rows, floors = [], []
        for contest in (c for c in rust["contests"] if c["workers"] == workers):
            timed = contest["table"]["rows"]
            floors.append(timed[0]["CPU ms"]["median"])
            for row in timed:
                cpu, wall = ([row[key][name] for name in ("least", "median", "most")] for key in ("CPU ms", "wall ms"))
                rows.append((row["what"], cpu, wall, floors[-1]))
        dimension = next(c["dimension"] for c in rust["contests"] if c["workers"] == workers)
        for row in python["rules"]:
            if (row["workers"], row["dimension"]) == (workers, dimension):
                cpu, wall = ([1e3 * x for x in row[key]] for key in ("cpu_s", "wall_s"))
                rows.append((row["what"], cpu, wall, floors[-1]))
        cells = [(what, figure(cpu), figure(wall), digits(median(cpu) / floor)) for what, cpu, wall, floor in rows]
        print_table(f"Aggregation alone, one thread, P = {workers}, d = {dimension}",
                    ["what", "CPU ms", "wall ms", "CPU / read floor"], cells)


def rounds(python, solon, quick):
    """The table of whole rounds; the ratios gloo / Solon per dimension and compression."""
    rows, ratios = [], {}
    reason = None
    for gloo in python["gloo"]:
        dimension, wall = gloo["dimension"], [1e3 * x for x in gloo["wall_s"]]
        rows.append((dimension, "gloo all-reduce, 15 processes", figure(wall), ""))
        for adversaries, stragglers, compression in JOBS:
            name = f"Solon r_c={compression} s={adversaries} e={stragglers}, 15 processes"
            try:
                if reason:
                    raise NotMeasured(reason)
                taken = [1e3 * x for x in whole_round(solon, WORKERS, dimension, adversaries, stragglers, compression, quick)]
                ratios[dimension, compression] = median(wall) / median(taken)
                rows.append((dimension, name, figure(taken), digits(ratios[dimension, compression])))
            except NotMeasured as error:
                reason = str(error)
                rows.append((dimension, name, "not measured", ""))
    print_table("Whole rounds over loopback", ["d", "what", "ms per round", "times faster than gloo"], rows)
    if reason:
        print(f"report.py: {reason}", file=sys.stderr)
    return ratios


def goal(name, what, least, measured):
    """As `solon bench --goals --with` reads it."""
    return {"id": name, "what": what, "bound": {"at_least": least}, "measured": measured, "unit": "x"}


def round_goals(ratios):
    """The goals on whole rounds for which both sides were measured."""
    large = lambda compression: compression >= 4
    plain = lambda compression: compression == 1
    for dimension, least, fits in [(1_000_000, 4, large), (11_000_000, 2.5, large), (1_000_000, 1, plain), (11_000_000, 1, plain)]:
        found = [ratio for (d, compression), ratio in ratios.items() if d == dimension and fits(compression)]
        if found:
            codes = "r_c = 1" if fits(1) else "r_c 5 and 10, the slower"
            what = f"whole round of 15 processes at d = {dimension}, {codes}, faster than gloo's all-reduce"
            yield goal("G8", what, least, min(found))


def draco_goals(rust, python):
    """Solon's decoder against Draco's in numpy; those in Rust are among the goals of the benchmark."""
    wanted = [
        ("Draco repetition r=5, numpy", "Solon r=5 r_c=1", 2.5, "(r 5, r_c 1) faster than Draco's repetition"),
        ("Draco cyclic s=10, numpy", "Solon r=15 r_c=5", 100, "(r 15, r_c 5) faster than Draco's cyclic code"),
    ]
    for peer, ours, least, what in wanted:
        for contest in (c for c in rust["contests"] if c["workers"] == 45):
            below = [row["CPU ms"]["median"] for row in contest["table"]["rows"] if row["what"] == ours]
            above = [1e3 * median(row["cpu_s"]) for row in python["rules"]
                     if (row["what"], row["workers"], row["dimension"]) == (peer, 45, contest["dimension"])]
            if below and above:
                yield goal("G7", f"aggregation at P = 45 {what} in numpy", least, above[0] / below[0])


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        sys.exit(f"report.py: cannot read {path}: {error}")


def save(path, value):
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.write("\n")
    except OSError as error:
        sys.exit(f"report.py: cannot write {path}: {error.strerror}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rust", required=True, metavar="FILE", help="what the benchmark `peers` wrote")
    parser.add_argument("--python", required=True, metavar="FILE", help="what run.py wrote")
    parser.add_argument("--solon", required=True, metavar="PROGRAM", help="the command `solon`")
    parser.add_argument("--quick", action="store_true", help="short rounds")
    parser.add_argument("--goals", metavar="FILE", help="writes the goals here, for `solon bench --goals --with FILE`")
    parser.add_argument("--json", metavar="FILE", help="writes all figures here")
    arguments = parser.parse_args()
    rust, python = load(arguments.rust), load(arguments.python)
    versions = ", ".join(f"{name} {version}" for name, version in python["versions"].items())
    print(f"{rust['machine']}; {versions}")
    print("median (least to most); those that take over 2 s were called once")
    aggregation(rust, python)
    ratios = rounds(python, arguments.solon, arguments.quick)
    goals = [*rust["goals"], *draco_goals(rust, python), *round_goals(ratios)]
    words = {"at_least": ">=", "at_most": "<="}
    bound = lambda row: " ".join(f"{words[name]} {value:g}" for name, value in row["bound"].items())
    cells = [(row["id"], row["what"], bound(row), digits(row["measured"])) for row in goals]
    print_table("Goals", ["goal", "what", "bound", "measured"], cells)
    if arguments.goals:
        save(arguments.goals, goals)
    if arguments.json:
        by_name = [{"dimension": d, "compression": c, "times_faster": ratio} for (d, c), ratio in ratios.items()]
        save(arguments.json, {"rust": rust, "python": python, "rounds": by_name, "goals": goals})


if __name__ == "__main__":
    main()
