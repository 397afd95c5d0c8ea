"""Whole Solon rounds, measured by `solon bench`: the one place here that knows its flags and what it prints."""

import json
import subprocess


class NotMeasured(Exception):
    """Why there is no figure."""


def whole_round(solon, workers, dimension, adversaries, stragglers, compression, quick):
    """Seconds of a round, as samples, of a job whose workers are processes; words wait as long as solond's default says."""
    command = [solon, "bench", "--workers", workers, "--dimension", dimension, "--adversaries", adversaries,
               "--stragglers", stragglers, "--compression", compression, "--linger", 0, "--json"]
    command = list(map(str, command)) + (["--quick"] if quick else [])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except FileNotFoundError:
        raise NotMeasured(f"there is no {solon}: cargo build --release --bins") from None
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"`{' '.join(command)}` did not end within 600 s") from None
    if done.returncode:
        raise NotMeasured(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    try:
        return seconds_of(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError) as error:
        raise NotMeasured(f"`{' '.join(command)}` printed something else than expected: {error!r}") from None


def seconds_of(printed):
    """The least, median and most seconds of a round."""
    figure = printed["solon"]["round_ms"]
    return [figure[name] / 1e3 for name in ("least", "median", "most")]
