"""Rounds of one worker: by this package, and by the Rust client (examples/client_rounds.rs), alternately."""

import json
import os
import statistics
import subprocess
import sys
import time
from array import array

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../tests"))
from support import Daemon, finish, python

ROUNDS = 10


def status(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))


def worker(endpoint: str, numbers: int) -> None:
    """What the Rust example does: its lines are in the same order."""
    import solon

    with solon.join(endpoint, worker=0, transport="tcp") as worker:
        before = status("VmRSS")
        buffer = array("f", [1.0]) * numbers
        worker.exchange(buffer)
        began = time.perf_counter()
        for _ in range(ROUNDS):
            worker.exchange(buffer)
        seconds = (time.perf_counter() - began) / ROUNDS
        print(json.dumps({"seconds": seconds, "bytes": status("VmHWM") - before, "copied": worker.copied}))


def run(command) -> dict:
    code, out, errors = finish(command)
    assert code == 0, errors
    # The daemon takes the same worker once per second.
    time.sleep(1.1)
    return json.loads(out)


def main(numbers: int, pairs: int) -> None:
    ran: dict[str, list[dict]] = {"Python": [], "Rust": []}
    with Daemon(numbers, adversaries=0) as daemon:
        for _ in range(pairs):
            ran["Python"].append(run(python(__file__, "worker", daemon.endpoint, str(numbers))))
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            ran["Rust"].append(run(subprocess.Popen([os.environ["CLIENT"], daemon.endpoint, str(numbers), str(ROUNDS)], **pipes)))
    middle = {name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in ran.items()}
    print(f"{numbers} numbers, medians of {pairs} runs of {ROUNDS} rounds each")
    for name, found in middle.items():
        print(
            f"{name:6}  {found['seconds'] * 1e3:8.1f} ms per round   {found['bytes'] / (4 * numbers):5.2f} x the buffer in memory"
            f"   {found['copied'] / (4 * numbers):5.2f} x the buffer copied"
        )
    for key, what in [("seconds", "time of a round"), ("bytes", "peak of memory")]:
        print(f"Python / Rust, {what}: {middle['Python'][key] / middle['Rust'][key]:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 25_000_000, int(sys.argv[2]) if len(sys.argv) > 2 else 5)
