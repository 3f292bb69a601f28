"""An endpoint around a little program.

Theory of operation
-------------------
There is no task behind a program.  Whoever calls (receives, sends, signals) changes a buffer and
then lets the program `advance`, which does all it can and stops at an empty input or a full
output.  Callers that wait sleep on one event that each change replaces.  So everything happens in
the caller's own turn, in an order that only the callers decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from relay.carrier import Buffer
from relay.endpoint import (
    OUTPUT_CHANNELS,
    Channel,
    Endpoint,
    ExitStatus,
    Kind,
    TerminalSize,
)
from runtimes.fake.programs import Program
from runtimes.fake.streams import BUFFER_BYTES, LineDiscipline, Streams
from runtimes.signals import signal_number


class FakeEndpoint(Endpoint):
    """A running little program.  `grace` is in seconds, as in the real runtimes."""

    def __init__(
        self,
        kind: Kind,
        program: Program,
        streams: Streams,
        pid: int | None,
        grace: float,
        on_closed: Callable[[FakeEndpoint], None],
    ) -> None:
        self._kind = kind
        self._program = program
        self._streams = streams
        self._pid = pid
        self._grace = grace
        self._on_closed = on_closed
        self._discipline = LineDiscipline() if kind is Kind.PTY else None
        self._typed = bytearray() if kind is Kind.PTY else streams.input
        self._eof_sent = False
        self._status: ExitStatus | None = None
        self._closing = False
        self._closed = trio.Event()
        self._changed = trio.Event()

    @property
    def pid(self) -> int | None:
        """A number that counts up; None for a connection."""
        return self._pid

    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        """As `Endpoint.receive`.

        Raises:
          ValueError: there is no such channel here, or `max_bytes` is less than 1.
        """
        if channel not in OUTPUT_CHANNELS[self._kind]:
            raise ValueError(f"this endpoint has no output channel {channel!r}")
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        await trio.lowlevel.checkpoint()
        buffer = self._streams.outputs[channel]
        while True:
            self._refuse_when_closed()
            self.advance()
            if buffer:
                data = bytes(buffer[:max_bytes])
                del buffer[:max_bytes]
                self.advance()
                return data
            if self._status is not None:
                return b""
            await self._wait_for_change()

    async def send(self, data: Buffer) -> None:
        """As `Endpoint.send`."""
        await trio.lowlevel.checkpoint()
        with memoryview(data).cast("B") as view:
            written = 0
            while True:
                self._refuse_when_closed()
                if self._eof_sent:
                    raise trio.ClosedResourceError
                self.advance()
                if written == len(view):
                    return
                if self._status is not None or self._streams.input_closed:
                    raise trio.BrokenResourceError("the program reads no more")
                count = min(BUFFER_BYTES - len(self._typed), len(view) - written)
                if count:
                    self._typed += view[written : written + count]
                    written += count
                    self.advance()
                else:
                    await self._wait_for_change()

    async def send_eof(self) -> None:
        """As `Endpoint.send_eof`.  Idempotent."""
        await trio.lowlevel.checkpoint()
        if self._kind is not Kind.PTY and not self._closing:
            self._eof_sent = True
            self._streams.input_ended = True
            self.advance()

    async def wait(self) -> ExitStatus:
        """As `Endpoint.wait`."""
        await trio.lowlevel.checkpoint()
        while True:
            self.advance()
            if self._status is not None:
                return self._status
            await self._wait_for_change()

    def resize(self, size: TerminalSize) -> None:
        """As `Endpoint.resize`."""
        if self._kind is Kind.PTY and self._status is None:
            self._streams.size = size
            self._signal("WINCH")

    def send_signal(self, name: str) -> None:
        """As `Endpoint.send_signal`."""
        signal_number(name)
        if not self._closing:
            self._signal(name)

    async def aclose(self) -> None:
        """As `Endpoint.aclose`."""
        first = not self._closing
        self._closing = True
        self._announce()
        try:
            await trio.lowlevel.checkpoint()
            if first:
                self._signal("HUP" if self._kind is Kind.PTY else "TERM")
                with trio.move_on_after(self._grace):
                    while self._status is None:
                        await self._wait_for_change()
                        self.advance()
            else:
                await self._closed.wait()
        finally:
            self._signal("KILL")
            self._free()

    def _free(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            self._typed.clear()
            self._streams.input.clear()
            for buffer in self._streams.outputs.values():
                buffer.clear()
            self._on_closed(self)

    def _refuse_when_closed(self) -> None:
        if self._closing:
            raise trio.ClosedResourceError

    def _signal(self, name: str) -> None:
        if self._status is None:
            if name == "KILL":
                self._status = ExitStatus(signal="KILL")
            else:
                self._status = self._program.signal(name)
            self._announce()
            self.advance()

    def advance(self) -> None:
        """Let the program do what it can; tell who waits if that was something."""
        streams = self._streams
        while self._status is None:
            before = self._levels()
            if self._discipline is not None:
                signal = self._discipline.feed(self._typed, streams)
                if signal is not None:
                    self._status = self._program.signal(signal)
            if self._status is None:
                self._status = self._program.advance(trio.current_time())
            if self._levels() == before:
                return
            self._announce()

    def _levels(self) -> tuple[object, ...]:
        streams = self._streams
        return (
            len(self._typed),
            len(streams.input),
            *map(len, streams.outputs.values()),
            streams.input_closed,
            self._status,
        )

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _wait_for_change(self) -> None:
        wake_at = self._program.wake_at
        with trio.move_on_at(math.inf if wake_at is None else wake_at):
            await self._changed.wait()
