"""Solon for PyTorch (1.13 and newer).

:class:`Exchange` turns a training loop on one machine into one whose gradients are exchanged; :func:`hook_ddp` does so for
scripts that use DistributedDataParallel. :class:`GroupBatchSampler` and :func:`seed_step` have all members of a group compute
the same gradient, which is what Solon corrects errors with.
"""

from .._sampler import GroupBatchSampler
from ._ddp import Hook, hook_ddp, one_member_group
from ._exchange import Exchange
from ._fingerprint import fingerprint
from ._flat import dimension
from ._seed import seed_step

__all__ = ["Exchange", "GroupBatchSampler", "Hook", "dimension", "fingerprint", "hook_ddp", "one_member_group", "seed_step"]
