"""``GET /v1/sessions/{id}/tcp/{port}`` and ``…/vnc``: a connection to a port as a plain WebSocket.

What websocat, websockify's clients and stock noVNC speak: the bytes of binary messages, their boundaries
mean nothing.  Text messages count as their UTF-8 bytes.  This is a trunk/1 client of the agent, in the
same process.

Theory of operation
-------------------

The connection is made before the WebSocket is accepted, so that "connection refused" is an HTTP
answer.  Then the bytes go one of two ways, which differ in speed only:

* **directly**: where the WebSocket is on a plain socket and the sandbox can give one to the port, the
  relay's reactor joins the two (`relay.reactor`); this task sleeps until they part.
* **over a trunk** (TLS, or a sandbox that has no sockets to give): as a trunk/1 client of the agent, in
  the same process, with one task for each direction.

Back-pressure has no words here, only not reading and not writing.  A client that does not read holds
up what comes from the port, hence who writes to the port; what it sends goes on meanwhile, so pings are
seen (their pongs go out when the client reads again).  A port that does not read holds up what the
client sends, once the buffers in between (directly 256 KiB and the kernel's; over a trunk a little over
1 MiB) are full: what the client sends after that, pings included, waits in the network.

A WebSocket cannot say that one direction has ended.  So the end of the port's output closes it (1000),
after the last byte; what had come for the port before is still delivered.  A close by the client
ends the port's input, and closes the connection once that was delivered.  A client that vanishes
without a close resets the connection, and a connection that breaks is told as 1011.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

import structlog
import trio

from proxy.admission import Admission, Rejected, choose_subprotocol, reject
from proxy.direct import join_directly
from proxy.upgrade import DataPlane, WebSocketRequest
from relay.attachment_stream import AttachmentStream
from relay.client import Trunk
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.endpoint import Kind, SocketTarget, StartError
from relay.errors import AttachmentClosed, AttachRefused
from relay.grant import Grant
from relay.protocol.messages import Start
from relay.protocol.reasons import CloseReason, Refusal
from relay.reactor import Reactor
from relay.websocket import CloseCode, Text, WebSocket
from relay.websocket.carrier import CLOSE_CODES
from runtimes.base import SessionHost, UnknownSession
from sessions.manager import Manager

SUBPROTOCOL = "binary"
"""What older websockify clients ask for."""

REFUSALS: Mapping[Refusal, int] = {
    Refusal.BAD_REQUEST: 400,
    Refusal.FORBIDDEN: 403,
    Refusal.BUSY: 409,
    Refusal.CONFLICT: 409,
    Refusal.ENDING: 409,
    Refusal.UNSUPPORTED: 501,
    Refusal.START_FAILED: 502,
    Refusal.LIMIT: 503,
}
"""The status for each reason why a connection was not made."""

_TCP = re.compile(r"/v1/sessions/([^/]+)/tcp/([^/]+)")
_VNC = re.compile(r"/v1/sessions/([^/]+)/vnc")
_PORT = re.compile(r"[0-9]{1,5}")

logger = structlog.get_logger(__name__)


class SocketRoutes:
    """See `proxy.upgrade.Routes`."""

    def __init__(
        self,
        admission: Admission,
        manager: Manager,
        host: SessionHost,
        reactor: Reactor | None = None,
    ) -> None:
        self._admission = admission
        self._manager = manager
        self._host = host
        self._reactor = reactor

    def match(self, path: str) -> DataPlane | None:
        """Return what serves upgrade requests to `path`."""
        if match := _TCP.fullmatch(path):
            session_id, port = match[1], match[2]
            return self._handler(Kind.TCP, session_id, lambda _: _port(port))
        if match := _VNC.fullmatch(path):
            return self._handler(Kind.VNC, match[1], _desktop)
        return None

    def _handler(
        self,
        kind: Kind,
        session_id: str,
        target_of: Callable[[WebSocketRequest], SocketTarget | None],
    ) -> DataPlane:
        async def serve(request: WebSocketRequest) -> None:
            try:
                # What is wrong with the request itself costs no ticket.
                subprotocol = choose_subprotocol(request, SUBPROTOCOL)
                target = target_of(request)
                grant, record = await self._admission.admit(request, session_id)
                target = target or self._manager.profile(record).vnc_of(session_id)
                await self._serve(request, subprotocol, grant, kind, target)
            except Rejected as rejected:
                await reject(request, session_id, rejected)

        return serve

    async def _serve(
        self,
        request: WebSocketRequest,
        subprotocol: str | None,
        grant: Grant,
        kind: Kind,
        target: SocketTarget,
    ) -> None:
        log = logger.bind(session=grant.session_id, subject=grant.subject, client=request.client)
        log = log.bind(kind=kind, target=str(target))
        tag = grant.tag or f"{kind}-{secrets.token_hex(4)}"
        try:
            if not await self._serve_directly(request, subprotocol, grant, kind, tag, target, log):
                async with self._host.open_trunk(grant) as trunk:
                    attachment = await _attach(trunk, kind, tag, target)
                    log.info("connected")
                    websocket = await request.accept(subprotocol)
                    stream = AttachmentStream(attachment, trunk.detach)
                    await _join(websocket, stream, request.draining)
        except UnknownSession:
            raise Rejected(409, "the session is ending") from None
        except AttachRefused as refusal:
            raise Rejected(REFUSALS.get(refusal.code, 409), str(refusal)) from None
        except StartError as error:
            raise Rejected(REFUSALS[Refusal.START_FAILED], str(error)) from None
        log.info("disconnected")

    async def _serve_directly(
        self,
        request: WebSocketRequest,
        subprotocol: str | None,
        grant: Grant,
        kind: Kind,
        tag: str,
        target: SocketTarget,
        log: structlog.stdlib.BoundLogger,
    ) -> bool:
        """Join client and port directly if that can be done; else return False."""
        if self._reactor is None or not request.is_plain:
            return False
        async with self._host.open_passage(grant, kind, tag, target) as opened:
            if opened is None:
                return False
            log.info("connected", directly=True)
            websocket = await request.accept(subprotocol)
            if request.draining.is_set():  # before there was a passage that could have been told
                opened.passage.close(CloseReason.DRAINING)
            await join_directly(self._reactor, websocket, opened)
        return True


def _port(text: str) -> SocketTarget:
    if _PORT.fullmatch(text) is None or not 1 <= int(text) <= 0xFFFF:
        raise Rejected(400, "a port is a number in 1..65535")
    return SocketTarget(int(text))


def _desktop(request: WebSocketRequest) -> SocketTarget | None:
    """Return where the client wants its desktop from, if it says."""
    ports, paths = request.query.get("port", ()), request.query.get("path", ())
    if len(ports) + len(paths) > 1:
        raise Rejected(400, "name one port or one path, not several")
    if paths:
        if not paths[0] or "\0" in paths[0]:
            raise Rejected(400, "path is that of a Unix socket in the session")
        return SocketTarget(path=paths[0])
    return _port(ports[0]) if ports else None


async def _attach(trunk: Trunk, kind: Kind, tag: str, target: SocketTarget) -> ClientAttachment:
    """Connect to `target`.

    Raises:
      AttachRefused, Rejected: it cannot be done, and why.
    """
    try:
        return await trunk.attach(
            AttachOptions(
                attachment=secrets.token_urlsafe(18),
                kind=kind,
                tag=tag,
                start=Start(port=target.port, path=target.path, restart=True),
            )
        )
    except AttachmentClosed as error:
        raise Rejected(409, str(error)) from None
    except ValueError as error:
        raise Rejected(400, str(error)) from None


@dataclass(frozen=True, slots=True)
class _Farewell:
    """What the client is told at the end."""

    code: CloseCode
    reason: str = ""


class _Client(Enum):
    """How a client left."""

    CLOSED = auto()
    VANISHED = auto()


async def _join(websocket: WebSocket, stream: AttachmentStream, draining: trio.Event) -> None:
    """Move bytes both ways until either side ends, or the server is going away."""
    ends: list[_Farewell | _Client] = []
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            ends.append(await _send_output(websocket, stream))
            nursery.cancel_scope.cancel()

        async def receive() -> None:
            ends.append(await _receive_input(websocket, stream))
            nursery.cancel_scope.cancel()

        nursery.start_soon(send)
        nursery.start_soon(receive)
        await draining.wait()
        ends.append(_Farewell(CloseCode.GOING_AWAY, CloseReason.DRAINING))
        nursery.cancel_scope.cancel()
    end = ends[0]
    if isinstance(end, _Farewell):
        await websocket.close(end.code, end.reason)
    if end is _Client.VANISHED:
        await stream.reset()
    else:
        await stream.aclose()


async def _send_output(websocket: WebSocket, stream: AttachmentStream) -> _Farewell:
    while True:
        try:
            data = await stream.receive_some()
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, AttachmentClosed):
                closed = error.__cause__
                # What was wrong with what it sent, only this can tell the client.
                told = closed.message if closed.reason is CloseReason.PROTOCOL_ERROR else ""
                return _Farewell(CLOSE_CODES[closed.reason], told or closed.reason)
            return _Farewell(CloseCode.INTERNAL_ERROR, str(error))
        if not data:
            return _Farewell(CloseCode.NORMAL)
        try:
            await websocket.send_binary(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.sleep_forever()  # the task that receives knows how the client left


async def _receive_input(websocket: WebSocket, stream: AttachmentStream) -> _Client:
    """Pass on what the client sends until it leaves; tell how it did."""
    port_reads = True
    try:
        while (message := await websocket.receive(merge=True)) is not None:
            if not port_reads:
                continue
            data = message.text.encode() if isinstance(message, Text) else message.data
            try:
                await stream.send_all(data)
            except trio.BrokenResourceError:
                port_reads = False  # its output goes on, or will tell
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return _Client.VANISHED
    return _Client.CLOSED
