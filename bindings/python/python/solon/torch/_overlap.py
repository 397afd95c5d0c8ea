"""Sends gradients while backward computes others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from .._errors import WrongValue

if TYPE_CHECKING:
    from .._solon import Worker
    from ._flat import Flat


def _after(parameter: torch.nn.Parameter, done: Callable[[], None]) -> list[Any]:
    """Has ``done`` called whenever a gradient was added to ``parameter.grad``; what must be kept for it."""
    if hasattr(parameter, "register_post_accumulate_grad_hook"):
        return [parameter.register_post_accumulate_grad_hook(lambda _parameter: done())]
    # Before torch 2.1: the node that adds it, which lives as long as somebody keeps it.
    node: Any = parameter.expand_as(parameter).grad_fn
    node = node.next_functions[0][0]
    return [node.register_hook(lambda *_gradients: done()), node]


class Feeder:
    """A thread that submits the beginning of a run of numbers, as far as it is told.

    The worker belongs to it between the first :meth:`put` of a step and :meth:`finish`.
    """

    def __init__(self, flat: Flat, worker: Worker) -> None:
        self._flat, self._worker = flat, worker
        self._told: queue.SimpleQueue[tuple[int, int] | threading.Event | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        # Does not keep a program alive that forgets to close the exchange.
        self._thread = threading.Thread(target=self._run, name="solon-feed", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (told := self._told.get()) is not None:
            if isinstance(told, threading.Event):
                told.set()
            elif self._error is None:
                try:
                    self._flat.feed(self._worker, *told)
                except BaseException as error:  # noqa: BLE001 - raised again by finish
                    self._error = error

    def put(self, begin: int, ready: int) -> None:
        """Numbers ``begin`` to ``ready`` are there; those before were said to be."""
        self._told.put((begin, ready))

    def finish(self) -> None:
        """Waits until all that was put is submitted; raises what went wrong."""
        done = threading.Event()
        self._told.put(done)
        try:
            done.wait()
        except BaseException:
            # Ctrl-C. The worker is free when the thread has heard of it.
            self._worker.interrupt()
            done.wait()
            self._error = None
            raise
        error, self._error = self._error, None
        if error is not None:
            raise error

    def end(self) -> None:
        """Ends the thread. What waits gives up."""
        if self._thread.is_alive():
            self._worker.interrupt()
            self._told.put(None)
            self._thread.join()


class Overlap:
    """Watches which gradients are there, and has the beginning of the run sent as far as it is complete."""

    def __init__(self, flat: Flat, worker: Worker) -> None:
        self._flat, self._feeder = flat, Feeder(flat, worker)
        self._there = [False] * len(flat.parameters)
        self._at: dict[torch.Tensor, int] = {parameter: at for at, parameter in enumerate(flat.parameters)}
        #: Parameters, and numbers, that were said to be ready.
        self._complete, self._ready = 0, 0
        self._kept = [_after(parameter, self._done(at)) for at, parameter in enumerate(flat.parameters)]

    def _done(self, at: int) -> Callable[[], None]:
        def done() -> None:
            self._there[at] = True
            before = self._complete
            while self._complete < len(self._there) and self._there[self._complete]:
                self._complete += 1
            if self._complete > before:
                begin, self._ready = self._ready, self._flat.ends[self._complete - 1]
                self._feeder.put(begin, self._ready)

        return done

    def check_unsent(self, parameter: torch.Tensor) -> None:
        """Refuses to change what may be on its way."""
        if self._there[self._at[parameter]]:
            raise WrongValue(
                "a gradient changes that was sent already: overlap=True sends gradients as backward computes them",
                "have one backward per step and leave the gradients alone until step, or make Exchange without overlap",
                fault="caller",
            )

    def finish(self) -> None:
        """All that was sent belongs to a round that is exchanged now, if this raises nothing."""
        self._there = [False] * len(self._there)
        self._complete, self._ready = 0, 0
        self._feeder.finish()

    def remove(self) -> None:
        """Takes the hooks off."""
        for hook, *_node in self._kept:
            hook.remove()
        self._kept = []
        self._feeder.end()
