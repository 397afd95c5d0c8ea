"""How this process computes, in words that the members of a group can compare."""

from __future__ import annotations

import os
import platform

#: What libraries of arithmetic choose their kernels by, as far as Linux tells it.
_FEATURES = ["avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve", "sve2", "bf16"]


def fingerprint() -> dict[str, str]:
    """How this process computes with numpy, for :func:`join`; without numpy, with Python itself.

    Members of a group whose fingerprints differ do not get the same bits from the same samples.
    """
    try:
        import numpy
    except ImportError:
        framework, version = "python", platform.python_version()
    else:
        framework, version = "numpy", numpy.__version__
    return {"framework": framework, "version": version, "threads": _threads(), "device": processor(), "dtype": "float32"}


def _threads() -> str:
    """What libraries of linear algebra take at their start."""
    for name in ["OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS"]:
        if os.environ.get(name):
            return os.environ[name]
    return str(len(os.sched_getaffinity(0)))


def processor() -> str:
    """The kind of processor: its maker, and what it can do of what kernels are chosen by."""
    found: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                key, _, value = line.partition(":")
                found.setdefault(key.strip().lower(), value.strip())
    except OSError:
        pass
    flags = found.get("flags", found.get("features", "")).split()
    maker = found.get("vendor_id", found.get("cpu implementer", ""))
    return " ".join([platform.machine(), maker, *(flag for flag in _FEATURES if flag in flags)])
