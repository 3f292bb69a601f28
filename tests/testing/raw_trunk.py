"""A trunk/1 client written from docs/spec/trunk-1.md alone: trio-websocket, struct and msgpack.

It sends what a test tells it to, right or wrong, and checks the form of everything that comes back.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgpack
import trio
import trio_websocket

HEADER = struct.Struct(">BBBBII")
TYPES = {
    "HELLO": 0x00,
    "DATA": 0x01,
    "CREDIT": 0x02,
    "GAP": 0x03,
    "FIN": 0x04,
    "ATTACH": 0x05,
    "ATTACHED": 0x06,
    "REFUSED": 0x07,
    "DETACH": 0x08,
    "CLOSED": 0x09,
    "EXIT": 0x0A,
    "RESIZE": 0x0B,
    "SIGNAL": 0x0C,
    "PING": 0x0D,
    "PONG": 0x0E,
    "GOAWAY": 0x0F,
    "STOP": 0x10,
    "SCREEN": 0x11,
}
NAMES = {number: name for name, number in TYPES.items()}
SECONDS = 20.0


def frame(
    name: str | int,
    fields: Mapping[str, Any] | bytes = b"",
    *,
    stream: int = 0,
    channel: int = 0,
    flags: int = 0,
) -> bytes:
    """Return a frame; `fields` become a msgpack map, bytes stay what they are."""
    payload = fields if isinstance(fields, bytes) else msgpack.packb(dict(fields))
    type_ = name if isinstance(name, int) else TYPES[name]
    return HEADER.pack(type_, flags, channel, 0, stream, len(payload)) + payload


def data_frame(stream: int, channel: int, offset: int, data: bytes) -> bytes:
    """Return a DATA frame."""
    return frame("DATA", struct.pack(">Q", offset) + data, stream=stream, channel=channel)


HELLO = frame("HELLO", {"version": 1, "software": "raw"})


@dataclass(frozen=True)
class Frame:
    """A frame that came."""

    name: str
    stream: int
    channel: int
    fields: dict[str, Any]
    offset: int = 0
    data: bytes = b""


@dataclass
class Closed(Exception):
    """The server closed the WebSocket."""

    code: int
    reason: str


@dataclass
class RawTrunk:
    """A link.  Made by `open_raw`."""

    websocket: trio_websocket.WebSocketConnection
    _frames: deque[Frame] = field(default_factory=deque)
    seen: list[Frame] = field(default_factory=list)
    """All that came."""

    async def send(self, *frames: bytes) -> None:
        """Send frames in one message."""
        await self.websocket.send_message(b"".join(frames))

    async def receive(self) -> Frame:
        """Return the next frame; a PING is answered on the way.

        Raises:
          Closed: there is none, because the server closed the WebSocket.
        """
        with trio.fail_after(SECONDS):
            while not self._frames:
                try:
                    message = await self.websocket.get_message()
                except trio_websocket.ConnectionClosed as error:
                    code = error.reason.code if error.reason else 1006
                    reason = (error.reason.reason or "") if error.reason else ""
                    raise Closed(code, reason) from None
                assert isinstance(message, bytes), "a text message"
                await self._split(message)
        return self._frames.popleft()

    async def _split(self, message: bytes) -> None:
        """Take a message apart: the sender puts whole frames into each."""
        while message:
            type_, flags, channel, zero, stream, length = HEADER.unpack_from(message)
            payload = message[HEADER.size : HEADER.size + length]
            assert len(payload) == length, "a frame that goes beyond its message"
            message = message[HEADER.size + length :]
            assert (flags, zero) == (0, 0)
            name = NAMES[type_]
            if name == "DATA":
                assert 8 < length <= 8 + (1 << 20)
                (offset,) = struct.unpack_from(">Q", payload)
                one = Frame(name, stream, channel, {}, offset, payload[8:])
            else:
                assert length <= 64 * 1024
                fields = msgpack.unpackb(payload, strict_map_key=False)
                assert isinstance(fields, dict)
                assert all(isinstance(key, str) for key in fields)
                one = Frame(name, stream, channel, fields)
            self.seen.append(one)
            if name == "PING":
                # The server may have closed since.
                with suppress(trio_websocket.ConnectionClosed):
                    await self.send(frame("PONG", one.fields))
            else:
                self._frames.append(one)

    async def expect(self, name: str) -> Frame:
        """Return the next frame of this name; others on the way may only be bytes and credit."""
        while (one := await self.receive()).name != name:
            assert one.name in {"DATA", "CREDIT", "FIN", "STOP", "PONG"}, f"{one} before {name}"
        return one

    async def attach(self, stream: int = 1, **request: Any) -> Frame:
        """Ask for a stream with all the credit one needs; return ATTACHED."""
        request = {
            "attachment": "raw-client-0123456789",
            "kind": "exec",
            "tag": "raw",
            "window": {1: 1 << 20, 2: 1 << 20},
        } | request
        await self.send(frame("ATTACH", request, stream=stream))
        return await self.expect("ATTACHED")

    async def read_output(self, stream: int, wanted: bytes) -> bytes:
        """Read output of `stream` until `wanted` is there; grants more as it comes."""
        output = b""
        while wanted not in output:
            one = await self.receive()
            if one.name == "DATA" and one.stream == stream and one.channel == 1:
                output += one.data
                end = one.offset + len(one.data)
                credit = {"ack": end, "up_to": end + (1 << 20)}
                await self.send(frame("CREDIT", credit, stream=stream, channel=1))
        return output

    async def wait_exit(self, stream: int = 1) -> dict[str, Any]:
        """Return what EXIT says, taking all output before it."""
        while (one := await self.receive()).name != "EXIT":
            if one.name == "DATA":
                end = one.offset + len(one.data)
                credit = frame(
                    "CREDIT",
                    {"ack": end, "up_to": end + (1 << 20)},
                    stream=stream,
                    channel=one.channel,
                )
                await self.send(credit)
        return one.fields

    async def wait_closed(self) -> tuple[Frame | None, Closed]:
        """Read to the end; return the GOAWAY, if there was one, and the close."""
        goaway = None
        try:
            while True:
                one = await self.receive()
                if one.name == "GOAWAY":
                    goaway = one
        except Closed as closed:
            return goaway, closed


@asynccontextmanager
async def open_raw(ws_url: str, token: str, *, greet: bool = True) -> AsyncIterator[RawTrunk]:
    """Open a link; `greet` exchanges HELLO.  At the end it is cut, without a word."""
    parts = urlsplit(ws_url)
    assert parts.hostname
    with trio.fail_after(SECONDS):
        stream = await trio.open_tcp_stream(parts.hostname, parts.port or 80)
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(SECONDS):
                websocket = await trio_websocket.wrap_client_stream(
                    nursery,
                    stream,
                    parts.netloc,
                    f"{parts.path}?token={token}",
                    subprotocols=["trunk.1"],
                    max_message_size=1 << 24,
                )
                assert websocket.subprotocol == "trunk.1"
                trunk = RawTrunk(websocket)
                if greet:
                    await trunk.send(HELLO)
                    hello = await trunk.receive()
                    assert hello.name == "HELLO"
                    assert hello.fields["version"] == 1
            yield trunk
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)
