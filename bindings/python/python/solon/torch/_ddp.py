"""For scripts that use DistributedDataParallel."""

from typing import Any

# No `from __future__ import annotations`: DDP looks at the annotations of a hook.
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from .._errors import WrongValue
from .._solon import Plan, Report, Worker
from ._begin import joined
from ._flat import Flat


def one_member_group() -> None:
    """Makes a process group that this process is alone in, as the default group.

    A script calls this instead of ``init_process_group``: the exchange is Solon's, and a group of all workers would have each
    trust all others.
    """
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


class Hook:
    """A communication hook of DistributedDataParallel; :func:`hook_ddp` makes one."""

    def __init__(self, flat: Flat, worker: Worker) -> None:
        self.worker = worker
        self.last: Report | None = None
        self._flat = flat
        self._waiting: list[tuple[torch.futures.Future[torch.Tensor], torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]] = []
        self._seen = 0

    @property
    def plan(self) -> Plan:
        """The job's plan."""
        return self.worker.plan

    def __call__(self, _state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        """Takes a bucket's gradients; with the last one of a step, exchanges them all.

        What is in a bucket is told by its parameters: DDP changes buckets and their order after the first step.
        """
        parameters = bucket.parameters()
        for parameter, gradient in zip(parameters, bucket.gradients()):
            self._flat.views[parameter].copy_(gradient)
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        self._waiting.append((future, bucket.buffer(), list(zip(parameters, bucket.gradients()))))
        self._seen += len(parameters)
        if self._seen < len(self._flat.parameters):
            return future
        waiting, self._waiting, self._seen = self._waiting, [], 0
        self.last = self._flat.exchange(self.worker)
        for waits, buffer, pairs in waiting:
            for parameter, gradient in pairs:
                gradient.copy_(self._flat.views[parameter])
            waits.set_result(buffer)
        return future


def hook_ddp(
    model: DistributedDataParallel,
    worker: Worker | None = None,
    *,
    buffers: bool = False,
    mean: bool = True,
    begun: bool = False,
    **join: Any,
) -> Hook:
    """Has ``model`` exchange its gradients through Solon. Arguments are those of :class:`Exchange`.

    The update of a ``backward`` is in the gradients when it returns, and its report in the hook's ``last``. An error ends the
    ``backward`` as an exception; DDP cannot go on after it.
    """
    size = dist.get_world_size(model.process_group)
    if size != 1:
        cause = f"the process group of this DistributedDataParallel has {size} members, which would trust each other"
        raise WrongValue(cause, "call solon.torch.one_member_group() instead of init_process_group", fault="caller")
    flat = Flat(model.module, buffers=buffers)
    hook = Hook(flat, joined(worker, begun, join, model.module))
    flat.check(hook.worker.plan, mean=mean)

    def exchange(state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        return hook(state, bucket)

    model.register_comm_hook(None, exchange)
    return hook
