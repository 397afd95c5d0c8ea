from collections.abc import Mapping
from typing import Any, Literal, Protocol, Self, TypeAlias, final

from typing_extensions import Buffer

__version__: str

class _Array(Protocol):
    # Before Python 3.12 type checkers do not know that arrays of numpy are buffers.
    @property
    def __array_interface__(self) -> dict[str, Any]: ...

_Floats: TypeAlias = Buffer | _Array
"""Contiguous 32-bit floats."""

@final
class Plan:
    """The job's plan, as the daemon has decided it, and this worker's place in it."""

    @property
    def dimension(self) -> int:
        """Numbers in the gradient."""
    @property
    def chunks(self) -> int: ...
    @property
    def chunk_width(self) -> int:
        """Numbers per shard of a chunk."""
    @property
    def workers(self) -> int:
        """Workers in the job: groups x redundancy."""
    @property
    def groups(self) -> int: ...
    @property
    def redundancy(self) -> int:
        """Workers per group, which compute the same gradient."""
    @property
    def adversaries(self) -> int:
        """Liars per group that are corrected."""
    @property
    def stragglers(self) -> int:
        """Absent workers per group that are tolerated beside the liars."""
    @property
    def compression(self) -> int:
        """Factor by which an upload is smaller than the gradient."""
    @property
    def worker(self) -> int:
        """This worker's index in the job."""
    @property
    def group(self) -> int:
        """This worker's group."""
    @property
    def row(self) -> int:
        """This worker's place in its group."""
    @property
    def window(self) -> int:
        """Rounds that may be in flight at once."""
    @property
    def deadline_ms(self) -> int: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def scale(self) -> float:
        """update = scale x sum over groups."""

@final
class Report:
    """What the daemon reports of a round: the same for every worker."""

    @property
    def round(self) -> int: ...
    @property
    def digest(self) -> int:
        """Of the update: equal for all workers."""
    @property
    def liars(self) -> tuple[int, ...]:
        """Workers that were proved wrong before the round closed."""
    @property
    def late_liars(self) -> tuple[int, ...]:
        """Workers proved wrong in an earlier round by what came after that was decided."""
    @property
    def absent(self) -> tuple[int, ...]:
        """Workers of whom nothing came before the round was closed."""
    @property
    def late(self) -> tuple[int, ...]:
        """Workers of whom only a part came before the round was closed."""
    @property
    def residual_ratio(self) -> float:
        """The largest residual over tolerance among what was believed; at most 1."""
    @property
    def received_ratio(self) -> float:
        """The same before anything was corrected."""

@final
class Worker:
    """A worker that has joined a job. It belongs to the process that joined, and serves one thread at a time."""

    @property
    def plan(self) -> Plan: ...
    @property
    def next_round(self) -> int:
        """The round that the next gradient is for."""
    @property
    def is_behind(self) -> bool:
        """Has the job closed a round that this worker has not submitted? Then :meth:`follow` takes its update."""
    @property
    def way(self) -> tuple[Literal["tcp", "rdma"], str]:
        """How this session travels now, and why."""
    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes of frames sent and received in this session."""
    @property
    def copied(self) -> int:
        """Bytes of updates that were copied in this session because they could not land in the caller's buffer."""
    def exchange(self, buffer: _Floats) -> Report:
        """Submits the gradient in ``buffer`` and replaces it by the update.

        After an error ``buffer`` holds neither. Raises :class:`Undecodable`, :class:`AggregatorLost`, :class:`Timeout`,
        :class:`WindowFull`, :class:`WrongType`, :class:`WrongValue`, :class:`Forked`, :class:`Busy`, :class:`Left`, and what a
        signal handler raises, such as :class:`KeyboardInterrupt`; the round goes on then.
        """
    def feed(self, gradient: _Floats, ready: int) -> None:
        """Submits what is whole within the first ``ready`` numbers of the gradient that the next :meth:`exchange` ends. These
        must not change until then. Waits while other workers are behind or the network is busy."""
    def submit(self, gradient: _Floats) -> int:
        """Submits a gradient for the next round, and returns that round. Several, up to ``plan.window``, may be in flight."""
    def wait(self, update: _Floats) -> Report:
        """Waits for the oldest round that was not collected, and fills ``update``."""
    def follow(self, update: _Floats) -> Report:
        """Takes the update of a round that this worker does not submit to."""
    def rejoin(self) -> tuple[int, int | None]:
        """Joins again after the session was lost. Returns the first round of the new session, and how many updates were missed:
        0 for none, ``None`` if the daemon does not go on from where this worker was. A model that has missed some must be restored."""
    def interrupt(self) -> None:
        """Has the call that waits in another thread, or else the next one that waits, give up with :class:`Timeout`."""
    def leave(self) -> None:
        """Leaves the job in peace. Also done at the end of a ``with`` block."""
    def lie(self, attack: str, seed: int = 0) -> None:
        """Makes this worker lie from now on, for tests and demonstrations: ``"reverse"`` sends -100 times its gradient."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: object) -> None: ...

@final
class Sampler:
    def __new__(cls, samples: int, batch: int, seed: int) -> Self: ...
    @property
    def steps_per_epoch(self) -> int: ...
    def part(self, step: int, part: int, parts: int) -> list[int]: ...

def join(
    endpoint: str | None = None,
    *,
    job: str | None = None,
    worker: int | None = None,
    token: str | None = None,
    join_timeout: float = 10.0,
    round_timeout: float = 600.0,
    transport: Literal["auto", "tcp", "rdma"] = "auto",
    advertise: str | None = None,
    fingerprint: Mapping[str, str] | None = None,
) -> Worker:
    """Joins a job.

    What is not given is taken from ``SOLON_ENDPOINT``, ``SOLON_JOB``, ``SOLON_WORKER`` and ``SOLON_TOKEN``; the index else from
    torchrun (``RANK`` together with ``LOCAL_RANK``), Slurm or Open MPI. Times are seconds.

    ``fingerprint`` says how this worker computes, for the daemon to compare with the others of its group: what :func:`fingerprint`
    and ``solon.torch.fingerprint`` give, or a dictionary with some of ``framework``, ``version``, ``threads``, ``device`` and ``dtype``.
    The daemon gets hashes of the texts.

    Raises :class:`NotConfigured`, :class:`NoDaemon`, :class:`Refused`, :class:`JoinError`, :class:`WrongValue`.
    """
