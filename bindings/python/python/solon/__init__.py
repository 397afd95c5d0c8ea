"""Solon: gradient aggregation that corrects lying, faulty and slow workers exactly.

This is the worker's side: :func:`join` a job, :meth:`Worker.exchange` gradients for updates. Buffers are any contiguous
32-bit floats that give access to their memory: numpy arrays, ``array.array('f')``, memoryviews, and CPU tensors of torch through
``tensor.numpy()``. Nothing is copied, and the interpreter's lock is not held while a call waits; so do not touch a buffer, from
another thread, that a call works on.

``solon.torch`` is for PyTorch. Importing ``solon`` imports neither torch nor numpy.
"""

from ._errors import (
    AggregatorLost,
    Busy,
    Error,
    Forked,
    JoinError,
    Left,
    NoDaemon,
    NotConfigured,
    Refused,
    RoundError,
    Timeout,
    Undecodable,
    WindowFull,
    WrongType,
    WrongValue,
)
from ._fingerprint import fingerprint
from ._sampler import GroupBatchSampler
from ._solon import Plan, Report, Worker, __version__, join

__all__ = [
    "AggregatorLost",
    "Busy",
    "Error",
    "Forked",
    "GroupBatchSampler",
    "JoinError",
    "Left",
    "NoDaemon",
    "NotConfigured",
    "Plan",
    "Refused",
    "Report",
    "RoundError",
    "Timeout",
    "Undecodable",
    "WindowFull",
    "Worker",
    "WrongType",
    "WrongValue",
    "__version__",
    "fingerprint",
    "join",
]
