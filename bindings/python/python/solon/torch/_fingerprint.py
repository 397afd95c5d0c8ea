"""How torch computes in this process."""

from __future__ import annotations

import re

import torch

from .._fingerprint import processor


def fingerprint(module: torch.nn.Module | None = None) -> dict[str, str]:
    """How this process computes the gradients of ``module``, for :func:`solon.join`, which :class:`Exchange` and
    :func:`hook_ddp` give it by themselves.

    Print it where the daemon says that a group is mixed. What it cannot see, such as the type of an autocast, can be added:
    ``fingerprint(model) | {"dtype": "bfloat16"}``.
    """
    parameter = next(module.parameters(), None) if module is not None else None
    device = torch.device("cpu") if parameter is None else parameter.device
    version, words = [torch.__version__], []
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        words = [properties.name, f"{properties.major}.{properties.minor}"]
        version += [f"CUDA {torch.version.cuda}", f"cuDNN {torch.backends.cudnn.version()}"]
    elif device.type == "cpu":
        words = [_capability(), processor()]
    dtype = [str(torch.float32 if parameter is None else parameter.dtype).removeprefix("torch.")]
    dtype.append(f"matmul {torch.get_float32_matmul_precision()}")
    if device.type == "cuda":
        dtype.append(f"tf32 {torch.backends.cuda.matmul.allow_tf32} {torch.backends.cudnn.allow_tf32}")
        dtype.append(f"benchmark {torch.backends.cudnn.benchmark}")
    if torch.are_deterministic_algorithms_enabled():
        dtype.append("deterministic")
    return {
        "framework": "torch",
        "version": ", ".join(version),
        "threads": str(torch.get_num_threads()),
        "device": ", ".join([device.type, *words]),
        "dtype": ", ".join(dtype),
    }


def _capability() -> str:
    """What torch chooses its own kernels by."""
    if hasattr(torch.backends, "cpu") and hasattr(torch.backends.cpu, "get_cpu_capability"):
        return torch.backends.cpu.get_cpu_capability()
    found = re.search(r"CPU capability usage: (\S+)", torch.__config__.show())
    return found.group(1) if found else ""
