"""Request bodies that push back, and connections that end at the right moment.

Theory of operation
-------------------
Quart appends every ``http.request`` message to the body as fast as the server can deliver it,
whether or not the handler reads, so a slow handler costs as much memory as the client cares to
send.  Here the task that receives from the server waits while `HIGH_WATER` bytes or more lie
unread: the server then stops reading its socket, and TCP tells the client.

A handler may use a body in two ways, with two bounds:

* ``async for chunk in request.body``: any length; at most `HIGH_WATER` bytes plus one message of
  the server are held.
* ``await request.get_data()``: the whole body; one that is longer than ``MAX_CONTENT_LENGTH``
  raises `RequestEntityTooLarge` (413), at once where its ``Content-Length`` says so.

A handler that does neither (it answers 401, say) lets the request end: the task that receives is
cancelled with it.

The second matter is ``http.disconnect``.  Quart-Trio cancels the handler when the client goes
away, which is right while it works and wrong once it hands over the last message of its
response: servers send the disconnect from *inside* that ``send``, and the cancellation would
strike the server's own code there (in Hypercorn, before it arms its keep-alive time-out).  So
from the last message on a disconnect is ignored; the request ends by itself.

The third: what a handler opens for a response that is streamed has to stay open after the handler
has returned.  `BoundedRequest.resources` is closed when the response has been sent, or given up.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AsyncExitStack
from typing import Any, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent
from quart import Request
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioRequest
from quart_trio.wrappers.request import TrioBody
from werkzeug.exceptions import RequestEntityTooLarge

HIGH_WATER = 256 * 1024
"""Bytes of a body that may lie unread before the client is made to wait."""


class BoundedBody(TrioBody):
    """A request body that says when it has room for more."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        # The parent would apply the maximum to streamed bodies too; they are bounded by room().
        super().__init__(None, None)
        self._expected = expected_content_length
        self._maximum = max_content_length
        self._whole = False
        self._room = trio.Event()

    def append(self, data: bytes) -> None:
        """Add bytes from the server; dropped once the body is known to be too large."""
        super().append(data)
        if self._whole:
            self._check_whole()

    async def __anext__(self) -> bytes:
        chunk = await super().__anext__()
        self._wake()
        return chunk

    def __await__(self) -> Generator[Any, None, bytes]:
        self._whole = True
        self._check_whole()
        self._wake()
        whole: bytes = yield from super().__await__()
        return whole

    async def room(self) -> None:
        """Wait until there is room for another message.  Cancellation: safe."""
        while len(self._data) >= HIGH_WATER and not self._whole:
            await self._room.wait()

    def _check_whole(self) -> None:
        length = max(len(self._data), self._expected or 0)
        if self._maximum is not None and length > self._maximum and self._must_raise is None:
            self._must_raise = RequestEntityTooLarge()
            self._data.clear()
            self.set_complete()

    def _wake(self) -> None:
        self._room.set()
        self._room = trio.Event()


class BoundedRequest(TrioRequest):
    """A request with a bounded body."""

    body_class = BoundedBody
    body: BoundedBody
    resources: AsyncExitStack
    """What is entered here, by the handler's own task, lasts until the response has been sent."""


class BoundedConnection(TrioASGIHTTPConnection):
    """One request and its response, between the ASGI server and the application."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve the request.  Cancellation: the handler is cancelled too."""
        self._answered = False

        async def watched_send(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._answered = True
            await send(message)

        await super().__call__(receive, watched_send)

    async def handle_request(  # type: ignore[override]  # as Quart-Trio itself does
        self, nursery: trio.Nursery, request: Request, send: ASGISendCallable
    ) -> None:
        """Have the request handled and send the response."""
        async with AsyncExitStack() as resources:
            cast("BoundedRequest", request).resources = resources
            await super().handle_request(nursery, request, send)

    async def handle_messages(  # type: ignore[override]  # as Quart-Trio itself does
        self, nursery: trio.Nursery, request: Request, receive: ASGIReceiveCallable
    ) -> None:
        """Feed the body; cancel the handler when the client goes away before it has answered."""
        body = cast("BoundedBody", request.body)
        while True:
            await body.room()
            message = await receive()
            if message["type"] == "http.request":
                body.append(message.get("body", b""))
                if not message.get("more_body", False):
                    body.set_complete()
            elif message["type"] == "http.disconnect":
                break
        if not self._answered:
            nursery.cancel_scope.cancel()
