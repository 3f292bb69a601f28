"""HTTP/2, by Hypercorn in process, one `TCPServer` per connection.

What is mended here, all of it seen in Hypercorn 0.18 (the names used are undocumented, so the version
is pinned):

- It always offers extended CONNECT (RFC 8441), and browsers then open WebSockets inside HTTP/2, past
  the front.  Here it is not offered, and CONNECT is refused.
- Data for a stream whose route has already answered raises KeyError and ends the connection.  Here the
  bytes are credited back and dropped; a client that goes on for long is told to stop (RFC 9113 §8.1;
  not at once, because some clients take that for a failure and forget the answer).
- When it drains, it closes the connection before the end of the last response is out.  Here it waits.
- The queue towards an app is bounded, and nobody empties it once the app has answered: the connection's
  reader, and the app in its last send, would wait for ever.  Here the rest is discarded meanwhile.
- A disconnect can interrupt an app in its last send (see `proxy.asgi`); here it is held back.
- It shields its sends, without a deadline, from cancellation.  Only closing the socket frees them: that
  is `Connections.cut`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from proxy.asgi import INTERNAL_ERROR, Message, Receive, Scope, Send
from proxy.problem import CONTENT_TYPE, make_request_id, problem
from proxy.site import Site

DROPPED_MAX = 16 << 20
"""Bytes that are read and dropped of an upload whose answer is already out."""

log = structlog.get_logger()


class Http2:
    """The HTTP/2 side of a front: what its connections share."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._config = Config()
        self._config.accesslog = None
        self._config.errorlog = None
        self._config.include_server_header = False
        self._config.keep_alive_timeout = site.config.idle_timeout
        self._config.h2_max_header_list_size = site.config.max_head_bytes
        self._context = WorkerContext(None)

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        """Serve a connection, after its TLS handshake, until it ends."""
        app = cast("AppWrapper", self._app)  # The same calls, more loosely typed.
        server = _Server(app, self._config, self._context, self._site.state, stream)
        await server.run()

    async def drain(self) -> None:
        """Close connections as soon as no request runs on them, and refuse new requests."""
        await self._context.terminated.set()

    async def _app(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        _sync_spawn: Callable[..., Any],
        _call_soon: Callable[..., Any],
    ) -> None:
        await _Exchange(self._site, scope, receive, send).run()


class _Exchange:
    """One request and its response, between Hypercorn and the app."""

    def __init__(self, site: Site, scope: Scope, receive: Receive, send: Send) -> None:
        self._site = site
        self._scope = scope
        self._hypercorn_receive = receive
        self._hypercorn_send = send
        self._started = False
        self._ending = False
        self._finished = trio.Event()
        self._waiting = trio.CancelScope()
        self._request_id = make_request_id()

    async def run(self) -> None:
        if self._scope["type"] != "http":
            return
        headers = self._scope["headers"]
        refused = self._site.hosts.check(
            self._scope["method"],
            [value for name, value in headers if name == b"host"],
            [value for name, value in headers if name == b"origin"],
        )
        if refused is not None:
            await self._answer(refused.status, refused.detail)
            return
        self._scope["state"]["request_id"] = self._request_id
        try:
            await self._site.app(self._scope, self._receive, self._send)
        except* Exception:
            log.exception(
                "the app failed on a request",
                request_id=self._request_id,
                method=self._scope["method"],
                path=self._scope["path"],
            )
            if not self._started:
                await self._answer(500, INTERNAL_ERROR)

    async def _receive(self) -> Message:
        """See `proxy.asgi.Exchange.receive`."""
        if not self._finished.is_set():
            with trio.CancelScope() as self._waiting:
                message = await self._hypercorn_receive()
                if message["type"] == "http.disconnect" and self._ending:
                    await self._finished.wait()
                return message
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._started = True
        if message["type"] != "http.response.body" or message.get("more_body"):
            await self._hypercorn_send(message)
            return
        self._ending = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._discard)
            await self._hypercorn_send(message)
            nursery.cancel_scope.cancel()
        self._finished.set()
        self._waiting.cancel()

    async def _discard(self) -> None:
        while (await self._hypercorn_receive())["type"] != "http.disconnect":
            pass

    async def _answer(self, status: int, detail: str) -> None:
        body = problem(status, detail, self._request_id)
        headers = [(b"content-type", CONTENT_TYPE), (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


class _Protocol(H2Protocol):
    """Without extended CONNECT, calm about data for a stream that is over, and complete to the end."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        codes = h2.settings.SettingCodes
        self.connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: self.config.h2_max_concurrent_streams,
                codes.MAX_HEADER_LIST_SIZE: self.config.h2_max_header_list_size,
            },
        )
        self._dropped: Counter[int] = Counter()
        self._ended: dict[int, trio.Event] = {}

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                self._drop(event.stream_id, event.flow_controlled_length or 0)
            elif isinstance(event, h2.events.RequestReceived) and _is_connect(event):
                self._reset(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            else:
                await super()._handle_events([event])
        await self._flush()

    def _drop(self, stream_id: int, count: int) -> None:
        """Drop data for a stream that is over, and have the client stop if there is much of it."""
        self._dropped[stream_id] += count
        self.connection.acknowledge_received_data(count, stream_id)
        if self._dropped[stream_id] > DROPPED_MAX:
            self._reset(stream_id, h2.errors.ErrorCodes.NO_ERROR)

    def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        with suppress(h2.exceptions.ProtocolError):  # It is closed on both sides already.
            self.connection.reset_stream(stream_id, code)

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, StreamClosed) and self.context.terminated.is_set():
            # The base class would now close the connection, if this was its last stream, although
            # the end of the stream may not be out yet.
            await self._wait_ended(event.stream_id)
        await super().stream_send(event)

    async def _wait_ended(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        if buffer is not None and buffer.complete and not self.closed:
            await self._ended.setdefault(stream_id, trio.Event()).wait()

    async def _send_data(self, stream_id: int) -> None:
        await super()._send_data(stream_id)
        if stream_id not in self.stream_buffers and stream_id in self._ended:
            self._ended.pop(stream_id).set()

    async def handle(self, event: Event) -> None:
        if isinstance(event, Closed):
            self.closed = True
            for ended in self._ended.values():
                ended.set()
        await super().handle(event)


def _is_connect(event: h2.events.RequestReceived) -> bool:
    return (b":method", b"CONNECT") in [(bytes(n), bytes(v)) for n, v in event.headers or ()]


class _Server(TCPServer):
    """Hypercorn's connection, with our protocol and without its own TLS handshake."""

    async def run(self) -> None:
        socket = self.stream.transport_stream.socket
        try:
            async with TaskGroup() as task_group:
                self._task_group = task_group
                self.protocol = _Protocol(  # type: ignore[assignment]  # without the wrapper around it
                    self.app,
                    self.config,
                    self.context,
                    task_group,
                    ConnectionState(self.state.copy()),
                    True,
                    parse_socket_addr(socket.family, socket.getpeername()),
                    parse_socket_addr(socket.family, socket.getsockname()),
                    self.protocol_send,
                )
                await self.protocol.initiate()
                await self.idle_task.restart(task_group, self._idle_timeout)
                await self._read_data()
        finally:
            await self._close()
