"""The bridge from HTTP/1.1 to an ASGI app.

Theory of operation
===================

`Exchange` is one request and its response.  The app pulls the request's body: the socket is read only
inside the app's `receive`, so back-pressure reaches the client.

Once the body is over, `receive` waits for the client to leave, because that is how an app learns that
nobody is listening any more.  Two things make that delicate.  A client that has the whole response may
leave at once, and an app that gives up when it hears of that (Quart does) must not be interrupted in
the very call that ends the response: while the last piece is being sent a disconnect is held back.
And an app may be left waiting in `receive` when its response is over: it is told so then, rather than
when the client's next request happens to arrive.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import h11
import structlog
import trio

from proxy.heads import BadRequest, Head
from proxy.wire import PeerGone, Wire

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

INTERNAL_ERROR = "The server failed to answer this request. Its log says why, under the request id."

log = structlog.get_logger()


class AppError(Exception):
    """The app broke the ASGI protocol."""


class LifespanError(Exception):
    """The app could not start up or shut down; the message says why."""


def http_scope(
    head: Head,
    *,
    scheme: str,
    client: tuple[str, int] | None,
    server: tuple[str, int] | None,
    state: dict[str, Any],
) -> Scope:
    """Return the ASGI scope of a request (ASGI HTTP specification, version 2.4)."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": head.http_version,
        "method": head.method,
        "scheme": scheme,
        "path": head.path,
        "raw_path": head.raw_path,
        "query_string": head.query,
        "root_path": "",
        "headers": list(head.fields),
        "client": client,
        "server": server,
        "state": state,
        "extensions": {},
    }


class Exchange:
    """One request and its response.

    Args:
      wire: The connection, just behind the request's head.
      scope: The ASGI scope of the request.
      request_id: What ties the answer to the log.
      draining: Once set, responses announce that the connection ends.
    """

    def __init__(self, wire: Wire, scope: Scope, request_id: str, draining: trio.Event) -> None:
        self._wire = wire
        self._scope = scope
        self._request_id = request_id
        self._draining = draining
        self._body_read = False
        self._start: Message | None = None
        self._started = False
        self._ending = False
        self._finished = trio.Event()
        self._waiting = trio.CancelScope()
        self._aborted: BadRequest | PeerGone | None = None

    @property
    def status(self) -> int | None:
        """The status of the response, once the app has given it."""
        return None if self._start is None else int(self._start["status"])

    async def run(self, app: ASGIApp) -> bool:
        """Have `app` answer; False if the connection is not fit for another request.

        An app that fails before its response has begun is answered for: 500, and one log line.

        Raises:
          BadRequest: the body was malformed and no response has begun.
          PeerGone: the client has left.
        """
        failed = False
        try:
            await app(self._scope, self.receive, self.send)
        except* PeerGone as group:
            self._aborted = self._aborted or PeerGone(str(group.exceptions[0]))
        except* Exception:
            if self._aborted is None:
                failed = True
                log.exception("the app failed on a request", **self._context())
            else:  # Whatever an app raises once it was told that the client left.
                log.debug("the app gave up a request", exc_info=True, **self._context())
        if self._finished.is_set() and not failed:
            return True
        if self._aborted is not None:
            raise self._aborted
        if not failed:
            log.error("the app ended a request without a whole response", **self._context())
        if not self._started:
            await self._wire.answer_problem(500, INTERNAL_ERROR, self._request_id)
        return False

    def _context(self) -> dict[str, object]:
        """Return what identifies the request in the log; never the query, which may hold a ticket."""
        return {
            "request_id": self._request_id,
            "method": self._scope["method"],
            "path": self._scope["path"],
        }

    async def receive(self) -> Message:
        """Give the app the next piece of the body, or word that the client left (ASGI)."""
        if not self._finished.is_set():
            with trio.CancelScope() as self._waiting:
                return await self._receive()
        return {"type": "http.disconnect"}

    async def _receive(self) -> Message:
        try:
            if not self._body_read:
                data = await self._wire.read_body()
                self._body_read = data is None
                return {"type": "http.request", "body": data or b"", "more_body": data is not None}
            await self._wire.wait_gone()
            self._aborted = PeerGone("the client left")
        except (BadRequest, PeerGone) as error:
            self._aborted = error
        if self._ending:
            await self._finished.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a piece of the response from the app (ASGI).

        Raises:
          PeerGone: the client has left.
          AppError: the message is out of order.
        """
        match message["type"]:
            case "http.response.start" if self._start is None:
                self._start = message
            case "http.response.body" if self._start is not None and not self._ending:
                await self._send_body(self._start, message)
            case kind:
                raise AppError(f"ASGI message {kind!r} is out of order or unknown")

    async def _send_body(self, start: Message, message: Message) -> None:
        body = bytes(message.get("body", b""))
        more = bool(message.get("more_body", False))
        self._ending = not more
        status = int(start["status"])
        try:
            if self._started:
                await self._wire.send(*self._wire.body_events(status, body, more=more))
            else:
                self._started = True
                fields = tuple((bytes(n), bytes(v)) for n, v in start.get("headers", ()))
                close = self._draining.is_set()
                await self._wire.start_response(status, fields, body, more=more, close=close)
        except h11.LocalProtocolError as error:
            raise AppError(f"the response contradicts itself: {error}") from error
        if not more:
            self._finished.set()
            self._waiting.cancel()


@asynccontextmanager
async def lifespan(app: ASGIApp, state: dict[str, Any], timeout: float) -> AsyncIterator[None]:
    """Keep `app` started up for the length of the ``async with`` block (ASGI lifespan).

    An app that raises before it looked at the first event does not take part, and is left alone.

    Args:
      app: The app.
      state: Where it may put what its requests share.
      timeout: Seconds for the start-up, and again for the shut-down.

    Raises:
      LifespanError: it failed to start up (on entry) or to shut down (on exit), or took too long.
    """
    life = _Lifespan(app, state)
    failure: LifespanError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.run)
        try:
            await life.reach("startup", timeout)
        except LifespanError as error:
            failure = error  # Raised outside, where no exception group forms around it.
        else:
            yield
            try:
                await life.reach("shutdown", timeout)
            except LifespanError as error:
                failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Lifespan:
    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self._app = app
        self._scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": state,
        }
        self._events_in, self._events_out = trio.open_memory_channel[Message](1)
        self._done = {"startup": trio.Event(), "shutdown": trio.Event()}
        self._looked = False
        self._ended = False
        self._problem: str | None = None

    async def run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:
            if self._looked:
                log.exception("the app's lifespan failed")
                self._problem = self._problem or repr(error)
        finally:
            self._ended = True
            for event in self._done.values():
                event.set()

    async def reach(self, stage: str, timeout: float) -> None:
        """Ask the app for `stage` and wait until it is done."""
        if not self._ended:
            self._events_in.send_nowait({"type": f"lifespan.{stage}"})
            with trio.move_on_after(timeout) as scope:
                await self._done[stage].wait()
            if scope.cancelled_caught:
                raise LifespanError(f"the app's {stage} took longer than {timeout:g} s")
        if self._problem is not None:
            raise LifespanError(f"the app's {stage} failed: {self._problem}")

    async def _receive(self) -> Message:
        self._looked = True
        return await self._events_out.receive()

    async def _send(self, message: Message) -> None:
        _, stage, outcome = message["type"].split(".")
        if outcome == "failed":
            self._problem = message.get("message") or "it did not say why"
        self._done[stage].set()
