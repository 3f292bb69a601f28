"""Cancel a piece of code at its n-th checkpoint, for n = 1, 2, ... until it gets through.

A checkpoint is a place where Trio could deliver a cancellation.  The harness counts how often the
task of the code is about to be run and cancels its scope just before the n-th time, so whatever it
was waiting for at that moment raises `trio.Cancelled` (or, where it had just been given what it
waited for, the next checkpoint does).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio


@dataclass(eq=False)
class _CancelAt(trio.abc.Instrument):
    """Cancels `scope` when `task` is scheduled for the `step`-th time."""

    step: int
    scope: trio.CancelScope
    task: trio.lowlevel.Task
    seen: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.seen += 1

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task and self.seen + 1 == self.step:
            self.scope.cancel()


async def cancel_at(step: int, code: Callable[[], Awaitable[object]]) -> bool:
    """Run `code`, cancelling it at its checkpoint number `step`; tell whether that came so far."""
    with trio.CancelScope() as scope:
        instrument = _CancelAt(step, scope, trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(instrument)
        try:
            await code()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancel_called
