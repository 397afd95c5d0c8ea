"""Processor and wall seconds of calls, and what a process may use."""

import time

SECONDS_TO_REPEAT = 2.0


def available_bytes():
    """Memory that can be had without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None


def measure(call, repetitions):
    """Seconds of all threads' processor time, and of wall time, per call. Calls that take long are made once, cold."""

    def once():
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        return time.process_time() - cpu, time.perf_counter() - wall

    first = once()
    samples = [first] if first[1] > SECONDS_TO_REPEAT else [once() for _ in range(repetitions)]
    return {"cpu_s": sorted(cpu for cpu, _ in samples), "wall_s": sorted(wall for _, wall in samples)}


def median(samples):
    return sorted(samples)[len(samples) // 2]
