"""Turning an HTTP request into a raw connection: how the engine carries a process's bytes."""

from __future__ import annotations

import json
from http import HTTPStatus

import h11
import trio

from runtimes.container.address import EngineAddress
from runtimes.container.errors import EngineError, EngineUnreachable
from runtimes.container.tls import TlsStream

_READ_BYTES = 65536
_MAX_ERROR_BYTES = 65536
_RAW_STREAMS = (b"application/vnd.docker.raw-stream", b"application/vnd.docker.multiplexed-stream")


async def connect(address: EngineAddress) -> trio.abc.HalfCloseableStream:
    """Open a connection to the engine.

    Raises:
      EngineUnreachable: nobody answers there.

    Cancellation: nothing is left open.
    """
    try:
        if address.path is not None:
            return await trio.open_unix_socket(address.path)
        stream = await trio.open_tcp_stream(address.host, address.port)
    except OSError as error:
        raise unreachable(address, error) from error
    if address.ssl_context is None:
        return stream
    secured = TlsStream(stream, address.ssl_context, address.host)
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise unreachable(address, error.__cause__ or error) from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


def unreachable(address: EngineAddress, error: BaseException) -> EngineUnreachable:
    """Say that the engine cannot be reached, why, and what to do."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, PermissionError):
        advice = "let this server's user use the socket (its group, usually)"
    else:
        advice = "start it (dockerd, or podman system service), or correct its address"
    return EngineUnreachable(
        f"the container engine at {address} cannot be reached"
        f" ({reason or type(error).__name__}); {advice}"
    )


async def upgrade(
    stream: trio.abc.Stream, address: EngineAddress, target: str, body: object
) -> bytes:
    """POST `body` to `target` and take the connection over; return what came with the answer.

    Raises:
      EngineError: the engine refused.
      trio.BrokenResourceError: the connection broke.
    """
    connection = h11.Connection(h11.CLIENT)
    content = json.dumps(body).encode()
    request = h11.Request(
        method="POST",
        target=target,
        headers=[
            ("Host", address.host or "localhost"),
            ("Connection", "Upgrade"),
            ("Upgrade", "tcp"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
        ],
    )
    head = connection.send(request) or b""
    data = connection.send(h11.Data(data=content)) or b""
    await stream.send_all(head + data + (connection.send(h11.EndOfMessage()) or b""))
    try:
        answer = await _receive_answer(stream, connection)
        if answer.status_code == HTTPStatus.SWITCHING_PROTOCOLS or _is_raw(answer):
            return connection.trailing_data[0]
        message = await _receive_error(stream, connection)
    except h11.RemoteProtocolError as error:
        raise EngineUnreachable(
            f"what answers at {address} is no container engine: {error}"
        ) from error
    raise EngineError(message, answer.status_code)


def _is_raw(answer: h11.Response | h11.InformationalResponse) -> bool:
    """Tell whether an engine that did not switch protocols sends raw bytes all the same."""
    headers = dict(answer.headers)
    return (
        answer.status_code == HTTPStatus.OK
        and headers.get(b"content-type") in _RAW_STREAMS
        and b"transfer-encoding" not in headers
    )


async def _receive_answer(
    stream: trio.abc.Stream, connection: h11.Connection
) -> h11.Response | h11.InformationalResponse:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
        elif isinstance(event, h11.Response):
            return event
        elif isinstance(event, h11.InformationalResponse):
            if event.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                return event
        else:
            raise h11.RemoteProtocolError("the connection ended before the answer")


async def _receive_error(stream: trio.abc.Stream, connection: h11.Connection) -> str:
    content = bytearray()
    while len(content) < _MAX_ERROR_BYTES:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
        elif isinstance(event, h11.Data):
            content += event.data
        else:
            break
    return message_of(bytes(content))


def message_of(content: bytes) -> str:
    """Return what an answer of the engine says went wrong."""
    try:
        return str(json.loads(content)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace").strip() or "it does not say why"
