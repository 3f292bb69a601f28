"""What terminals and plain commands have in common: a child, its channels, and its end.

Closing, step by step:

1. Whoever waits on a channel is told.  A terminal is hung up; a command sees the end of its input.
2. Everything in the child's session gets the polite signal and `grace` seconds.  The output of a
   command is still taken, and thrown away: a farewell must not end in SIGPIPE half-way through.
3. What is left is killed, over and over until nothing is found, and the child is reaped.

Cancellation skips to step 3, which is shielded and has a deadline.  A process that called setsid
has left its stream on purpose (a daemon, a tmux server): it ends with the sandbox.
"""

from __future__ import annotations

import signal
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, Endpoint, ExitStatus
from runtimes.local.channels import InputWriter, OutputReader
from runtimes.process import ProcessHandle
from runtimes.signals import signal_number

_log = structlog.get_logger()

FORCE_SECONDS = 5.0
"""How long killing and reaping may take before what is left is given up and logged."""


@dataclass(frozen=True, slots=True)
class Manners:
    """How patient closing and reading are; seconds."""

    grace: float = 2.0
    """Between the polite signal and SIGKILL."""
    linger: float = 1.0
    """For more output of a channel that somebody holds open after the child has ended."""


class ProcessEndpoint(Endpoint):
    """An endpoint that is a process on this machine, on a terminal or pipes of this machine.

    `limiter` bounds the threads that read ``/proc``.  `on_closed` is called once, with this
    endpoint, when everything has been freed.
    """

    def __init__(
        self,
        process: ProcessHandle,
        outputs: Mapping[Channel, OutputReader],
        manners: Manners,
        limiter: trio.CapacityLimiter,
        on_closed: Callable[[ProcessEndpoint], None],
    ) -> None:
        self._process = process
        self._outputs = outputs
        self._manners = manners
        self._limiter = limiter
        self._closing = False
        self._closed = trio.Event()
        self._patience = trio.CancelScope()
        self._on_closed = on_closed

    @property
    @abstractmethod
    def _polite_signal(self) -> signal.Signals:
        """What a process of this kind takes as a request to end."""

    @property
    @abstractmethod
    def _input(self) -> InputWriter | None:
        """The input; None once it was ended."""

    @abstractmethod
    def _close_channels(self) -> None:
        """Close every channel: wake who waits on it, end the input."""

    @abstractmethod
    def _free_descriptors(self) -> None:
        """Close the descriptors that closing the channels has left open."""

    async def _ask_to_end(self) -> None:
        """Send the polite signal, and wait for the ends of the session's processes."""
        await self._process.end_session_politely(
            self._polite_signal, self._manners.grace, self._limiter
        )

    def _signal_target(self) -> int | None:
        """The process group to signal, where it isn't the child's own."""
        return None

    @property
    def pid(self) -> int:
        """The process id of the child, where it runs."""
        return self._process.pid

    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        """As `Endpoint.receive`.

        Raises:
          ValueError: there is no such channel here, or `max_bytes` is less than 1.
        """
        try:
            output = self._outputs[channel]
        except KeyError:
            raise ValueError(f"this endpoint has no output channel {channel!r}") from None
        return await output.receive(max_bytes)

    async def send(self, data: Buffer) -> None:
        """As `Endpoint.send`."""
        if self._closing or self._input is None:
            raise trio.ClosedResourceError
        await self._input.send(data)

    async def wait(self) -> ExitStatus:
        """As `Endpoint.wait`."""
        return await self._process.wait()

    def send_signal(self, name: str) -> None:
        """As `Endpoint.send_signal`."""
        number = signal_number(name)
        if not self._closing:
            self._process.signal_group(number, self._signal_target())

    async def aclose(self) -> None:
        """As `Endpoint.aclose`; see the top of this file."""
        if self._closing:
            await self._join_closing()
            return
        self._closing = True
        self._close_channels()
        try:
            await trio.lowlevel.checkpoint()
            with self._patience:
                await self._ask_to_end()
        finally:
            self._free_descriptors()
            self._process.signal_group(signal.SIGKILL)
            with trio.move_on_after(FORCE_SECONDS, shield=True) as scope:
                await self._process.end_session_by_force(self._limiter)
                await self._process.wait()
            if scope.cancelled_caught:
                _log.warning("processes_survived_sigkill", session=self.pid)
            self._process.release()
            self._closed.set()
            self._on_closed(self)

    async def _join_closing(self) -> None:
        """Wait for the task that closes; when cancelled, make it hurry."""
        try:
            await self._closed.wait()
        finally:
            self._patience.cancel()
            with trio.move_on_after(FORCE_SECONDS, shield=True):
                await self._closed.wait()
