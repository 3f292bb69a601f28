"""The load generator's half of WebSocket: blocking handshakes, and a reader of frames that only counts.

Written for the bench alone: it trusts its peer and does nothing that the measurement does not need.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from bench.pattern import Check

TIMEOUT = 10.0
"""Seconds for anything on a socket."""
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = base64.b64encode(b"trunkline-bench!").decode()
CLOSE_FRAME = b"\x88\x82\0\0\0\0\x03\xe8"
"""Masked with zeros, code 1000."""


@dataclass(frozen=True)
class Route:
    """Where clients of a relay connect to.

    `targets` are the paths and queries of requests, in turn: the one-use tickets of some relays.
    """

    port: int
    websocket: bool
    targets: tuple[str, ...] = ("/",)
    subprotocol: str | None = None
    uses: int = 1_000_000
    """How many connections each target is good for."""

    def target(self, number: int) -> str | None:
        """Return the target of a connection; None when there are no more."""
        index = number // self.uses
        return self.targets[index] if index < len(self.targets) else None


class StartFailed(Exception):
    """A subject did not start; the message says what it said."""


class HandshakeFailed(Exception):
    """The relay did not open the WebSocket."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def connect(route: Route, number: int = 0) -> tuple[socket.socket, bytes]:
    """Open a connection; return it and what came with the answer to the handshake."""
    sock = socket.create_connection(("127.0.0.1", route.port), timeout=TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return sock, _shake(sock, route, number) if route.websocket else b""
    except BaseException:
        sock.close()
        raise


def _shake(sock: socket.socket, route: Route, number: int) -> bytes:
    """Open the WebSocket; return what came with the answer."""
    target = route.target(number)
    if target is None:
        raise HandshakeFailed("no ticket is left")
    protocol = f"Sec-WebSocket-Protocol: {route.subprotocol}\r\n" if route.subprotocol else ""
    sock.sendall(
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{route.port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
        f"{protocol}\r\n".encode()
    )
    head, rest = read_head(sock)
    if not head.startswith(b"HTTP/1.1 101"):
        raise HandshakeFailed((head + rest)[:300].decode(errors="replace"))
    return rest


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """Read up to the empty line; return the head and what came after it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise HandshakeFailed(f"closed after {data[:200]!r}")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def answer(head: bytes) -> bytes:
    """Return the server's answer to the head of an opening handshake."""
    fields = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    digest = hashlib.sha1((fields["sec-websocket-key"] + GUID).encode()).digest()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n\r\n"
    ).encode()


class FrameReader:
    """Takes apart what a server sends and has payloads checked."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._rest = b""
        self._left = 0
        self._data = True
        self.closed = False

    @property
    def received(self) -> int:
        """Payload bytes so far."""
        return self._check.damage.received

    def feed(self, view: memoryview) -> None:
        """Take the next bytes."""
        if self._rest:
            view, self._rest = memoryview(self._rest + bytes(view)), b""
        at, end, check = 0, len(view), self._check.feed
        while at < end:
            if self._left:
                stop = min(end, at + self._left)
                if self._data:
                    check(view[at:stop])
                self._left -= stop - at
                at = stop
                continue
            length, head = frame_length(view[at : at + 10])
            if head == 0:
                self._rest = bytes(view[at:])
                return
            opcode = view[at] & 15
            self._data = opcode < 8
            self.closed |= opcode == 8
            at += head
            self._left = length


class RawReader:
    """The same for plain TCP."""

    closed = False

    def __init__(self, check: Check) -> None:
        self._check = check

    @property
    def received(self) -> int:
        """Bytes so far."""
        return self._check.damage.received

    def feed(self, view: memoryview) -> None:
        """Take the next bytes."""
        self._check.feed(view)


def frame_length(head: memoryview | bytes) -> tuple[int, int]:
    """Return how long a server's frame is, and its header; the latter is 0 if it is not whole."""
    size = len(head)
    if size < 2:
        return 0, 0
    length = head[1]
    if length < 126:
        return length, 2
    if length == 126:
        return (head[2] << 8 | head[3], 4) if size >= 4 else (0, 0)
    return (int.from_bytes(head[2:10], "big"), 10) if size >= 10 else (0, 0)


def messages(sock: socket.socket, rest: bytes) -> Iterator[bytes]:
    """Yield the data messages that a server sends, each in one frame."""
    data = bytearray(rest)
    while True:
        length, head = frame_length(bytes(data[:10]))
        while not head or len(data) < head + length:
            piece = sock.recv(256 * 1024)
            if not piece:
                return
            data += piece
            length, head = frame_length(bytes(data[:10]))
        if data[0] & 15 == 8:
            return
        if data[0] & 15 < 8:
            yield bytes(data[head : head + length])
        del data[: head + length]


def leave(socks: Sequence[socket.socket], *, websocket: bool) -> None:
    """Close in order: say so, and wait up to a second for the other sides to close as well."""
    for sock in socks:
        with suppress(OSError):
            sock.settimeout(1)
            if websocket:
                sock.sendall(CLOSE_FRAME)
            else:
                sock.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + 1
    for sock in socks:
        with sock, suppress(OSError):
            while (left := deadline - time.monotonic()) > 0:
                sock.settimeout(left)
                piece = sock.recv(65536)
                if not piece or (websocket and piece[0] == 0x88):
                    break
