"""How a job begins: all workers with the same weights, in its first round."""

from __future__ import annotations

import datetime
import logging
import os
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from .._errors import JoinError, WrongValue
from .._solon import join
from ._fingerprint import fingerprint

if TYPE_CHECKING:
    from .._solon import Worker

log = logging.getLogger("solon")

#: How long workers that were started together wait for each other, in seconds.
PATIENCE = 120


def joined(worker: Worker | None, begun: bool, given: dict[str, Any], module: torch.nn.Module) -> Worker:
    """The worker that was given, or one that joins, together with the others of its launcher."""
    if worker is not None:
        if given:
            raise WrongValue(f"a worker was given, and also {', '.join(given)}", "these are for joining", fault="caller")
        check_begin(worker, begun)
        return worker
    worker = join(**{"fingerprint": fingerprint(module), **given})
    try:
        check_begin(worker, begun)
        wait_for_others()
    except BaseException:
        worker.leave()
        raise
    return worker


def check_begin(worker: Worker, begun: bool) -> None:
    """Refuses a worker that has missed updates: its gradients would be of other weights, and it would be named as a liar."""
    round = worker.next_round
    if round > 0 and not begun:
        raise JoinError(
            f"the job is in round {round} already, so this worker has missed {round} updates",
            "start all workers before the first round; or give this one the weights that the others have now, and pass begun=True",
            fault="caller",
        )


def wait_for_others() -> None:
    """Under torchrun: until all have joined. The rounds of a group do not wait for its slowest, so who is late misses some."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    # The launcher's own store. It says no more than who has come, and nobody is waited for without end.
    store, _, workers = next(dist.rendezvous("env://"))
    if store.add("solon/joined", 1) == workers:
        store.set("solon/all", "joined")
    try:
        store.wait(["solon/all"], datetime.timedelta(seconds=PATIENCE))
    except RuntimeError:
        log.warning("not all %d workers have joined after %d s; beginning without the others", workers, PATIENCE)
