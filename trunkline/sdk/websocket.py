"""Opening a WebSocket as a client (RFC 6455 §4.1)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import h11
import trio

from relay.transport import Transport, open_transport
from relay.websocket.connection import WebSocket
from relay.websocket.frames import Role
from relay.websocket.handshake import (
    VERSION,
    HandshakeError,
    check_answer,
    make_key,
    parse_subprotocols,
)

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024
"""How much of a refusal is read."""

__all__ = ["HandshakeError", "HandshakeRefused", "open_websocket"]

_DEFAULT_PORTS = {"ws": 80, "wss": 443}


class HandshakeRefused(HandshakeError):
    """The server answered with an HTTP response instead of opening a WebSocket.

    Attributes:
      status: Its HTTP status.
      reason: The reason phrase.
      body: The first 64 KiB of its body.
    """

    def __init__(self, status: int, reason: str, body: bytes) -> None:
        text = body.decode(errors="replace").strip()
        super().__init__(f"the server refused the WebSocket: {status} {reason}: {text[:500]}")
        self.status = status
        self.reason = reason
        self.body = body


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int
    secure: bool
    authority: str
    resource: str


async def open_websocket(
    url: str,
    *,
    subprotocols: Sequence[str] | Callable[[], Awaitable[Sequence[str]]] = (),
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    timeout: float = 10.0,
) -> tuple[WebSocket, str | None]:
    """Connect to `url` and open a WebSocket.

    Args:
      url: ``ws://`` or ``wss://``, host, path and query; no user, no fragment.
      subprotocols: What to offer, best first; or what finds that out, while the connection is made.
      headers: Further header fields of the request.
      ssl_context: For ``wss``; None verifies against the system's authorities.  A context given here
        must not offer HTTP/2.
      timeout: Seconds for all of it.

    Returns:
      The open WebSocket, and the subprotocol that the server chose from those offered, if any.

    Raises:
      Whatever `subprotocols` does, and:
      ValueError: the URL or a subprotocol is malformed.
      OSError: there is no connection to the server.
      trio.BrokenResourceError: the connection broke, or TLS could not be agreed on.
      trio.TooSlowError: it took longer than `timeout`.
      HandshakeRefused: the server answered with something else than a WebSocket.
      HandshakeError: the server's answer breaks the rules.

    Cancellation: nothing is left open.
    """
    target = _parse(url)
    offered = () if callable(subprotocols) else parse_subprotocols(list(subprotocols))
    with trio.fail_after(timeout):
        if callable(subprotocols):
            stream, wanted = await _connect_meanwhile(target, ssl_context, subprotocols)
        else:
            stream, wanted = await _connect(target, ssl_context), ()
        try:
            offered = offered or parse_subprotocols(list(wanted))
            key = make_key(os.urandom(16))
            transport = open_transport(stream)
            answer, initial = await _shake(transport, target, key, offered, headers or {})
            chosen = check_answer(answer.headers, key, offered)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    websocket = WebSocket(
        stream, Role.CLIENT, initial=initial, subprotocol=chosen, peer=target.authority
    )
    return websocket, chosen


def _parse(url: str) -> _Target:
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"a WebSocket URL begins with ws:// or wss://, not {parts.scheme!r}")
    if not parts.hostname:
        raise ValueError("the WebSocket URL has no host")
    if parts.username is not None or parts.fragment:
        raise ValueError("a WebSocket URL has neither user nor fragment")
    default = _DEFAULT_PORTS[parts.scheme]
    port = default if parts.port is None else parts.port
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = name if port == default else f"{name}:{port}"
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(parts.hostname, port, parts.scheme == "wss", authority, resource)


async def _connect(target: _Target, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    stream = await trio.open_tcp_stream(target.host, target.port)
    if not target.secure:
        return stream
    if ssl_context is None:
        ssl_context = ssl.create_default_context()
        ssl_context.set_alpn_protocols(["http/1.1"])
    secure = trio.SSLStream(stream, ssl_context, server_hostname=target.host, https_compatible=True)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(secure)
        raise
    return secure


async def _connect_meanwhile(
    target: _Target,
    ssl_context: ssl.SSLContext | None,
    find: Callable[[], Awaitable[Sequence[str]]],
) -> tuple[trio.abc.Stream, Sequence[str]]:
    """Connect and call `find` at the same time; one round trip less than one after the other."""
    streams: list[trio.abc.Stream] = []
    found: list[Sequence[str]] = []
    errors: list[Exception] = []

    async def connect() -> None:
        try:
            streams.append(await _connect(target, ssl_context))
        except Exception as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect)
            try:
                found.append(await find())
            except Exception as error:  # noqa: BLE001 - raised again below
                errors.insert(0, error)  # it knows better why the server is not there
                nursery.cancel_scope.cancel()
    finally:
        if not (streams and found):
            for stream in streams:
                await trio.aclose_forcefully(stream)
    if errors:
        raise errors[0]
    return streams[0], found[0]


async def _shake(
    transport: Transport,
    target: _Target,
    key: str,
    offered: Sequence[str],
    headers: Mapping[str, str],
) -> tuple[h11.InformationalResponse, bytes]:
    """Send the request; return the 101 and what came after it."""
    conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    fields = [
        ("Host", target.authority),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", VERSION),
        *headers.items(),
    ]
    if offered:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(offered)))
    try:
        request = h11.Request(method="GET", target=target.resource, headers=fields)
        await transport.send((conn.send(request) + conn.send(h11.EndOfMessage()),))
    except h11.LocalProtocolError as error:
        raise ValueError(f"this cannot be sent in an HTTP request: {error}") from error
    try:
        while True:
            event = await _next_event(conn, transport)
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return event, conn.trailing_data[0]
            if isinstance(event, h11.Response):
                raise await _refusal(event, conn, transport)
    except h11.RemoteProtocolError as error:
        raise HandshakeError(f"the server does not speak HTTP/1.1: {error}") from error


async def _next_event(conn: h11.Connection, transport: Transport) -> object:
    while (event := conn.next_event()) is h11.NEED_DATA:
        conn.receive_data(bytes(await transport.receive()))
    return event


async def _refusal(
    response: h11.Response, conn: h11.Connection, transport: Transport
) -> HandshakeRefused:
    status = response.status_code
    reason = response.reason.decode("latin-1")
    if not reason and status in set(HTTPStatus):
        reason = HTTPStatus(status).phrase
    body = bytearray()
    try:
        while len(body) < MAX_BODY_BYTES:
            event = await _next_event(conn, transport)
            if not isinstance(event, h11.Data):
                break
            body += event.data
    except (h11.RemoteProtocolError, trio.BrokenResourceError):
        pass  # The status says enough.
    return HandshakeRefused(status, reason, bytes(body[:MAX_BODY_BYTES]))
