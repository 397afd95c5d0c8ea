"""Random numbers that the members of a group share."""

from __future__ import annotations

import hashlib
import random
import sys
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .._solon import Plan, Worker
    from ._ddp import Hook
    from ._exchange import Exchange


def seed_step(step: int, worker: Worker | Exchange | Hook | Plan, *, seed: int = 0) -> None:
    """Seeds the generators of torch, Python and numpy for step ``step``.

    Members of a group get the same numbers, for dropout and augmentation; other groups and steps get others. Call it at the
    beginning of every step. Workers of a DataLoader are seeded by torch when the iteration over it begins: call it before that, too.
    """
    plan: Any = getattr(worker, "plan", worker)
    # Mixed, so that steps and groups do not share streams of generators whose seeds are near each other.
    mixed = hashlib.blake2b(f"{seed} {plan.group} {step}".encode(), digest_size=8).digest()
    number = int.from_bytes(mixed, "little")
    torch.manual_seed(number % 2**63)
    random.seed(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number % 2**32)
