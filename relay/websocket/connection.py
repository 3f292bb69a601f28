"""A WebSocket on a Trio stream, after the opening handshake.

Theory of operation
===================

There is no task behind a `WebSocket`: it reads when `receive` is called and writes when a send is.
Whoever wants pings answered and the close frame seen must therefore keep receiving, and push back
by other means (windows) than by not reading.

**Sending.**  One frame is written by one call under a lock, so frames never interleave.  A send that
is cancelled half-way leaves a torn frame behind; nothing can be sent after that.

**Pongs.**  Reading never waits for writing, so a pong may have to wait while a sender is stuck on a
peer that does not read.  Only the newest ping needs an answer (RFC 6455 §5.5.3), so what waits is one
frame of at most 131 bytes, however many pings arrive.  It goes out with whatever comes first:

1. at once, if nobody is sending and the kernel takes it (plain sockets can tell);
2. in front of the next frame that anybody sends;
3. from `receive`, which, while a pong waits, waits for "readable" and "writable" together.  Only the
   *waiting* to write is cancelled when data arrives, never the writing.

If the kernel takes part of a pong, the rest (`_unsent`) goes in front of everything else.

**Closing** is the handshake of §7: send a close frame, wait for the peer's, then end the TCP
connection, the server first (§7.1.1), all under one deadline.  If another task is receiving, it is
that task which sees the peer's close frame.  A connection that is failed (§7.1.7) gets a close frame
with the code and is then drained for a moment, because closing a socket with unread bytes resets the
connection and may take the close frame along.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from relay.carrier import Buffer
from relay.transport import JOIN_BELOW, SocketTransport, open_transport
from relay.websocket.frames import (
    Binary,
    Close,
    CloseCode,
    FrameError,
    More,
    Opcode,
    Ping,
    Pong,
    Role,
    Text,
    encode_close_payload,
    encode_frame,
    encode_header,
)
from relay.websocket.reader import FrameReader
from relay.websocket.unmasking import apply_mask

LINGER = 1.0
"""Seconds for which a failed connection is drained so that the peer can read why."""

EVENTS_PER_TURN = 64
"""Events handed on before other tasks get a turn."""


@dataclass(frozen=True, slots=True)
class WebSocketStatistics:
    """Counters of one WebSocket; payload bytes, framing excluded."""

    bytes_sent: int
    bytes_received: int
    bytes_buffered: int
    """Received and not yet handed on; at most one read (256 KiB)."""
    pings_received: int
    pongs_received: int
    pongs_sent: int


@dataclass(frozen=True, slots=True)
class Loan:
    """What it takes to read and write frames without the `WebSocket`."""

    socket: trio.socket.SocketType
    reader: FrameReader


class WebSocket(trio.abc.AsyncResource):
    """One end of an open WebSocket.

    One task may receive while any number send.

    Args:
      stream: The stream below, which this takes over.
      role: Which end this is.
      initial: Bytes that arrived together with the end of the opening handshake.
      subprotocol: What the opening handshake agreed on.
      peer: Who is at the other end, for logs.
      max_text_bytes: The longest text message accepted.
      close_timeout: Seconds the closing handshake may take.
      entropy: Where masking keys come from; they must be unpredictable (§10.3).
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        initial: Buffer = b"",
        subprotocol: str | None = None,
        peer: str = "",
        max_text_bytes: int = 1 << 20,
        close_timeout: float = 5.0,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._transport = open_transport(stream)
        self._role = role
        self._reader = FrameReader(role, max_text_bytes=max_text_bytes)
        if initial:
            self._reader.feed(initial)
        self._subprotocol = subprotocol
        self._peer = peer
        self._close_timeout = close_timeout
        self._entropy = entropy
        self._sending = trio.Lock()
        self._torn = False  # Part of a frame is out, and the rest never will be.
        self._unsent: Buffer = b""  # The rest of a pong of which the kernel took a part.
        self._pong: bytes | None = None  # The payload of the pong that waits.
        self._receiving = False
        self._close_sent = False
        self._peer_close: Close | None = None
        self._left: trio.Event | None = None  # Set when the receiving task leaves `receive`.
        self._turns = 0
        self._ended = False  # The stream below is closed.
        self._bytes_sent = 0
        self._pings_received = self._pongs_received = self._pongs_sent = 0

    @property
    def subprotocol(self) -> str | None:
        """What the opening handshake agreed on, if anything."""
        return self._subprotocol

    @property
    def peer(self) -> str:
        """Who is at the other end, for logs."""
        return self._peer

    @property
    def peer_close(self) -> Close | None:
        """The close frame of the peer, once it was received."""
        return self._peer_close

    def statistics(self) -> WebSocketStatistics:
        """Return a snapshot of the counters."""
        return WebSocketStatistics(
            bytes_sent=self._bytes_sent,
            bytes_received=self._reader.payload_bytes,
            bytes_buffered=self._reader.bytes_buffered,
            pings_received=self._pings_received,
            pongs_received=self._pongs_received,
            pongs_sent=self._pongs_sent,
        )

    # Lending

    def lend(self) -> Loan | None:
        """Let somebody else read and write frames until `take_back`; None if that cannot be.

        It can be on a plain socket, where nobody is receiving or sending.
        """
        busy = (
            self._receiving or self._sending.locked() or self._torn or self._ended or self._owes()
        )
        if busy or not isinstance(self._transport, SocketTransport):
            return None
        return Loan(self._transport.socket, self._reader)

    def take_back(self, unsent: Buffer, bytes_sent: int, close: Close | None) -> None:
        """Go on after a loan.

        Args:
          unsent: The rest of a frame of which the kernel took a part; it goes before any other.
          bytes_sent: The payload that was sent meanwhile.
          close: The peer's close frame, if it came; `close` answers it.
        """
        self._unsent = unsent
        self._bytes_sent += bytes_sent
        self._peer_close = close

    # Receiving

    async def receive(self, *, merge: bool = False) -> Text | Binary | None:
        """Wait for the next text message or piece of a binary message.

        Returns None once the peer has closed the WebSocket properly.  Pings are answered on the way.
        With `merge`, binary messages are treated as one byte stream: small neighbours come joined.

        Raises:
          trio.BrokenResourceError: the connection broke, or the peer broke the protocol (it was told
            so; the cause is a `FrameError`).
          trio.ClosedResourceError: this side closed the WebSocket.
          trio.BusyResourceError: another task is receiving.

        Cancellation: safe; nothing is lost.
        """
        if self._receiving:
            if self._close_sent:
                raise trio.ClosedResourceError("this side closed the WebSocket")
            raise trio.BusyResourceError("another task is receiving on this WebSocket")
        if self._ended:
            raise trio.ClosedResourceError("this side closed the WebSocket")
        self._receiving = True
        try:
            return await self._receive(merge)
        finally:
            self._receiving = False
            if self._left is not None:
                self._left.set()

    async def _receive(self, merge: bool) -> Text | Binary | None:
        while self._peer_close is None:
            if self._ended:
                raise trio.ClosedResourceError("this side closed the WebSocket")
            self._turns += 1
            if self._turns % EVENTS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            try:
                event = self._reader.next_event(merge=merge)
            except FrameError as error:
                await self.fail(error)
                raise trio.BrokenResourceError(f"protocol error of the peer: {error}") from error
            match event:
                case Binary() | Text():
                    return event
                case None:
                    await self._read()
                case More():
                    await trio.lowlevel.checkpoint()
                case Ping(payload):
                    self._pings_received += 1
                    self._pong = payload
                    self._send_pong_nowait()
                case Pong():
                    self._pongs_received += 1
                case Close():
                    self._peer_close = event
                    await self._answer_close(event)
        return None

    async def _read(self) -> None:
        """Read more bytes, answering a ping meanwhile if one waits."""
        if not self._owes():
            await self._read_once()
            return
        broken: Exception | None = None
        waiting = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_pong, waiting)
            try:
                await self._read_once()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                broken = error  # Raised outside, where no exception group forms around it.
            waiting.cancel()
        if broken is not None:
            raise broken

    async def _read_once(self) -> None:
        data = await self._transport.receive()
        if not data:
            raise trio.BrokenResourceError("the peer ended the connection without a close frame")
        self._reader.feed(data)

    # Sending

    async def send_binary(self, data: Buffer | Sequence[Buffer]) -> None:
        """Send one binary message: `data`, or the concatenation of its parts, as one frame.

        Raises:
          trio.BrokenResourceError: the connection broke, the peer closed the WebSocket, or an earlier
            send was cancelled half-way.
          trio.ClosedResourceError: this side closed the WebSocket.

        Cancellation: the WebSocket can send nothing more, because part of a frame may be out.
        """
        buffers = (data,) if isinstance(data, bytes | bytearray | memoryview) else data
        self._bytes_sent += await self._send(Opcode.BINARY, buffers)

    async def send_text(self, text: str) -> None:
        """Send one text message.  Raises and cancellation: as `send_binary`."""
        self._bytes_sent += await self._send(Opcode.TEXT, (text.encode(),))

    async def ping(self, payload: bytes = b"") -> None:
        """Send a ping of at most 125 bytes; the pong only counts in the statistics.

        Raises and cancellation: as `send_binary`; ValueError if it is too long.
        """
        if len(payload) > 125:
            raise ValueError("a ping carries at most 125 bytes")
        await self._send(Opcode.PING, (payload,))

    async def _send(self, opcode: Opcode, buffers: Sequence[Buffer]) -> int:
        await self._acquire()
        try:
            if self._ended or (self._close_sent and self._peer_close is None):
                raise trio.ClosedResourceError("this side closed the WebSocket")
            if self._peer_close is not None:
                raise trio.BrokenResourceError("the peer closed the WebSocket")
            length = sum(map(len, buffers))
            await self._write([*self._overdue(), *self._frame(opcode, buffers, length)])
        finally:
            self._sending.release()
        return length

    async def _acquire(self) -> None:
        """Take the sending lock; without a pass through the scheduler where nobody holds it."""
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()

    async def _write(self, buffers: Sequence[Buffer]) -> None:
        """Write whole frames; the caller holds the lock."""
        if self._ended:
            raise trio.ClosedResourceError("this side closed the WebSocket")
        if self._torn:
            raise trio.BrokenResourceError("an earlier send was interrupted inside a frame")
        self._torn = True
        await self._transport.send(buffers)
        self._torn = False

    def _frame(self, opcode: Opcode, buffers: Sequence[Buffer], length: int) -> list[Buffer]:
        if self._role is Role.SERVER:
            return [encode_header(opcode, length, mask=None), *buffers]
        mask = self._entropy(4)
        payload = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        header = encode_header(opcode, length, mask=mask)
        masked: bytes = apply_mask(payload, mask)
        return [header + masked] if length <= JOIN_BELOW else [header, masked]

    # Pongs

    def _owes(self) -> bool:
        """Tell whether a pong, or the rest of one, waits and can still be sent."""
        waits = self._pong is not None or bool(self._unsent)
        return waits and not self._torn and not self._close_sent

    def _overdue(self) -> list[Buffer]:
        """Take what must go out before any other frame; the caller sends it, holding the lock."""
        overdue = [self._unsent] if self._unsent else []
        self._unsent = b""
        if self._pong is not None:
            overdue.append(self._pong_frame())
        return overdue

    def _pong_frame(self) -> bytes:
        payload, self._pong = self._pong or b"", None
        self._pongs_sent += 1
        mask = self._entropy(4) if self._role is Role.CLIENT else None
        return encode_frame(Opcode.PONG, payload, mask=mask)

    def _send_pong_nowait(self) -> None:
        """Send the pong if it can be done at once."""
        if not self._owes() or self._unsent or self._sending.locked():
            return
        # A transport that cannot tell takes nothing; the pong then waits whole.
        frame = self._pong_frame()
        try:
            self._unsent = memoryview(frame)[self._transport.send_nowait(frame) :]
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._torn = True  # What the peer had sent before can still be read.

    async def _send_pong(self, waiting: trio.CancelScope) -> None:
        """Send the overdue bytes once the stream takes them; `waiting` cancels only the wait."""
        with waiting:
            await self._acquire()
            try:
                await self._transport.wait_writable()
                with trio.CancelScope(shield=True) as scope:
                    scope.deadline = trio.current_time() + self._close_timeout
                    if self._owes():
                        await self._write(self._overdue())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._torn = True  # The task that reads finds out by itself, and says so.
            finally:
                self._sending.release()

    # Closing

    async def aclose(self) -> None:
        """Close normally; see `close`."""
        await self.close()

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close with the closing handshake, or abruptly where that takes too long; idempotent.

        Args:
          code: A close code that may be sent (§7.4).
          reason: Text for the peer, cut to 123 bytes of UTF-8.

        Where the peer has closed before and was not answered, it is answered with its own code.

        Never raises for a connection that is already broken.  A task that is receiving gets what
        still arrives, then None or ClosedResourceError.

        Raises:
          ValueError: `code` must not be sent.

        Cancellation: closes abruptly.
        """
        payload = encode_close_payload(code, reason)
        if self._peer_close is not None:
            payload = _echo(self._peer_close)
        try:
            if not self._ended:
                with trio.move_on_after(self._close_timeout):
                    await self._close_handshake(payload)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # There is nobody left to say good-bye to.
        finally:
            self._ended = True
            await self._transport.aclose()

    async def _close_handshake(self, payload: bytes) -> None:
        await self._send_close(payload)
        while self._peer_close is None:
            if self._receiving:
                self._left = trio.Event()
                await self._left.wait()
            else:
                await self.receive(merge=True)  # What the peer sent before it saw our close frame.
        if self._role is Role.CLIENT:
            await self._drain()

    async def _answer_close(self, close: Close) -> None:
        """Echo the peer's close frame, unless ours is already out (§5.5.1)."""
        try:
            with trio.move_on_after(self._close_timeout):
                await self._send_close(_echo(close))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The peer does not wait for the echo.

    async def _send_close(self, payload: bytes) -> None:
        await self._acquire()
        try:
            if not self._close_sent:
                self._close_sent = True
                frame = self._frame(Opcode.CLOSE, (payload,), len(payload))
                await self._write([*self._overdue(), *frame])
        finally:
            self._sending.release()

    async def fail(self, error: FrameError) -> None:
        """Fail the connection (§7.1.7): say why, drain for a moment, end it.

        Cancellation: ends it at once.
        """
        try:
            with trio.move_on_after(LINGER):
                await self._send_close(encode_close_payload(error.close_code, str(error)))
                await self._transport.send_eof()
                await self._drain()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The peer is gone already.
        finally:
            self._ended = True
            await self._transport.aclose()

    async def _drain(self) -> None:
        """Read and discard until the peer ends the connection."""
        while await self._transport.receive():
            pass


def _echo(close: Close) -> bytes:
    """Return the payload that answers the peer's close frame."""
    return b"" if close.code is None else encode_close_payload(close.code, "")
