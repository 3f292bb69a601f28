"""As much of gRPC and of protocol buffers as asking a container runtime on this machine needs.

One call has one connection: a request message, an answer message (gRPC over HTTP/2).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import h2.connection
import h2.events

CALL_SECONDS = 60.0

_Value = str | bytes | int | Sequence[str] | Sequence[bytes] | Sequence[int]


class CallError(Exception):
    """The other side says no, and why."""


def message(fields: Mapping[int, _Value]) -> bytes:
    """Encode a message: numbers, texts, messages already encoded, and lists of those."""
    return b"".join(_field(number, value) for number, value in fields.items())


def _field(number: int, value: _Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if not isinstance(value, str | bytes):
        return b"".join(_field(number, item) for item in value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def first_field(content: bytes) -> bytes:
    """Return the first field of a message, which must be a text or a message; empty: none."""
    if not content:
        return b""
    length, shift, position = 0, 0, 1
    while True:
        byte = content[position]
        length |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return content[position : position + length]


def call(path: Path, method: str, request: bytes) -> bytes:
    """Call `method` (``package.Service/Method``) of the server at a Unix socket.

    Raises:
      CallError: it refused.
      OSError: nobody answers there.
    """
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{method}",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    connection.send_headers(1, list(headers.items()))
    connection.send_data(1, struct.pack(">BI", 0, len(request)) + request, end_stream=True)
    answer = bytearray()
    trailers: dict[bytes, bytes] = {}
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(CALL_SECONDS)
        stream.connect(str(path))
        while True:
            stream.sendall(connection.data_to_send())
            data = stream.recv(65536)
            if not data:
                raise CallError(f"{method}: the connection ended")
            for event in connection.receive_data(data):
                match event:
                    case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                        trailers |= {bytes(name): bytes(text) for name, text in event.headers or ()}
                    case h2.events.DataReceived():
                        answer += event.data or b""
                    case h2.events.StreamEnded():
                        if trailers.get(b"grpc-status") != b"0":
                            reason = trailers.get(b"grpc-message", b"it does not say why")
                            raise CallError(f"{method}: {reason.decode()}")
                        return bytes(answer[5:])
                    case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                        raise CallError(f"{method}: {event}")
