"""An endpoint that is a process on the remote machine.

Theory of operation
-------------------
The channel brings output and takes input; a task owned by the sandbox (`run`) passes on signals, which
are asked for without waiting, and sees to the end of the output.

**The end.**  The server tells the exit status when the process has ended, and ends the output when
nobody holds it open any more.  A process in the background may do so for ever, so after the status the
output ends too once nothing has come for `linger` seconds.

**Closing** (`aclose`): the input ends; everything in the process's session gets the polite signal and
has `grace` seconds, while output is thrown away; what is left is killed.  Cancellation skips to that
last step, which is shielded and has a deadline.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, Endpoint, ExitStatus, Kind, TerminalSize
from relay.wakeup import Wakeup
from runtimes.exec_inside.keeper import Keeper, KeeperLost
from runtimes.exec_inside.process import ExecError
from runtimes.signals import signal_number
from runtimes.ssh.channel import RemoteChannel

_log = structlog.get_logger()

FORCE_SECONDS = 15.0
"""How long killing may take before what is left is given up, to end with the sandbox."""

_MAX_SIGNALS = 64
_FIRST_LOOK = 0.005
_LONGEST_LOOK = 0.05
"""Seconds between looks whether the session of a process is empty."""


@dataclass(frozen=True, slots=True)
class Manners:
    """Seconds between being asked to end and being killed, and seconds of silence after the end."""

    grace: float
    linger: float


@dataclass(slots=True)
class Started:
    """A process that runs, and output that has come with the report of its start."""

    channel: RemoteChannel
    pid: int
    early: dict[Channel, bytes]


class ProcessEndpoint(Endpoint):
    """A running process.  Owns its channel; `run` must be running.

    `on_closed` is called once, with this endpoint, when everything has been freed.
    """

    def __init__(
        self,
        kind: Kind,
        started: Started,
        keeper: Keeper,
        manners: Manners,
        on_closed: Callable[[ProcessEndpoint], None],
    ) -> None:
        self._is_terminal = kind is Kind.PTY
        self._outputs = (Channel.OUTPUT,) if self._is_terminal else (Channel.OUTPUT, Channel.ERROR)
        self._channel = started.channel
        self._pid = started.pid
        self._early = {channel: data for channel, data in started.early.items() if data}
        self._keeper = keeper
        self._manners = manners
        self._on_closed = on_closed
        self._sending = trio.Lock()
        self._input_ended = False
        self._signals: deque[signal.Signals] = deque(maxlen=_MAX_SIGNALS)
        self._orders = Wakeup()
        self._closing = False
        self._closed = trio.Event()
        self._patience = trio.CancelScope()
        self._tasks = trio.CancelScope()

    @property
    def pid(self) -> int:
        """The process id on the remote machine."""
        return self._pid

    # ---------------------------------------------------------------- bytes

    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        """As `Endpoint.receive`.

        Raises:
          ValueError: there is no such channel here, or `max_bytes` is less than 1.
        """
        if channel not in self._outputs:
            raise ValueError(f"this endpoint has no output channel {channel!r}")
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        await trio.lowlevel.checkpoint()
        if self._closing:
            raise trio.ClosedResourceError
        if early := self._early.pop(channel, b""):
            if early[max_bytes:]:
                self._early[channel] = early[max_bytes:]
            return early[:max_bytes]
        data = await self._channel.receive(channel, max_bytes)
        if self._closing:
            raise trio.ClosedResourceError
        return data

    async def send(self, data: Buffer) -> None:
        """As `Endpoint.send`.

        SSH does not tell when a process closes its input but goes on: then what is sent is lost
        without an error.
        """
        await trio.lowlevel.checkpoint()
        self._refuse_input()
        async with self._sending:
            self._refuse_input()
            try:
                await self._channel.send(data)
            except trio.ClosedResourceError:
                self._refuse_input()
                raise

    def _refuse_input(self) -> None:
        if self._closing or self._input_ended:
            raise trio.ClosedResourceError

    async def send_eof(self) -> None:
        """As `Endpoint.send_eof`."""
        await trio.lowlevel.checkpoint()
        if not self._is_terminal and not self._input_ended:
            self._input_ended = True
            self._channel.send_eof()

    def statistics(self) -> dict[Channel, int]:
        """Return how many bytes of each channel wait for a reader."""
        waiting = self._channel.statistics()
        return {
            channel: waiting[channel] + len(self._early.get(channel, b""))
            for channel in self._outputs
        }

    # ---------------------------------------------------------------- tasks

    async def run(self) -> None:
        """Serve the process until its output has ended or this is closed."""
        with self._tasks:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey)
                await self._channel.wait_exited()
                await self._wait_for_silence()
                nursery.cancel_scope.cancel()

    async def _wait_for_silence(self) -> None:
        """Wait for the end of the output; end it when nothing comes any more."""
        while not self._channel.is_closed:
            seen = self._channel.received
            with trio.move_on_after(self._manners.linger):
                await self._channel.wait_closed()
            if self._channel.received == seen and not self._channel.is_held_up:
                self._channel.close()
                return

    async def _obey(self) -> None:
        """Pass signals on, one after another."""
        while True:
            await self._orders.wait()
            while self._signals:
                try:
                    await self._keeper.signal(self._signals.popleft(), self._pid)
                except (ExecError, KeeperLost) as error:
                    # Most likely the connection was lost, which everybody is told.
                    _log.debug("ssh_signal_failed", pid=self._pid, error=str(error))

    # ---------------------------------------------------------------- control

    async def wait(self) -> ExitStatus:
        """As `Endpoint.wait`.

        A process whose connection was lost counts as killed: nobody can tell what became of it,
        and it is ended as soon as the machine can be reached again.
        """
        await self._channel.wait_exited()
        return self._channel.status or ExitStatus(signal="KILL")

    @property
    def _has_exited(self) -> bool:
        return self._channel.status is not None or self._channel.is_closed

    def resize(self, size: TerminalSize) -> None:
        """As `Endpoint.resize`."""
        if self._is_terminal and not self._closing:
            self._channel.resize(size)

    def send_signal(self, name: str) -> None:
        """As `Endpoint.send_signal`: soon; more than 64 that wait push the oldest out."""
        number = signal_number(name)
        if not self._closing and not self._has_exited:
            self._signals.append(number)
            self._orders.set()

    async def aclose(self) -> None:
        """As `Endpoint.aclose`; see the top of this file."""
        if self._closing:
            await self._join_closing()
            return
        self._closing = True
        self._early.clear()
        self._channel.discard()
        try:
            await trio.lowlevel.checkpoint()
            with self._patience:
                await self._ask_to_end()
        finally:
            with trio.move_on_after(FORCE_SECONDS, shield=True) as scope:
                await self._force_to_end()
            if scope.cancelled_caught:
                _log.warning("ssh_process_survived", pid=self._pid)
            self._channel.exited(ExitStatus(signal="KILL"))
            self._channel.abort()
            self._tasks.cancel()
            self._closed.set()
            self._on_closed(self)

    async def _ask_to_end(self) -> None:
        if not self._is_terminal:
            self._channel.send_eof()
        polite = signal.SIGHUP if self._is_terminal else signal.SIGTERM
        pause = _FIRST_LOOK
        with trio.move_on_after(self._manners.grace):
            try:
                left = await self._keeper.sweep(polite, self._pid)
                while left:
                    await trio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_LOOK)
                    left = await self._keeper.sweep(0, self._pid)
            except (ExecError, KeeperLost) as error:
                _log.debug("ssh_process_not_asked_to_end", pid=self._pid, error=str(error))

    async def _force_to_end(self) -> None:
        try:
            while await self._keeper.sweep(signal.SIGKILL, self._pid):  # noqa: ASYNC110 - nobody tells us
                await trio.sleep(_FIRST_LOOK)
        except (ExecError, KeeperLost) as error:
            _log.debug("ssh_process_not_killed", pid=self._pid, error=str(error))
            return
        await self._channel.wait_exited()

    async def _join_closing(self) -> None:
        """Wait for the task that closes; when cancelled, make it hurry."""
        try:
            await self._closed.wait()
        finally:
            self._patience.cancel()
            with trio.move_on_after(FORCE_SECONDS, shield=True):
                await self._closed.wait()
