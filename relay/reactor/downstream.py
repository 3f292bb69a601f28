"""From a port to a WebSocket: what is read becomes the payload of a binary message.

Theory of operation
===================

A read goes behind the place for a header in a buffer that all connections share; the header is put in
front of what came, and one write sends both.  Only what the WebSocket's socket does not take at once is
copied and kept (`_pending`), and nothing more is read before that is gone.  So a connection that is
idle holds no buffer, and one whose client does not read holds one read.

Where the reads come back full time after time, the bytes need not come into this process at all: the
kernel moves them to a pipe and from there to the other socket (``splice(2)``); only the header is
written.  The pipe is given back when the flow gets thin.

Pongs go between frames: in front of the next one, or at once where nothing is pending.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

import trio

from relay.carrier import Buffer
from relay.reactor.pipes import PIPE_BYTES, Pipe
from relay.reactor.reactor import BUFFER_BYTES, HEADROOM, SHORT_READ, Pump, Reactor
from relay.websocket.frames import Opcode, encode_frame, encode_header

if TYPE_CHECKING:
    from relay.reactor.bridge import Bridge

SLICE_BYTES = 512 * 1024
"""Bytes after which other pumps get their turn."""

SPLICE_AFTER = 3
"""Full reads in a row after which the kernel moves the bytes."""

SPLICE_WORTH = 32 * 1024
"""Where less than this comes at a time, copying is cheaper."""

_SHORT = struct.Struct("!BB").pack_into
_MEDIUM = struct.Struct("!BBH").pack_into
_LONG = struct.Struct("!BBQ").pack_into
_BINARY = 0x80 | Opcode.BINARY


class Downstream(Pump):
    """The pump from the port to the client."""

    __slots__ = (
        "_bridge",
        "_broken",
        "_full_reads",
        "_in_pipe",
        "_pending",
        "_pipe",
        "_pong",
        "_reactor",
        "_sink",
        "_source",
        "bytes_moved",
    )

    def __init__(
        self,
        bridge: Bridge,
        reactor: Reactor,
        source: trio.socket.SocketType,
        sink: trio.socket.SocketType,
    ) -> None:
        super().__init__()
        self._bridge = bridge
        self._reactor = reactor
        self._source = source
        self._sink = sink
        self._pending: memoryview | None = None
        self._pong: bytes | None = None
        self._pipe: Pipe | None = None
        self._in_pipe = 0
        self._full_reads = 0
        self._broken = False  # The client takes nothing any more.
        self.bytes_moved = 0

    @property
    def bytes_held(self) -> int:
        """Bytes that were read and not taken by the client's socket."""
        return (len(self._pending) if self._pending is not None else 0) + self._in_pipe

    def answer_ping(self, payload: bytes) -> None:
        """Send a pong soon; only the newest ping counts (RFC 6455 §5.5.3)."""
        self._pong = payload
        self._reactor.schedule(self)

    def pump(self) -> int:
        """See `Pump.pump`."""
        source, sink = self._source.fileno(), self._sink.fileno()
        if self._bridge.is_over or self._broken or source < 0 or sink < 0:
            self.readable = False
            return 0
        if self.sink_broke:
            self._lose_sink()
            return 0
        try:
            if not self._flush(sink):
                self._block()
                return 0
            if self._pipe is not None:
                return self._splice(source, sink, self._pipe)
            return self._copy(source, sink)
        except OSError:
            self._lose_sink()
            return 0

    def _lose_sink(self) -> None:
        """Write no more.  Whether the client left properly is known to who reads what it sent."""
        self._broken = True
        self.readable = False
        self._bridge.client_takes_nothing()

    def _copy(self, source: int, sink: int) -> int:
        """Read and write through the shared buffer."""
        buffer = self._reactor.outgoing
        place = self._reactor.outgoing_place
        moved = 0
        while moved < SLICE_BYTES:
            try:
                size = os.readv(source, place)
            except BlockingIOError:
                self.readable = False
                break
            except OSError as error:
                self._bridge.port_broke(error)
                break
            if not size:
                self._bridge.port_ended()
                break
            if size < 126:
                start = HEADROOM - 2
                _SHORT(buffer, start, _BINARY, size)
            elif size < 0x10000:
                start = HEADROOM - 4
                _MEDIUM(buffer, start, _BINARY, 126, size)
            else:
                start = HEADROOM - 10
                _LONG(buffer, start, _BINARY, 127, size)
            moved += size
            end = HEADROOM + size
            try:
                gone = os.write(sink, buffer[start:end])
            except BlockingIOError:
                gone = 0
            if start + gone < end:
                self._pending = memoryview(bytes(buffer[start + gone : end]))
                self._block()
                break
            if size == BUFFER_BYTES:
                self._full_reads += 1
                if self._full_reads >= SPLICE_AFTER:
                    self._pipe = self._reactor.pipes.take()
                    break
            else:
                self._full_reads = 0
                if size < SHORT_READ and not self.hung_up:
                    self.readable = False
                    break
        self.bytes_moved += moved
        return moved

    def _splice(self, source: int, sink: int, pipe: Pipe) -> int:
        """Have the kernel move the bytes; only headers are written from here."""
        moved = 0
        while moved < SLICE_BYTES:
            try:
                size = os.splice(source, pipe.writing, PIPE_BYTES, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                self.readable = False
                if moved < SPLICE_WORTH:
                    self._return_pipe()
                break
            except OSError as error:
                self._bridge.port_broke(error)
                break
            if not size:
                self._bridge.port_ended()
                break
            moved += size
            self._in_pipe = size
            self._pending = memoryview(encode_header(Opcode.BINARY, size, mask=None))
            if not self._flush(sink):
                self._block()
                break
            if size < SPLICE_WORTH:
                self._return_pipe()
                break
        self.bytes_moved += moved
        return moved

    def _flush(self, sink: int) -> bool:
        """Write what waits; False if not all of it could be."""
        if self._pending is not None:
            try:
                if self._in_pipe:
                    gone = _send_with_more(self._sink, sink, self._pending)
                else:
                    gone = os.write(sink, self._pending)
            except BlockingIOError:
                return False
            if gone < len(self._pending):
                self._pending = self._pending[gone:]
                return False
            self._pending = None
        while self._in_pipe and self._pipe is not None:
            try:
                gone = os.splice(
                    self._pipe.reading, sink, self._in_pipe, flags=os.SPLICE_F_NONBLOCK
                )
            except BlockingIOError:
                return False
            self._in_pipe -= gone
        if self._pong is not None:
            frame, self._pong = encode_frame(Opcode.PONG, self._pong, mask=None), None
            self._pending = memoryview(frame)
            return self._flush(sink)
        return True

    def _block(self) -> None:
        self.blocked = True
        self.writable = False

    def _return_pipe(self) -> None:
        if self._pipe is not None:
            self._reactor.pipes.give_back(self._pipe, is_empty=not self._in_pipe)
            self._pipe = None
            self._full_reads = 0

    def take_unsent(self) -> Buffer:
        """Return what must still go out before any other frame; the pump is done with."""
        unsent: Buffer = self._pending if self._pending is not None else b""
        if self._in_pipe and self._pipe is not None:
            pieces = [bytes(unsent)]
            while self._in_pipe:
                pieces.append(os.read(self._pipe.reading, self._in_pipe))
                self._in_pipe -= len(pieces[-1])
            unsent = b"".join(pieces)
        self._pending = None
        self._return_pipe()
        return unsent

    def fail(self, error: Exception) -> None:
        """See `Pump.fail`."""
        self.readable = False
        self._bridge.failed(error)


def _send_with_more(owner: trio.socket.SocketType, descriptor: int, data: memoryview) -> int:
    """Send a header such that it shares a segment with what follows it."""
    raw = socket.socket(owner.family, owner.type, owner.proto, descriptor)
    try:
        return raw.send(data, socket.MSG_MORE)
    finally:
        raw.detach()
