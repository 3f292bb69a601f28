"""A started process, as endpoints see it, wherever it runs."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod

import trio

from relay.endpoint import ExitStatus


class ProcessHandle(ABC):
    """A process that leads a session of its own, until `release`.

    Its bytes are none of its business: a handle knows the end, the signals, and the rest of the
    session.
    """

    @property
    @abstractmethod
    def pid(self) -> int:
        """Its process id where it runs, which is also that of its process group and session."""

    @property
    @abstractmethod
    def ended_fd(self) -> int:
        """A descriptor that is readable once the process has ended; closed by `release`."""

    @abstractmethod
    def poll(self) -> ExitStatus | None:
        """Return how the process ended, or None while it runs."""

    @abstractmethod
    async def wait(self) -> ExitStatus:
        """Wait for the end.  Any number of tasks may wait, also afterwards.  Cancellation: safe."""

    @abstractmethod
    def signal_group(self, number: signal.Signals, group: int | None = None) -> None:
        """Send a signal to `group`, or else to the group of this process.

        `group` is a process group as the server sees it; one that is gone by now counts as none.
        Does nothing once the process has ended.
        """

    @abstractmethod
    async def end_session_politely(
        self, polite: signal.Signals, seconds: float, limiter: trio.CapacityLimiter
    ) -> None:
        """Send `polite` to everything in the session, and wait up to `seconds` for their ends.

        Cancellation: safe.
        """

    @abstractmethod
    async def end_session_by_force(self, limiter: trio.CapacityLimiter) -> None:
        """Kill everything in the session until nothing is left; the caller sets the deadline.

        Cancellation: safe.
        """

    @abstractmethod
    def release(self) -> None:
        """Free what the handle holds.  The process must have ended or have been killed."""
