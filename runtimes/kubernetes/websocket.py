"""Opening a WebSocket to an API server.

The relay knows no HTTP and the client's half of the SDK is above this package; the rules of the
handshake are shared (`relay.websocket.handshake`), the few lines of HTTP around them are here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

import h11
import trio

from relay.websocket import Role, WebSocket
from relay.websocket.handshake import VERSION, HandshakeError, check_answer, make_key
from runtimes.kubernetes.access import Cluster

_READ_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 64 * 1024
_MAX_BODY_BYTES = 64 * 1024


class Refused(Exception):
    """The server answered something else than 101; `body` is the beginning of what it said."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"refused with {status}")
        self.status = status
        self.body = body


async def connect(cluster: Cluster) -> trio.abc.Stream:
    """Open a connection to the API server.

    Raises:
      OSError: nobody answers there.
      trio.BrokenResourceError: TLS could not be agreed on.

    Cancellation: nothing is left open.
    """
    parts = urlsplit(cluster.url)
    context = cluster.ssl_context
    port = parts.port or (80 if context is None else 443)
    stream = await trio.open_tcp_stream(parts.hostname or "", port)
    if context is None:
        return stream
    secured = trio.SSLStream(
        stream, context, server_hostname=cluster.server_name, https_compatible=True
    )
    try:
        await secured.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(secured)
        raise
    return secured


async def open_websocket(
    cluster: Cluster, target: str, headers: Mapping[str, str], offered: Sequence[str]
) -> WebSocket:
    """Open a WebSocket to `target`, which is relative to the server's URL.

    Raises:
      Refused: the server said no.
      HandshakeError: its answer breaks the rules, or it speaks none of `offered`.
      OSError, trio.BrokenResourceError: as `connect`, or the connection broke.

    Cancellation: nothing is left open.
    """
    stream = await connect(cluster)
    try:
        key = make_key(os.urandom(16))
        parts = urlsplit(cluster.url)
        request = h11.Request(
            method="GET",
            target=parts.path + target,
            headers=[
                ("Host", parts.netloc),
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Key", key),
                ("Sec-WebSocket-Version", VERSION),
                ("Sec-WebSocket-Protocol", ", ".join(offered)),
                *headers.items(),
            ],
        )
        answer, rest = await _ask(stream, request)
        chosen = _choice(answer, key, offered)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return WebSocket(
        stream, Role.CLIENT, initial=rest, subprotocol=chosen, peer=parts.netloc, close_timeout=1.0
    )


def _choice(answer: h11.InformationalResponse, key: str, offered: Sequence[str]) -> str:
    chosen = check_answer(answer.headers, key, offered)
    if chosen is None:
        raise HandshakeError(f"the server speaks none of {', '.join(offered)}")
    return chosen


async def _ask(
    stream: trio.abc.Stream, request: h11.Request
) -> tuple[h11.InformationalResponse, bytes]:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
    head = connection.send(request) or b""
    await stream.send_all(head + (connection.send(h11.EndOfMessage()) or b""))
    body = bytearray()
    status: int | None = None
    try:
        while len(body) < _MAX_BODY_BYTES:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                    return event, connection.trailing_data[0]
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
    except h11.RemoteProtocolError as error:
        raise HandshakeError(f"the server does not speak HTTP/1.1: {error}") from error
    if status is None:
        raise HandshakeError("the connection ended before the answer")
    raise Refused(status, bytes(body))
