"""An HTTP/1.1 server connection: h11 for the protocol, a transport for the bytes.

It reads only when it is asked to, so a request body that nobody takes stays in the client's network
buffers.  What was read past the current request (pipelined requests, the first frames after an
upgrade) stays in h11 and is never lost; no more than one read of it is ever held.
"""

from __future__ import annotations

from email.utils import formatdate

import h11
import trio

from proxy.heads import BadRequest, Fields, Head, explain_garbage, read_head
from proxy.problem import CONTENT_TYPE, phrase, problem
from relay.transport import open_transport

READ_SIZE = 64 * 1024
"""Bytes of a request body read at once."""

LINGER = 1.0
"""Seconds for which a closing connection is drained.

Closing a socket with unread bytes resets the connection, and the reset may overtake the answer.
"""


class PeerGone(OSError):
    """The client has left, or broke off, in the middle of a request.

    An OSError, because that is what ASGI says a send to such a client raises.
    """


class Wire:
    """One client's connection, a request at a time."""

    def __init__(self, stream: trio.abc.Stream, *, max_head_bytes: int) -> None:
        self._transport = open_transport(stream)
        self._max_head_bytes = max_head_bytes
        self._conn = h11.Connection(h11.SERVER, max_incomplete_event_size=max_head_bytes)
        self._head: Head | None = None
        self._ended = False
        self._continue_owed = False

    # Heads

    async def read_head(self, deadline: float, *, head_timeout: float | None = None) -> Head | None:
        """Wait for the head of the next request; None if the client left or stayed silent.

        Args:
          deadline: When to give up waiting, by Trio's clock.
          head_timeout: Where given, seconds from the head's first byte to its end; they replace
            `deadline` once that byte is there.

        Raises:
          BadRequest: what came is not a proper head, or came too slowly.
          trio.BrokenResourceError: the connection broke.

        Cancellation: safe.
        """
        raw = bytearray(self._conn.trailing_data[0])
        started = False
        request: h11.Request | None = None
        with trio.CancelScope(deadline=deadline) as scope:
            while (request := self._next_request(raw)) is None:
                if self._ended:
                    return None
                if raw and not started and head_timeout is not None:
                    scope.deadline = trio.current_time() + head_timeout
                started = bool(raw)
                raw += await self._receive(self._max_head_bytes + 1 - len(raw))
        if request is None:
            if raw:
                raise BadRequest(408, "The request head did not come in time.")
            return None
        head_bytes = bytes(raw[: len(raw) - len(self._conn.trailing_data[0])])
        if len(head_bytes) > self._max_head_bytes:
            raise BadRequest(431, "The request head is too large.")
        self._head = read_head(head_bytes, request)
        self._continue_owed = self._head.expects_continue
        return self._head

    def _next_request(self, raw: bytearray) -> h11.Request | None:
        try:
            event = self._conn.next_event()
        except h11.RemoteProtocolError as error:
            raise explain_garbage(bytes(raw), error) from error
        return event if isinstance(event, h11.Request) else None

    async def _receive(self, max_bytes: int) -> bytes | bytearray:
        data = await self._transport.receive(max_bytes)
        self._conn.receive_data(bytes(data))
        self._ended = not data
        return data

    # Bodies

    async def read_body(self) -> bytes | None:
        """Wait for the next piece of the request's body; None at its end.

        Tells a client that waits for it to go on (100 Continue).

        Raises:
          BadRequest: the body's framing is broken.
          PeerGone: the client left before the end.

        Cancellation: safe.
        """
        try:
            while True:
                event = self._conn.next_event()
                if isinstance(event, h11.Data):
                    return bytes(event.data)
                if isinstance(event, h11.EndOfMessage):
                    return None
                if event is not h11.NEED_DATA:
                    return None  # The end was read before.
                if self._continue_owed:
                    self._continue_owed = False
                    await self.send(h11.InformationalResponse(status_code=100, headers=[]))
                await self._receive(READ_SIZE)
        except h11.RemoteProtocolError as error:
            if self._ended:
                raise PeerGone("the client left in the middle of the body") from None
            raise BadRequest(400, f"The request body is malformed: {error}.") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerGone("the connection broke") from error

    async def wait_gone(self) -> None:
        """Return once the client has left; the body must have been read.

        Reads ahead for that, but never more than one read: a client that pipelines is not watched.
        """
        try:
            while not self._ended and not self._conn.trailing_data[0]:
                await self._receive(READ_SIZE)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        if not self._ended:
            await trio.sleep_forever()

    async def next_cycle(self, *, max_bytes: int, seconds: float) -> bool:
        """Get ready for the next request; False if this connection cannot carry another.

        A body that was left unread is discarded, up to `max_bytes` and for `seconds`.
        """
        if self._conn.our_state is not h11.DONE or self._continue_owed:
            return False
        try:
            with trio.move_on_after(seconds):
                while self._conn.their_state is h11.SEND_BODY and max_bytes > 0:
                    max_bytes -= len(await self.read_body() or b"")
        except (BadRequest, PeerGone):
            return False
        if self._conn.their_state is not h11.DONE:
            return False
        self._conn.start_next_cycle()
        self._head = None
        return True

    # Answers

    async def send(self, *events: h11.Event) -> None:
        """Send events with one write.

        Raises:
          h11.LocalProtocolError: they do not fit the state or contradict themselves.
          PeerGone: the connection broke.

        Cancellation: nothing more can be sent.
        """
        parts: list[bytes] = []
        for event in events:
            parts += self._conn.send_with_data_passthrough(event) or ()
        try:
            await self._transport.send(parts)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerGone("the connection broke") from error

    async def start_response(
        self, status: int, fields: Fields, body: bytes, *, more: bool, close: bool
    ) -> None:
        """Send the head of the response and the first piece of its body; raises as `send`."""
        headers = list(fields)
        if not any(name.lower() == b"date" for name, _ in fields):
            headers.append((b"date", formatdate(usegmt=True).encode()))
        if close:
            headers.append((b"connection", b"close"))
        response = h11.Response(status_code=status, headers=headers, reason=phrase(status).encode())
        await self.send(response, *self.body_events(status, body, more=more))

    def body_events(self, status: int, body: bytes, *, more: bool) -> list[h11.Event]:
        """Return the events for a piece of a response's body, none where it must have no body."""
        bodiless = status in (204, 304) or (self._head is not None and self._head.method == "HEAD")
        events: list[h11.Event] = []
        if body and not bodiless:
            events.append(h11.Data(data=body))
        if not more:
            events.append(h11.EndOfMessage())
        return events

    async def answer(
        self, status: int, body: bytes, content_type: bytes, fields: Fields = ()
    ) -> None:
        """Send a whole response and say that the connection ends here; raises `PeerGone`.

        Does nothing if a response has begun already.
        """
        if self._conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        fields = (
            *fields,
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        )
        await self.start_response(status, fields, body, more=False, close=True)

    async def answer_problem(
        self, status: int, detail: str, request_id: str, fields: Fields = ()
    ) -> None:
        """Like `answer`, with a problem+json body."""
        await self.answer(status, problem(status, detail, request_id), CONTENT_TYPE, fields)

    async def switch_protocols(self, fields: Fields) -> bytes:
        """Answer an upgrade request with 101; return what came after its head.

        The connection no longer speaks HTTP afterwards.  Raises `PeerGone`.
        """
        await self.read_body()  # h11 wants to see that there is none.
        await self.send(
            h11.InformationalResponse(
                status_code=101, headers=list(fields), reason=b"Switching Protocols"
            )
        )
        rest = self._conn.trailing_data[0]
        del self._conn, self._head  # some KiB, which a WebSocket would keep for all its life
        return rest

    async def linger(self) -> None:
        """Half-close, then discard what the client still sends, for a moment."""
        try:
            with trio.move_on_after(LINGER):
                await self._transport.send_eof()
                while not self._ended and await self._transport.receive(READ_SIZE):
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # That is what we were waiting for.
