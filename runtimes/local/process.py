"""A child process: its end, its signals, its reaping.

Theory of operation
-------------------
The child leads a session of its own, so its pid names the process, its group and its session.
Those names must not be reused by the system while we still signal by them.  So an ended child is
*not* reaped at once: its status is read with WNOWAIT and it stays a zombie, which pins the pid,
until `release`, after its session was swept.  That is why this is not a `trio.Process`, whose
`wait` reaps.

A pidfd becomes readable when the process ends.  It can be put in an epoll set next to the fd of a
pipe, which is how a reader learns of the end without a task per process.
"""

from __future__ import annotations

import os
import signal
import subprocess

import structlog
import trio

from relay.endpoint import ExitStatus
from runtimes.local.processes import end_by_force, end_politely, in_session
from runtimes.process import ProcessHandle
from runtimes.signals import signal_name

_log = structlog.get_logger()


class ChildProcess(ProcessHandle):
    """A child that leads its own session; made by `runtimes.local.launch.spawn`.

    Raises:
      OSError: no descriptor is left for its pidfd.
    """

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._pidfd = os.pidfd_open(popen.pid)
        self._status: ExitStatus | None = None
        # Trio lets one task at a time wait for a descriptor: waiters queue up.
        self._waiting = trio.Lock()

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its process group and session."""
        return self._popen.pid

    @property
    def ended_fd(self) -> int:
        """Its pidfd: readable once the process has ended; closed by `release`."""
        return self._pidfd

    def poll(self) -> ExitStatus | None:
        """Return how the process ended, or None while it runs."""
        if self._status is None:
            self._status = _peek(self.pid)
        return self._status

    async def wait(self) -> ExitStatus:
        """Wait for the end.  Any number of tasks may wait, also afterwards.  Cancellation: safe."""
        async with self._waiting:
            while (status := self.poll()) is None:
                await trio.lowlevel.wait_readable(self._pidfd)
        return status

    def signal_group(self, number: signal.Signals, group: int | None = None) -> None:
        """Send a signal to `group`, or else to the group of this process.

        Does nothing once the process has ended.  A `group` that is gone by now counts as none.
        """
        if self.poll() is not None:
            return
        for target in filter(None, (group, self.pid)):
            try:
                os.killpg(target, number)
            except ProcessLookupError:
                continue  # gone in the meantime
            except PermissionError:  # it runs as another user, by sudo: not ours to signal
                _log.warning("signal_not_permitted", group=target, signal=number.name)
            return

    async def end_session_politely(
        self, polite: signal.Signals, seconds: float, limiter: trio.CapacityLimiter
    ) -> None:
        """As `ProcessHandle.end_session_politely`; `limiter` bounds threads that read /proc."""
        await end_politely(in_session(self.pid), polite, seconds, limiter)

    async def end_session_by_force(self, limiter: trio.CapacityLimiter) -> None:
        """As `ProcessHandle.end_session_by_force`."""
        await end_by_force(in_session(self.pid), limiter)

    def destroy(self) -> None:
        """Kill and reap the process, for when it could not be put to use.  Blocks until it ended."""
        self._popen.kill()
        self._popen.wait()
        os.close(self._pidfd)

    def release(self) -> None:
        """Reap the process and free its pidfd.  It must have ended or have been killed."""
        if self.poll() is None:
            # Stuck inside the kernel; SIGKILL takes effect as soon as it comes out.
            _log.warning("process_survived_sigkill", pid=self.pid)
            self._status = ExitStatus(signal="KILL")
            trio.lowlevel.notify_closing(self._pidfd)
        else:
            self._popen.wait()
        os.close(self._pidfd)


def _peek(pid: int) -> ExitStatus | None:
    """Return how child `pid` ended without reaping it; None while it runs."""
    try:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        # Something else in this process reaps every child.  How it ended is lost.
        _log.warning("exit_status_lost", pid=pid)
        return ExitStatus(code=255)
    if info is None:
        return None
    if info.si_code == os.CLD_EXITED:
        return ExitStatus(code=info.si_status)
    return ExitStatus(signal=signal_name(info.si_status))
