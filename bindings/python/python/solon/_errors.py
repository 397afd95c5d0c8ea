"""What can go wrong. The extension module makes these."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._solon import Report


class Error(Exception):
    """Base of all errors of this package."""

    cause: str
    """What is wrong: the object, what was found, what was expected."""
    hint: str
    """What to do about it."""
    fault: str | None
    """Who must act: ``"caller"``, ``"workers"``, ``"aggregator"`` or ``"network"``."""

    def __init__(self, cause: str = "", hint: str = "", *, fault: str | None = None) -> None:
        super().__init__(cause)
        self.cause, self.hint, self.fault = cause, hint, fault

    def __str__(self) -> str:
        return f"{self.cause}\nhint: {self.hint}" if self.hint else self.cause

    def __reduce__(self):
        # A report holds no more than text would, and stays where it is.
        state = {name: value for name, value in self.__dict__.items() if name != "report"}
        return type(self), (self.cause, self.hint), state


class WrongType(Error, TypeError):
    """An argument of the wrong type: no buffer, or one of other items than 32-bit floats."""


class WrongValue(Error, ValueError):
    """An argument that cannot be used: a wrong length, not contiguous, read-only, out of range."""


class NotConfigured(WrongValue):
    """Nobody says where the daemon is, or which worker this is; the cause lists what was looked for."""


class Busy(Error, RuntimeError):
    """Two threads use one worker."""


class Left(Error, RuntimeError):
    """The worker has left its job."""


class Forked(Error, RuntimeError):
    """The worker is used in a process that was forked from the one that joined."""

    parent: int | None
    child: int | None

    def __init__(
        self, cause: str = "", hint: str = "", *, fault: str | None = None, parent: int | None = None, child: int | None = None
    ) -> None:
        super().__init__(cause, hint, fault=fault)
        self.parent, self.child = parent, child


class JoinError(Error):
    """A worker cannot join."""

    transient: bool
    """Can the same call succeed a little later?"""

    def __init__(self, cause: str = "", hint: str = "", *, fault: str | None = None, transient: bool = False) -> None:
        super().__init__(cause, hint, fault=fault)
        self.transient = transient


class NoDaemon(JoinError, ConnectionError):
    """Nobody answers at the endpoint."""


class Refused(JoinError):
    """The daemon does not want this worker: wrong job, index or token, or too soon."""


class RoundError(Error):
    """A round gave no update."""

    round: int | None

    def __init__(self, cause: str = "", hint: str = "", *, fault: str | None = None, round: int | None = None) -> None:
        super().__init__(cause, hint, fault=fault)
        self.round = round


class WindowFull(RoundError):
    """More rounds are in flight than the call allows."""


class Timeout(RoundError, TimeoutError):
    """The round did not end in time; it goes on."""


class AggregatorLost(RoundError, ConnectionError):
    """The session ended before the round did."""


class Undecodable(RoundError):
    """The daemon could not decode the round: nothing may be applied."""

    group: int | None
    chunk: int | None
    reason: str
    report: Report | None

    def __init__(
        self,
        cause: str = "",
        hint: str = "",
        *,
        fault: str | None = None,
        round: int | None = None,
        group: int | None = None,
        chunk: int | None = None,
        reason: str = "",
        report: Report | None = None,
    ) -> None:
        super().__init__(cause, hint, fault=fault, round=round)
        self.group, self.chunk, self.reason, self.report = group, chunk, reason, report
