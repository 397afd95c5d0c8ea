"""Which samples a group uses in a step."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import TYPE_CHECKING, Any

from ._errors import WrongValue
from ._solon import Sampler

if TYPE_CHECKING:
    from ._solon import Plan, Worker


class GroupBatchSampler:
    """Deals out indices: the same in the same order to every member of a group, others to every other group.

    For ``DataLoader(data, batch_sampler=...)``, and without torch for whoever wants lists of indices. All batches have the same size;
    what is left over at the end of an epoch is not used in it. The order depends on ``seed`` and epoch alone, and is the one
    that the Rust crate's ``solon::sampler`` deals.
    """

    def __init__(self, data: Sized | int, batch_size: int, worker: Worker | Plan, *, seed: int = 0) -> None:
        """``data`` is a data set, or how many samples there are; ``batch_size`` is that of one group."""
        plan: Any = getattr(worker, "plan", worker)
        self.samples = data if isinstance(data, int) else len(data)
        self.batch_size, self.seed = batch_size, seed
        self.group, self.groups = plan.group, plan.groups
        if batch_size < 1:
            raise WrongValue(
                f"batch_size is {batch_size}, expected a number from 1", "give the samples per group and step", fault="caller"
            )
        self._sampler = Sampler(self.samples, batch_size * self.groups, seed)
        self._epoch = 0
        self._step = 0

    @property
    def epoch(self) -> int:
        """The epoch that is being dealt."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Begins epoch ``epoch``: another order of all samples. Without it every epoch has the same."""
        self._epoch, self._step = epoch, 0

    def __len__(self) -> int:
        """Batches per epoch."""
        return self._sampler.steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        # Where a state was loaded in mid-epoch the rest of that epoch comes first.
        start, self._step = self._step, 0
        epoch, steps = self._epoch, len(self)
        for step in range(start, steps):
            batch = self._sampler.part(epoch * steps + step, self.group, self.groups)
            self._step = (step + 1) % steps
            yield batch

    def state_dict(self, step: int | None = None) -> dict[str, int]:
        """Where it stands. ``step`` is how many batches of this epoch were used: a DataLoader with workers has taken more than
        the training has seen, so it must say; without, as many as were dealt."""
        state = {"epoch": self._epoch, "step": self._step if step is None else step}
        return state | {"seed": self.seed, "samples": self.samples, "batch_size": self.batch_size, "groups": self.groups}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from there. The job must be the same: seed, samples, batch size and groups."""
        for name in ("seed", "samples", "batch_size", "groups"):
            if state[name] != getattr(self, name):
                cause = f"the state is of a sampler whose {name} is {state[name]}, and here it is {getattr(self, name)}"
                raise WrongValue(cause, "make the sampler as it was when the state was saved", fault="caller")
        self._epoch, self._step = state["epoch"], state["step"] % len(self)
