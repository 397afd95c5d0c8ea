"""What the tests share: real daemons, and workers in threads of this process or in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading

import solon

SOLOND = os.environ.get("SOLOND", "solond")
#: The longest that a test waits for a process before it gives up; no test depends on how long anything takes.
PATIENCE = 120


class Daemon:
    """A daemon that is ready; ended at the end of a ``with`` block."""

    def __init__(
        self,
        dimension: int,
        *flags: str,
        groups: int = 1,
        adversaries: int = 1,
        compression: int = 1,
        listen: str = "127.0.0.1:0",
    ) -> None:
        arguments = [SOLOND, "--listen-address", listen, "--listen-transport", "tcp", "--log-format", "json", "--admin-serve", "false"]
        arguments += ["--cores-pin", "false", "--cores-idle", "park", "--memory-huge-pages", "off"]
        if not any(flag.startswith("--job-rule=mean") for flag in flags):
            arguments += [f"--job-groups={groups}", f"--job-adversaries={adversaries}", f"--job-compression={compression}"]
        arguments += [f"--job-dimension={dimension}", *flags]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.log: list[dict] = []
        said = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            said += line
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("message") == "ready":
                self.endpoint = entry["address"]
                break
        else:
            raise AssertionError(f"solond ended before it was ready; it said:\n{said}")
        # Keep reading, or the daemon would wait for room in the pipe.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            if line.startswith("{"):
                self.log.append(json.loads(line))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stderr.close()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_raised) -> None:
        if self.process.returncode is None:
            self.kill()


def in_threads(works) -> list:
    """Runs each of the functions in a thread of its own; what they returned, or the first error."""
    results: list = [None] * len(works)
    errors: list = []

    def run(at, work):
        try:
            results[at] = work()
        except BaseException as error:  # noqa: BLE001 - handed on below
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        if thread.is_alive():
            raise AssertionError(f"a worker has not ended after {PATIENCE} s; errors so far: {errors}")
    if errors:
        raise errors[0]
    return results


def join(daemon: Daemon, worker: int, **given) -> solon.Worker:
    return solon.join(daemon.endpoint, worker=worker, transport="tcp", **{"round_timeout": PATIENCE, **given})


@contextlib.contextmanager
def all_of(daemon: Daemon, count: int):
    """All workers of a job. Rounds do not wait for the slowest of a group, so tests that need every worker join them first."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(join(daemon, index)) for index in range(count)]


def python(*arguments: str, environment: dict[str, str] | None = None, **given) -> subprocess.Popen:
    """A process of the interpreter that runs the tests."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
    return subprocess.Popen([sys.executable, *arguments], env={**os.environ, **(environment or {})}, **{**pipes, **given})


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """How a process ended, and what it said."""
    try:
        out, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate()
        raise AssertionError(f"a process has not ended after {PATIENCE} s; it said:\n{out}\n{errors}") from None
    return process.returncode, out, errors
