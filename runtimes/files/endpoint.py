"""An endpoint around an operation on a file.

Theory of operation
-------------------
There is no task behind it.  Whoever receives content, sends some or ends the input drives the
operation one step further, in a worker thread; a lock keeps the steps apart.  What a step brings is
put away before anything else can happen, so a cancelled caller loses nothing.  A step that fails
frees what the operation holds before it returns, as does the last one.

The operation begins with the first call, whichever that is.  Input is gathered into large pieces.

HUP, INT, TERM, QUIT, ABRT and KILL break the operation off: what it has done so far is undone, but for
what a removal has removed and what has come of a named upload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, Endpoint, ExitStatus, TerminalSize
from relay.file_problems import FileProblem
from runtimes.files.errors import FileError
from runtimes.files.operations import PIECE_BYTES, Operation, Told
from runtimes.signals import signal_number

CLOSING = 5.0
"""Seconds that closing waits for the system to finish what it is doing."""

_ENDING_SIGNALS = frozenset({"HUP", "INT", "QUIT", "ABRT", "KILL", "TERM"})

_Result = TypeVar("_Result")


class FileEndpoint(Endpoint):
    """See the top of this file.

    `limiter` bounds the threads.  `on_freed` is called once, with this endpoint, when the operation
    holds nothing any more.
    """

    def __init__(
        self,
        operation: Operation,
        limiter: trio.CapacityLimiter,
        on_freed: Callable[[FileEndpoint], None],
    ) -> None:
        self._operation = operation
        self._limiter = limiter
        self._on_freed = on_freed
        self._lock = trio.Lock()
        self._changed = trio.lowlevel.ParkingLot()
        self._content = memoryview(b"")
        self._told = bytearray()
        self._input = bytearray()
        self._input_ended = False
        self._begun = False
        self._signal: str | None = None
        self._status: ExitStatus | None = None
        self._closed = False

    @property
    def pid(self) -> None:
        """None: there is no process."""
        return

    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        """As `Endpoint.receive`.

        Raises:
          ValueError: there is no such channel here, or `max_bytes` is less than 1.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        await trio.lowlevel.checkpoint()
        if channel is Channel.OUTPUT:
            return await self._receive_content(max_bytes)
        if channel is Channel.ERROR:
            return await self._receive_told(max_bytes)
        raise ValueError(f"this endpoint has no output channel {channel!r}")

    async def _receive_content(self, max_bytes: int) -> Buffer:
        while not self._content:
            self._refuse_when_closed()
            if self._status is not None:
                return b""
            if self._signal is not None:
                await self._break_off(self._signal)
            elif not self._begun:
                await self._begin()
            elif self._operation.takes_input:
                await self._changed.park()
            else:
                await self._go_on()
        piece, self._content = self._content[:max_bytes], self._content[max_bytes:]
        return piece

    async def _receive_told(self, max_bytes: int) -> Buffer:
        while not self._told:
            self._refuse_when_closed()
            if self._status is not None:
                return b""
            await self._changed.park()
        piece = bytes(self._told[:max_bytes])
        del self._told[:max_bytes]
        return piece

    async def send(self, data: Buffer) -> None:
        """As `Endpoint.send`."""
        await trio.lowlevel.checkpoint()
        self._refuse_when_closed()
        if self._input_ended:
            raise trio.ClosedResourceError("the input was ended before")
        if not self._begun:
            await self._begin()
        # Once it is to be broken off, a thread may be about to take the input.
        is_over = self._status is not None or self._signal is not None
        if is_over or not self._operation.takes_input:
            raise trio.BrokenResourceError("no more content is taken")
        self._input += data
        if len(self._input) >= PIECE_BYTES:
            async with self._lock:
                await self._step(self._take_input)

    async def send_eof(self) -> None:
        """As `Endpoint.send_eof`: what was sent becomes a file now, or an error."""
        await trio.lowlevel.checkpoint()
        if self._closed or self._input_ended:
            return
        self._input_ended = True
        if not self._operation.takes_input:
            return
        await self._begin()
        async with self._lock:
            if self._signal is not None:
                return
            told = await self._step(self._take_input_and_finish)
            if self._status is None:
                self._end(told, ExitStatus(code=0))

    async def wait(self) -> ExitStatus:
        """As `Endpoint.wait`."""
        await trio.lowlevel.checkpoint()
        while self._status is None:
            await self._changed.park()
        return self._status

    def resize(self, size: TerminalSize) -> None:
        """As `Endpoint.resize`: does nothing."""

    def send_signal(self, name: str) -> None:
        """As `Endpoint.send_signal`; signals that end a process break the operation off."""
        signal_number(name)
        if name in _ENDING_SIGNALS and self._signal is None and self._status is None:
            self._signal = name
            self._operation.interrupt()
            self._changed.unpark_all()

    async def interrupt(self) -> None:
        """Break the operation off and return when it holds nothing any more."""
        self.send_signal("HUP")
        await self._break_off("HUP")

    async def aclose(self) -> None:
        """As `Endpoint.aclose`."""
        self._closed = True
        self._signal = self._signal or "KILL"
        self._operation.interrupt()
        self._changed.unpark_all()
        deadline = trio.current_time() + CLOSING
        with trio.CancelScope(shield=True, deadline=deadline):
            await self._break_off("KILL")
        self._content = memoryview(b"")
        self._told.clear()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError

    # ---------------------------------------------------------------- steps

    async def _begin(self) -> None:
        async with self._lock:
            if not self._begun and self._status is None:
                told = await self._step(self._operation.begin)
                self._begun = True
                self._tell(told)
                self._changed.unpark_all()

    async def _go_on(self) -> None:
        async with self._lock:
            if self._status is not None:
                return
            content = await self._step(self._operation.produce)
            if content:
                self._content = memoryview(content)
            elif self._status is None:
                told = await self._step(self._finish)
                if self._status is None:
                    self._end(told, ExitStatus(code=0))

    async def _break_off(self, signal: str) -> None:
        async with self._lock:
            if self._status is None:
                await self._step(self._keep_input_and_abandon)
            if self._status is None:
                told = {
                    "error": FileProblem.INTERRUPTED.value,
                    "message": "the operation was broken off",
                }
                self._end(told, ExitStatus(signal=signal))

    async def _step(self, step: Callable[[], _Result]) -> _Result | None:
        """Do `step` in a thread; if it fails, the operation has ended.  The lock is held."""
        if self._status is not None:
            return None

        def guarded() -> _Result:
            try:
                return step()
            except BaseException:
                self._operation.abandon()
                raise

        try:
            return await trio.to_thread.run_sync(guarded, limiter=self._limiter)
        except FileError as error:
            told: dict[str, object] = {"error": error.problem.value, "message": error.message}
            if error.offset is not None:
                told["offset"] = error.offset
            self._end(told, ExitStatus(code=1))
            return None

    def _take_input(self) -> None:
        self._operation.consume(self._input)
        self._input.clear()

    def _take_input_and_finish(self) -> Told | None:
        if self._input:
            self._take_input()
        return self._finish()

    def _keep_input_and_abandon(self) -> None:
        if self._begun and self._input:
            self._take_input()
        self._operation.abandon()

    def _finish(self) -> Told | None:
        told = self._operation.finish()
        self._operation.abandon()
        return told

    def _tell(self, told: Told | None) -> None:
        if told is not None:
            self._told += msgspec.json.encode(told) + b"\n"

    def _end(self, told: Told | None, status: ExitStatus) -> None:
        self._tell(told)
        self._status = status
        self._input = bytearray()
        self._changed.unpark_all()
        self._on_freed(self)
