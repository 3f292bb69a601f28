"""From a WebSocket to a port: payloads without their framing, as a byte stream.

A read goes into a buffer that all connections share, behind what an earlier read left over of a header.
`FrameReader.read_stream` takes the masks off; the payload is written to the port from there.  What the
port does not take at once is copied and kept.  Reading goes on for a while even then, because a ping may
be behind, and stops when `HELD_MAX` bytes wait.  What is no binary frame comes as an event: text (whose
bytes count like any others), pings, the close.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from relay.carrier import Buffer
from relay.reactor.reactor import BUFFER_BYTES, SHORT_READ, Pump, Reactor
from relay.websocket.frames import Binary, Close, FrameError, More, Ping, Text
from relay.websocket.reader import FrameReader

if TYPE_CHECKING:
    from relay.reactor.bridge import Bridge

SLICE_BYTES = 512 * 1024
"""Bytes read, framing included, after which other pumps get their turn."""

EVENT_COST = 64 * 1024
"""What an event counts for at least, in bytes: it may be of 256 small frames, half a millisecond's work.
Payload alone would be no measure, since frames (pings) can come without any for as long as one likes."""

HELD_MAX = 256 * 1024
"""Bytes waiting for the port beyond which nothing more is read; one read may go over it."""


class Upstream(Pump):
    """The pump from the client to the port."""

    __slots__ = (
        "_bridge",
        "_has_events",
        "_pending",
        "_port_reads",
        "_reactor",
        "_reader",
        "_sink",
        "_source",
        "_work",
        "bytes_moved",
    )

    def __init__(
        self,
        bridge: Bridge,
        reactor: Reactor,
        reader: FrameReader,
        source: trio.socket.SocketType,
        sink: trio.socket.SocketType,
    ) -> None:
        super().__init__()
        self._bridge = bridge
        self._reactor = reactor
        self._reader = reader
        self._source = source
        self._sink = sink
        self._pending = bytearray()
        self._port_reads = True
        self._has_events = True  # What came with the end of the handshake.
        self._work = 0  # in this turn
        self.bytes_moved = 0

    @property
    def bytes_held(self) -> int:
        """Bytes that came from the client and were not taken by the port's socket."""
        return len(self._pending)

    @property
    def undelivered(self) -> Buffer:
        """What the port still has to get; empty if it reads no more."""
        return self._pending

    def pump(self) -> int:
        """See `Pump.pump`."""
        source, sink = self._source.fileno(), self._sink.fileno()
        if self._bridge.is_over or source < 0 or sink < 0:
            self.readable = False
            return 0
        if self._pending and not self.blocked:
            self._flush(sink)
        self._work = 0
        try:
            while self.writable and self._work < SLICE_BYTES:
                if not (self._handle_event(sink) if self._has_events else self._read(source, sink)):
                    break
        except FrameError as error:
            self._bridge.client_broke_protocol(error)
        return self._work

    def _read(self, source: int, sink: int) -> bool:
        """Read once and pass the payload on; False if the pump has to stop."""
        buffer = self._reactor.incoming
        reader = self._reader
        start = reader.bytes_buffered
        if start:
            buffer[:start] = reader.held
            place = [buffer[start : start + BUFFER_BYTES]]
        else:
            place = self._reactor.incoming_place
        try:
            size = os.readv(source, place)
        except BlockingIOError:
            self.readable = False
            return False
        except OSError as error:
            self._bridge.client_vanished(str(error))
            return False
        if not size:
            self._bridge.client_vanished("the connection ended without a close frame")
            return False
        self._work += size
        payload = reader.read_stream(buffer, start + size)
        self._has_events = reader.bytes_buffered > 0
        if payload:
            self._deliver(payload, sink)
        if size < SHORT_READ and not self.hung_up and not self._has_events:
            self.readable = False
            return False
        return True

    def _handle_event(self, sink: int) -> bool:
        """Handle what is no binary frame, or is behind one; False if the pump has to stop."""
        event = self._reader.next_event(merge=True)
        self._work += EVENT_COST
        if event is None:
            self._has_events = False
        elif isinstance(event, Binary):
            self._deliver(event.data, sink)
        elif isinstance(event, Text):
            self._deliver(event.text.encode(), sink)
        elif isinstance(event, Ping):
            self._bridge.answer_ping(event.payload)
        elif isinstance(event, Close):
            self._bridge.client_closed(event)
            return False
        elif isinstance(event, More):
            return False
        return True

    def _deliver(self, data: Buffer, sink: int) -> None:
        """Write to the port, and keep what it does not take now."""
        self.bytes_moved += len(data)
        if not self._port_reads:
            return
        if self._pending:
            self._pending += data
        else:
            gone = self._write(sink, data)
            if gone < len(data) and self._port_reads:
                self._pending += memoryview(data)[gone:]
                self._block()
        if len(self._pending) >= HELD_MAX:
            self.writable = False

    def _flush(self, sink: int) -> None:
        gone = self._write(sink, self._pending)
        del self._pending[:gone]
        if self._pending:
            self._block()
            self.writable = len(self._pending) < HELD_MAX

    def _write(self, sink: int, data: Buffer) -> int:
        try:
            return os.write(sink, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            # Discard what the client sends from now on: the port's output goes on, or will tell.
            if not isinstance(error, BrokenPipeError):
                self._bridge.port_failed(error)
            self._port_reads = False
            self._pending.clear()
            return 0

    def _block(self) -> None:
        self.blocked = True
        self._bridge.port_blocks()

    def fail(self, error: Exception) -> None:
        """See `Pump.fail`."""
        self.readable = False
        self._bridge.failed(error)
