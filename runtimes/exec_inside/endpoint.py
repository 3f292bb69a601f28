"""An endpoint that is a process in a sandbox.

Theory of operation
-------------------
Each process has one connection (`runtimes.exec_inside.process.Exec`).  Two tasks, owned by the sandbox (`run`), serve it: one
takes output off it into a bounded buffer for each channel, the other passes on sizes and signals,
which are asked for without waiting.

**Back-pressure.**  While a buffer is full the connection is not read, so its other side blocks, and
then the process.  Standard output and error share the connection: who leaves one of them unread for more
than `BUFFER_BYTES` holds up the other too.

**The end.**  When the process has ended, so does the connection, after the last byte of output; the exit
code is asked for then.  While a full buffer keeps us from seeing that end, it is asked for now and
then.  Some (Podman's helper) tell it only when the output has been taken off them; so once nobody is left
in the process's session, what remains in the pipes, at most `REST_BYTES`, is read although the buffer is
full.  Engines tell the death by signal N as exit code 128 + N, as shells do;
so that is what such a code is taken for.

**Closing** (`aclose`): the input ends; everything in the process's session gets the polite signal
and has `grace` seconds, while output is thrown away; what is left is killed.  Cancellation skips to
that last step, which is shielded and has a deadline.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import structlog
import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, Endpoint, ExitStatus, Kind, TerminalSize
from relay.wakeup import Wakeup
from runtimes.exec_inside.keeper import Keeper, KeeperLost
from runtimes.exec_inside.opening import Opened
from runtimes.exec_inside.process import ExecError
from runtimes.signals import signal_name, signal_number

_log = structlog.get_logger()

BUFFER_BYTES = 256 * 1024
"""Output held for each channel, beyond which nothing more is read."""
REST_BYTES = 1024 * 1024
"""What is read beyond that once the processes are gone: more than pipes and sockets hold."""
FORCE_SECONDS = 15.0
"""How long killing may take before what is left is given up, to end with the sandbox."""

RESIZE_SECONDS = 2.0
"""How long input waits for a size that was set before it."""

_SLICE_BYTES = 64 * 1024
_MAX_SIGNALS = 64
_FIRST_LOOK = 0.05
_LONGEST_LOOK = 2.0
"""Seconds between looks whether the process has ended, or its session is empty."""
_LAST_SIGNAL = 64


def exit_status(code: int) -> ExitStatus:
    """Return what the exit code that is told stands for."""
    if 128 < code <= 128 + _LAST_SIGNAL:
        return ExitStatus(signal=signal_name(code - 128))
    return ExitStatus(code=code & 0xFF)


class _Output:
    """The bytes of one channel that wait for a reader."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.arrived = trio.lowlevel.ParkingLot()


class _Resizing:
    """The size that a terminal shall have, until it has it; None: nothing is to be done."""

    def __init__(self) -> None:
        self.wanted: TerminalSize | None = None
        self._lot = trio.lowlevel.ParkingLot()

    @property
    def is_pending(self) -> bool:
        """Whether a size is still to be set."""
        return self.wanted is not None

    def done(self, size: TerminalSize) -> None:
        """Note that `size` was set, or could not be; another may be wanted by now."""
        if self.wanted == size:
            self.wanted = None
            self._lot.unpark_all()

    async def wait(self, seconds: float) -> None:
        """Wait until nothing is to be done, but not for ever: the terminal may just have gone."""
        with trio.move_on_after(seconds):
            while self.is_pending:
                await self._lot.park()


