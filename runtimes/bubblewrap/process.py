"""A process in a sandbox, as its init knows it."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import trio

from relay.endpoint import ExitStatus, StartError
from runtimes.process import ProcessHandle

if TYPE_CHECKING:
    from runtimes.bubblewrap.control import Control

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05


class InsideProcess(ProcessHandle):
    """Made by `Control.start`; the control tells it what becomes of it.

    Raises:
      OSError: no descriptor is left.
    """

    def __init__(self, control: Control) -> None:
        self._control = control
        self._pid = 0
        self._status: ExitStatus | None = None
        self._over = trio.Event()
        self._released = False
        self._ended_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def pid(self) -> int:
        """Its process id inside; 0 while it is not yet known."""
        return self._pid

    @property
    def ended_fd(self) -> int:
        """See `ProcessHandle`."""
        return self._ended_fd

    def started(self, pid: int) -> None:
        """Take note of the pid."""
        self._pid = pid

    def ended(self, status: ExitStatus) -> None:
        """Take note of the end; only the first counts."""
        if self._status is None:
            self._status = status
            self._over.set()
            if not self._released:
                os.eventfd_write(self._ended_fd, 1)

    def poll(self) -> ExitStatus | None:
        """See `ProcessHandle`."""
        return self._status

    async def wait(self) -> ExitStatus:
        """See `ProcessHandle`."""
        await self._over.wait()
        if self._status is None:
            raise trio.TrioInternalError("a process is over without a status")
        return self._status

    def signal_group(self, number: signal.Signals, group: int | None = None) -> None:
        """See `ProcessHandle`: `group` is signalled from here, its own through the init."""
        if self._status is not None:
            return
        if group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
                return
        self._control.tell({"do": "signal", "pid": self._pid, "number": int(number)})

    async def end_session_politely(
        self, polite: signal.Signals, seconds: float, limiter: trio.CapacityLimiter
    ) -> None:
        """See `ProcessHandle`."""
        with trio.move_on_after(seconds):
            await self._strike([int(polite), int(signal.SIGCONT)], again=[])

    async def end_session_by_force(self, limiter: trio.CapacityLimiter) -> None:
        """See `ProcessHandle`."""
        kill = [int(signal.SIGKILL)]
        await self._strike(kill, again=kill)

    async def _strike(self, numbers: list[int], *, again: list[int]) -> None:
        """Signal everything in the session until there is nothing left."""
        pause = _FIRST_PAUSE
        with contextlib.suppress(StartError):  # with the init, everything inside has ended
            while await self._signal_session(numbers):
                await trio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                numbers = again

    async def _signal_session(self, numbers: list[int]) -> int:
        request = {"do": "strike", "pid": self._pid, "numbers": numbers}
        reply, _ = await self._control.ask(request)
        count: int = reply["count"]
        return count

    def release(self) -> None:
        """See `ProcessHandle`."""
        self.ended(ExitStatus(signal="KILL"))  # it is not told any more how it ended
        self._control.forget(self)
        self.discard()

    def discard(self) -> None:
        """Free the descriptor only: there is no process."""
        if not self._released:
            self._released = True
            trio.lowlevel.notify_closing(self._ended_fd)
            os.close(self._ended_fd)
