"""Exchanges the gradients of a module."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Self

import torch

from ._begin import joined
from ._flat import Flat
from ._overlap import Overlap

if TYPE_CHECKING:
    from .._solon import Plan, Report, Worker


class Exchange:
    """Exchanges the gradients of a module.

    Gradients lie in one buffer; each parameter's ``grad`` is a slice of it, so nothing is gathered or scattered::

        exchange = solon.torch.Exchange(model)
        for inputs, labels in loader:
            loss(model(inputs), labels).backward()
            exchange.step()  # now p.grad is the update
            optimizer.step()

    It zeroes the gradients itself, when the first gradient comes after a step: ``optimizer.zero_grad()`` is not needed, and
    does no harm before ``backward``. Several ``backward`` between two steps add up. Clip gradients after ``step``.

    All members of a group must begin with the same weights and compute the same gradients: see :class:`GroupBatchSampler`,
    :func:`seed_step`, and docs/pytorch.md.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        worker: Worker | None = None,
        *,
        buffers: bool = False,
        mean: bool = True,
        begun: bool = False,
        overlap: bool = False,
        **join: Any,
    ) -> None:
        """Joins with what else is given, as :func:`solon.join` does, unless ``worker`` has joined already.

        ``buffers``: average floating-point buffers (the statistics of BatchNorm) over the groups, too. ``mean``: warn if the
        daemon does not make a mean of the groups' gradients. ``begun``: the job has done rounds before, and the module has the
        weights that followed. ``overlap``: send gradients as ``backward`` computes them, so that the exchange hides behind it;
        then there is one ``backward`` per step, and nothing changes gradients between the two.
        """
        self._flat = Flat(module, buffers=buffers)
        self.worker = joined(worker, begun, join, module)
        self._flat.check(self.worker.plan, mean=mean)
        self._warned = False
        # The buffer holds an update, not the beginning of a gradient.
        self._spent = True
        self._hooks = [parameter.register_hook(self._before(parameter)) for parameter in self._flat.parameters]
        for parameter, view in self._flat.views.items():
            parameter.grad = view
        self._overlap = Overlap(self._flat, self.worker) if overlap else None

    @property
    def plan(self) -> Plan:
        """The job's plan."""
        return self.worker.plan

    @property
    def dimension(self) -> int:
        """How many numbers are exchanged."""
        return len(self._flat.numbers)

    def _before(self, parameter: torch.nn.Parameter):
        view = self._flat.views[parameter]

        # Called before a gradient is added to parameter.grad.
        def prepare(_gradient: torch.Tensor) -> None:
            if self._spent:
                self._begin()
                return
            if self._overlap is not None:
                self._overlap.check_unsent(parameter)
            if parameter.grad is not view:
                self._put_back(parameter, view)

        return prepare

    def _begin(self) -> None:
        """What is in the gradients belongs to the last step, wherever it lies."""
        self._spent = False
        self._flat.numbers.zero_()
        for parameter, view in self._flat.views.items():
            if parameter.grad is not view:
                if parameter.grad is not None:
                    self._warn()
                parameter.grad = view

    def _put_back(self, parameter: torch.Tensor, view: torch.Tensor) -> None:
        if self._overlap is not None:
            self._overlap.check_unsent(parameter)
        if parameter.grad is None:
            # zero_grad() has taken it away.
            view.zero_()
        else:
            self._warn()
            view.copy_(parameter.grad)
        parameter.grad = view

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                "the gradients are no longer where solon.torch.Exchange has put them: something has set p.grad. They are copied "
                "now, which costs time and is said once",
                stacklevel=3,
            )

    def step(self) -> Report:
        """Replaces all gradients by the update.

        After an error they are zero, and the next ``backward`` begins anew. After :class:`solon.Undecodable`, which every
        worker gets for the round, leave out ``optimizer.step()`` and go on with the next batch.
        """
        try:
            return self._step()
        except BaseException:
            self._flat.numbers.zero_()
            raise

    def _step(self) -> Report:
        with torch.no_grad():
            if self._spent:
                # No backward since the last step.
                self._begin()
            for parameter, view in self._flat.views.items():
                if parameter.grad is not view:
                    self._put_back(parameter, view)
        self._spent = True
        if self._overlap is not None:
            self._overlap.finish()
        return self._flat.exchange(self.worker)

    def close(self) -> None:
        """Leaves the job, and takes the hooks off the module."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._overlap is not None:
            self._overlap.remove()
        self.worker.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()
