"""One HTTP/1.1 connection: request after request, until it ends or becomes a WebSocket."""

from __future__ import annotations

import structlog
import trio

from proxy.asgi import Exchange, http_scope
from proxy.connections import Connection, Phase
from proxy.heads import BadRequest, Head, read_upgrade
from proxy.problem import make_request_id
from proxy.site import Site
from proxy.upgrade import WebSocketRequest
from proxy.wire import PeerGone, Wire
from relay.websocket.frames import CloseCode

log = structlog.get_logger()


class Http1:
    """One client's HTTP/1.1 connection.

    Args:
      stream: What HTTP is spoken on: `connection.stream`, or TLS on top of it.
      connection: Its entry in the book.
      site: What it may reach.
    """

    def __init__(self, stream: trio.abc.Stream, connection: Connection, site: Site) -> None:
        self._stream = stream
        self._connection = connection
        self._site = site
        self._wire = Wire(stream, max_head_bytes=site.config.max_head_bytes)
        self._scheme = "http" if stream is connection.stream else "https"
        socket = connection.stream.socket
        self._client = _address(socket.getpeername())
        self._server = _address(socket.getsockname())

    async def run(self) -> None:
        """Serve requests until the connection ends.

        Raises:
          trio.BrokenResourceError: it broke.
        """
        config = self._site.config
        deadline = trio.current_time() + config.head_timeout
        head_timeout = None  # The first head must be whole by the deadline.
        try:
            while (head := await self._wire.read_head(deadline, head_timeout=head_timeout)) and (
                await self._serve(head)
            ):
                self._connection.enter(Phase.IDLE)
                deadline = trio.current_time() + config.idle_timeout
                head_timeout = config.head_timeout
        except BadRequest as error:
            await self._refuse(error)
        except PeerGone:
            pass

    async def _refuse(self, error: BadRequest) -> None:
        request_id = make_request_id()
        log.info(
            "bad request",
            status=error.status,
            detail=error.detail,
            client=self._connection.peer,
            request_id=request_id,
        )
        try:
            await self._wire.answer_problem(error.status, error.detail, request_id, error.fields)
        except PeerGone:
            return
        await self._wire.linger()

    async def _serve(self, head: Head) -> bool:
        """Answer one request; False if the connection ends with it."""
        self._connection.enter(Phase.REQUEST)
        refused = self._site.hosts.check(
            head.method, head.hosts, head.values(b"origin"), websocket=head.wants_websocket
        )
        if refused is not None:
            raise BadRequest(refused.status, refused.detail)
        if head.wants_websocket:
            await self._upgrade(head)
            return False
        return await self._request(head)

    async def _request(self, head: Head) -> bool:
        request_id = make_request_id()
        scope = http_scope(
            head,
            scheme=self._scheme,
            client=self._client,
            server=self._server,
            state={**self._site.state, "request_id": request_id},
        )
        exchange = Exchange(self._wire, scope, request_id, self._site.draining)
        began = trio.current_time()
        try:
            if not await exchange.run(self._site.app):
                return False
        finally:
            log.debug(
                "request",
                method=head.method,
                path=head.path,
                status=exchange.status,
                seconds=round(trio.current_time() - began, 6),
                client=self._connection.peer,
                request_id=request_id,
            )
        config = self._site.config
        if await self._wire.next_cycle(
            max_bytes=config.unread_body_bytes, seconds=config.unread_body_timeout
        ):
            return True
        if head.has_body:
            await self._wire.linger()
        return False

    async def _upgrade(self, head: Head) -> None:
        upgrade = read_upgrade(head)
        if self._site.draining.is_set():
            raise BadRequest(503, "The server is going away; connect again in a moment.")
        handler = self._site.routes.match(head.path)
        if handler is None:
            raise BadRequest(404, "There is no WebSocket at this path.")
        request = WebSocketRequest(
            head, upgrade, self._stream, self._wire, self._connection, self._site.draining
        )
        failed = False
        try:
            await handler(request)
        except* (trio.BrokenResourceError, trio.ClosedResourceError) as group:
            log.debug("a WebSocket broke", client=request.client, error=str(group.exceptions[0]))
        except* Exception:
            failed = True
            log.exception("a WebSocket handler failed", path=head.path, client=request.client)
        await self._finish(request, failed=failed)

    async def _finish(self, request: WebSocketRequest, *, failed: bool) -> None:
        """End what the handler left open."""
        if request.websocket is not None:
            if failed:
                code = CloseCode.INTERNAL_ERROR
            elif self._site.draining.is_set():
                code = CloseCode.GOING_AWAY
            else:
                code = CloseCode.NORMAL
            await request.websocket.close(code)
        elif not request.answered:
            if not failed:
                log.error("a WebSocket handler gave no answer", path=request.path)
            await request.reject(500, "The server failed to answer this request.")


def _address(address: object) -> tuple[str, int] | None:
    """Return host and port of a socket address, where it has them."""
    if isinstance(address, tuple) and len(address) >= 2:
        return str(address[0]), int(address[1])
    return None
