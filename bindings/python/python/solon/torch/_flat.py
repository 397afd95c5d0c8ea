"""A model's gradients as one run of numbers."""

from __future__ import annotations

import itertools
import logging
import math
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from .._errors import WrongType, WrongValue

if TYPE_CHECKING:
    from .._solon import Plan, Report, Worker

log = logging.getLogger("solon")


def _averaged(module: torch.nn.Module, buffers: bool) -> list[torch.Tensor]:
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()] if buffers else []


def _trained(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    # Backward computes the gradients of the last ones first: so what is ready is, by and large, the beginning of the run.
    return [parameter for parameter in module.parameters() if parameter.requires_grad][::-1]


def _count(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def dimension(module: torch.nn.Module, *, buffers: bool = False) -> int:
    """What solond must be told as ``--job-dimension``: how many numbers of ``module`` are exchanged.

    ``buffers`` as in :class:`Exchange`.
    """
    return _count(_trained(module)) + _count(_averaged(module, buffers))


class Flat:
    """One run of numbers: a slice per trained parameter, the last of ``module.parameters()`` first, then one per averaged buffer."""

    def __init__(self, module: torch.nn.Module, *, buffers: bool) -> None:
        self.parameters, self.buffers = _trained(module), _averaged(module, buffers)
        names = {tensor: name for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
        if not self.parameters:
            raise WrongValue("the module has no parameter that is trained", "pass the model itself", fault="caller")
        self.device = self.parameters[0].device
        for tensor in [*self.parameters, *self.buffers]:
            if tensor.dtype != torch.float32:
                cause = f"{names[tensor]} is of {tensor.dtype}, expected torch.float32"
                raise WrongType(cause, "keep the weights in float32; autocast may compute in less", fault="caller")
            if tensor.device != self.device:
                cause = f"{names[tensor]} is on {tensor.device}, {names[self.parameters[0]]} on {self.device}"
                raise WrongValue(cause, "one Exchange takes a module on one device", fault="caller")
        self.numbers = torch.zeros(dimension(module, buffers=buffers), dtype=torch.float32, device=self.device)
        # What the worker sees. On a CPU it is the same memory.
        on_host = self.device.type == "cpu"
        self.host = self.numbers if on_host else torch.zeros(len(self.numbers), pin_memory=self.device.type == "cuda")
        self.array = self.host.numpy()
        sizes = [tensor.numel() for tensor in [*self.parameters, *self.buffers]]
        slices = self.numbers.split(sizes)
        views = [part.view(tensor.shape) for part, tensor in zip(slices, [*self.parameters, *self.buffers])]
        self.views: dict[torch.Tensor, torch.Tensor] = dict(zip(self.parameters, views))
        self.ends = list(itertools.accumulate(sizes[: len(self.parameters)]))
        self._averages = list(zip(self.buffers, views[len(self.parameters) :]))
        self._named: set[int] = set()

    def check(self, plan: Plan, *, mean: bool) -> None:
        """Refuses a job of another model; warns about one that does not average."""
        found = len(self.numbers)
        if plan.dimension != found:
            cause = f"the module has {found} numbers to exchange, the job has {plan.dimension}"
            raise WrongValue(cause, f"start solond with --job-dimension {found}", fault="caller")
        if mean and not math.isclose(plan.scale * plan.groups, 1, rel_tol=1e-3):
            warnings.warn(
                f"the daemon's job.scale is {plan.scale:g} over {plan.groups} groups, so the update is {plan.scale * plan.groups:g} "
                f"times the mean of the groups' gradients: set --job-scale to {1 / plan.groups:.9g}, or pass mean=False if it is "
                "meant",
                stacklevel=4,
            )

    @torch.no_grad()
    def feed(self, worker: Worker, begin: int, ready: int) -> None:
        """Sends ahead what is ready of the gradients: up to ``ready``, and up to ``begin`` it was before."""
        if self.host is not self.numbers:
            self.host[begin:ready].copy_(self.numbers[begin:ready])
        worker.feed(self.array, ready)

    @torch.no_grad()
    def exchange(self, worker: Worker) -> Report:
        """Replaces the gradients, and the buffers that are averaged, by the update."""
        for buffer, view in self._averages:
            view.copy_(buffer)
        if self.host is not self.numbers:
            self.host.copy_(self.numbers)
        report = worker.exchange(self.array)
        if self.host is not self.numbers:
            self.numbers.copy_(self.host)
        # The scale is for gradients; statistics are a mean over the groups whatever it is.
        groups = worker.plan.scale * worker.plan.groups
        for buffer, view in self._averages:
            buffer.copy_(view if groups == 1 else view / groups)
        for liar in {*report.liars, *report.late_liars} - self._named:
            self._named.add(liar)
            log.warning("worker %d sent something wrong in round %d; it was corrected", liar, report.round)
        return report