class ExecEndpoint(Endpoint):
    """A running process.  Owns `opened`; `run` must be running.

    `grace` is in seconds.  `on_closed` is called once, with
    this endpoint, when everything has been freed.
    """

    def __init__(
        self,
        kind: Kind,
        opened: Opened,
        keeper: Keeper,
        grace: float,
        on_closed: Callable[[ExecEndpoint], None],
    ) -> None:
        channels = (Channel.OUTPUT,) if kind is Kind.PTY else (Channel.OUTPUT, Channel.ERROR)
        self._is_terminal = kind is Kind.PTY
        self._pid = opened.pid
        self._exec = opened.exec_
        self._keeper = keeper
        self._grace = grace
        self._on_closed = on_closed
        self._outputs = {channel: _Output() for channel in channels}
        for channel, data in opened.early.items():
            self._outputs[channel].data += data
        self._output_ended = False
        self._deserted = False
        self._room = Wakeup()
        self._input_ended = False
        self._send_scope: trio.CancelScope | None = None
        self._sending = trio.Lock()
        self._status: ExitStatus | None = None
        self._ended = trio.Event()
        self._orders = Wakeup()
        self._resizing = _Resizing()
        self._signals: deque[signal.Signals] = deque(maxlen=_MAX_SIGNALS)
        self._closing = False
        self._closed = trio.Event()
        self._patience = trio.CancelScope()
        self._tasks = trio.CancelScope()
        self._served = trio.Event()

    @property
    def pid(self) -> int:
        """The process id inside the sandbox."""
        return self._pid

    # ---------------------------------------------------------------- bytes

    def _take(self, channel: Channel, data: Buffer) -> None:
        """Put output away for the reader of `channel`; thrown away when nobody will read it."""
        output = self._outputs.get(channel)
        if output is not None and not self._closing and not self._output_ended:
            output.data += data
            output.arrived.unpark_all()

    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        """As `Endpoint.receive`.

        Raises:
          ValueError: there is no such channel here, or `max_bytes` is less than 1.
        """
        try:
            output = self._outputs[channel]
        except KeyError:
            raise ValueError(f"this endpoint has no output channel {channel!r}") from None
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        await trio.lowlevel.checkpoint()
        while True:
            if self._closing:
                raise trio.ClosedResourceError
            if output.data:
                break
            if self._output_ended:
                return b""
            await output.arrived.park()
            await trio.lowlevel.checkpoint()  # a turn for more to come: few large pieces, not many
        piece = bytes(memoryview(output.data)[:max_bytes])
        del output.data[: len(piece)]
        self._room.set()
        return piece

    async def send(self, data: Buffer) -> None:
        """As `Endpoint.send`.

        Nobody tells when a process closes its input but goes on: then what is sent is
        lost without an error.  A size that was set before is in force before `data` arrives.
        """
        await trio.lowlevel.checkpoint()
        self._refuse_input()
        if self._resizing.is_pending:
            await self._resizing.wait(RESIZE_SECONDS)
            self._refuse_input()
        with trio.CancelScope() as scope:
            self._send_scope = scope
            try:
                async with self._sending:
                    with memoryview(data).cast("B") as view:
                        for start in range(0, len(view), _SLICE_BYTES):
                            await self._exec.send(view[start : start + _SLICE_BYTES])
            finally:
                self._send_scope = None
        if scope.cancelled_caught:
            self._refuse_input()

    def _refuse_input(self) -> None:
        if self._closing or self._input_ended:
            raise trio.ClosedResourceError
        if self._output_ended or self._status is not None:
            raise trio.BrokenResourceError("the process has ended")

    async def send_eof(self) -> None:
        """As `Endpoint.send_eof`."""
        await trio.lowlevel.checkpoint()
        if not self._is_terminal:
            await self._end_input()

    async def _end_input(self) -> None:
        if self._input_ended:
            return
        self._input_ended = True
        if self._is_terminal:
            # It has no end; but what waits in it must not keep the other side from seeing its own.
            if self._status is None:
                with suppress(ExecError, KeeperLost):
                    await self._keeper.drain(self._pid)
        else:
            async with self._sending:  # a send that closing has cancelled may not be out yet
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._exec.send_eof()

    def statistics(self) -> dict[Channel, int]:
        """Return how many bytes of each channel wait for a reader."""
        return {channel: len(output.data) for channel, output in self._outputs.items()}

    # ---------------------------------------------------------------- tasks

    async def run(self) -> None:
        """Serve the connection until the process has ended or this is closed; then close it."""
        try:
            with self._tasks:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._obey)
                    await self._pump()
                    nursery.cancel_scope.cancel()
        finally:
            # Without this task nobody would see the end: it is killed next.
            self._end(ExitStatus(signal="KILL"))
            self._served.set()
            await self._exec.aclose()

    async def _pump(self) -> None:
        try:
            await self._receive_all()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if not self._closing:  # it may also end like this when the process is killed
                _log.debug("process_connection_lost", pid=self._pid, error=str(error))
        self._output_ended = True
        for output in self._outputs.values():
            output.arrived.unpark_all()
        if self._send_scope is not None:
            self._send_scope.cancel()
        await self._look_until_ended()

    async def _receive_all(self) -> None:
        while True:
            await self._wait_for_room()
            pieces = await self._exec.receive()
            if not pieces:
                return
            for channel, piece in pieces:
                self._take(channel, piece)

    async def _wait_for_room(self) -> None:
        pause = _FIRST_LOOK
        while self._is_full():
            with trio.move_on_after(pause):
                await self._room.wait()
                continue
            pause = min(2 * pause, _LONGEST_LOOK)
            if self._status is None:
                await self._look()
            if self._status is None and not self._deserted:
                self._deserted = await self._is_deserted()

    def _is_full(self) -> bool:
        limit = BUFFER_BYTES + (REST_BYTES if self._deserted else 0)
        return any(len(output.data) >= limit for output in self._outputs.values())

    async def _is_deserted(self) -> bool:
        """Tell whether nobody lives in the process's session any more."""
        try:
            return await self._keeper.sweep(0, self._pid) == 0
        except (ExecError, KeeperLost):
            return False  # the next look may tell

    async def _look(self) -> None:
        """Ask whether the process has ended."""
        try:
            code = await self._exec.exit_code()
        except ExecError as error:
            if not error.is_missing and error.status is not None:
                _log.warning("process_state_unknown", pid=self._pid, error=str(error))
                return
            # The sandbox is gone, or nobody can tell any more: killed is what it comes to.
            self._end(ExitStatus(signal="KILL"))
        else:
            if code is not None:
                self._end(exit_status(code))

    async def _look_until_ended(self) -> None:
        pause = _FIRST_LOOK / 10
        while self._status is None:
            await self._look()
            if self._status is None:
                await trio.sleep(pause)
                pause = min(2 * pause, _LONGEST_LOOK)

    def _end(self, status: ExitStatus) -> None:
        if self._status is None:
            self._status = status
            self._ended.set()
            if self._send_scope is not None:
                self._send_scope.cancel()

    async def _obey(self) -> None:
        """Pass sizes and signals on, one after another."""
        while True:
            await self._orders.wait()
            try:
                if (size := self._resizing.wanted) is not None:
                    try:
                        await self._exec.resize(size)
                    finally:
                        self._resizing.done(size)
                while self._signals:
                    await self._keeper.signal(self._signals.popleft(), self._pid)
            except (ExecError, KeeperLost) as error:
                # Most likely the process has just ended.
                _log.debug("process_order_failed", pid=self._pid, error=str(error))

    # ---------------------------------------------------------------- control

    async def wait(self) -> ExitStatus:
        """As `Endpoint.wait`."""
        await self._ended.wait()
        if self._status is None:
            raise AssertionError("the end came without a status")
        return self._status

    def resize(self, size: TerminalSize) -> None:
        """As `Endpoint.resize`: soon; of several sizes the last one counts."""
        if self._is_terminal and not self._closing and self._status is None:
            self._resizing.wanted = size
            self._orders.set()

    def send_signal(self, name: str) -> None:
        """As `Endpoint.send_signal`: soon; more than 64 that wait push the oldest out."""
        number = signal_number(name)
        if not self._closing and self._status is None:
            self._signals.append(number)
            self._orders.set()

    def break_off(self) -> None:
        """Kill the process and let its output end here and now; what has not been read is lost."""
        if self._closing or self._status is not None:
            return
        self._output_ended = True
        for output in self._outputs.values():
            output.data.clear()
            output.arrived.unpark_all()
        self._room.set()
        self._end(ExitStatus(signal="KILL"))
        self._signals.append(signal.SIGKILL)
        self._orders.set()

    async def aclose(self) -> None:
        """As `Endpoint.aclose`; see the top of this file."""
        if self._closing:
            await self._join_closing()
            return
        self._closing = True
        if self._send_scope is not None:
            self._send_scope.cancel()
        for output in self._outputs.values():
            output.data.clear()
            output.arrived.unpark_all()
        self._room.set()
        try:
            await trio.lowlevel.checkpoint()
            with self._patience:
                await self._ask_to_end()
        finally:
            with trio.move_on_after(FORCE_SECONDS, shield=True) as scope:
                await self._force_to_end()
            if scope.cancelled_caught:
                _log.warning("process_survived", pid=self._pid)
            self._tasks.cancel()
            with trio.move_on_after(FORCE_SECONDS, shield=True):
                await self._served.wait()
            self._end(ExitStatus(signal="KILL"))
            self._closed.set()
            self._on_closed(self)

    async def _ask_to_end(self) -> None:
        await self._end_input()
        polite = signal.SIGHUP if self._is_terminal else signal.SIGTERM
        pause = _FIRST_LOOK / 10
        with trio.move_on_after(self._grace), suppress(ExecError, KeeperLost):
            left = await self._keeper.sweep(polite, self._pid)
            while left:
                await trio.sleep(pause)
                pause = min(2 * pause, _FIRST_LOOK)
                left = await self._keeper.sweep(0, self._pid)

    async def _force_to_end(self) -> None:
        with suppress(ExecError, KeeperLost):
            await self._end_input()
            while await self._keeper.sweep(signal.SIGKILL, self._pid):  # noqa: ASYNC110 - nobody tells us
                await trio.sleep(_FIRST_LOOK / 10)
            await self._ended.wait()

    async def _join_closing(self) -> None:
        """Wait for the task that closes; when cancelled, make it hurry."""
        try:
            await self._closed.wait()
        finally:
            self._patience.cancel()
            with trio.move_on_after(FORCE_SECONDS, shield=True):
                await self._closed.wait()
