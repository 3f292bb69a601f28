"""The load generator: what its processes do.

Two of them face each other with a relay between: one is behind the relay (`source`, `sink`, `echo`,
`flood`), the other is the relay's client.  They share no memory and no interpreter with the relay or with
one another.  Sockets block; only where there are several is there a loop (epoll).  All that is sent was
built before, and every byte that is received is compared (see `bench.pattern`).
"""

from __future__ import annotations

import select
import selectors
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

from bench.pattern import MASK, PERIOD, Check, Damage, Image, frames, lines, pattern
from bench.wire import TIMEOUT, FrameReader, RawReader, Route, answer, connect, leave, read_head

PIECE = 256 * 1024
"""The most that is sent or received at once."""

_listeners: dict[bool, socket.socket] = {}
_held: list[socket.socket] = []


@dataclass(frozen=True)
class Load:
    """What is moved: `bytes_each` of payload on each of `connections`, in writes or frames of `size`."""

    connections: int
    size: int
    bytes_each: int
    stalled: int = 0
    """How many of the connections never read."""


@dataclass(frozen=True)
class Moved:
    """What one side saw.  `seconds` go from the first byte that came to the last."""

    seconds: float
    damage: Damage
    shares: tuple[int, ...] = ()
    """What each connection had got when the first was done."""


@lru_cache(maxsize=16)
def image(size: int, mask: bytes | None, framed: bool) -> Image:
    """Return the image of a direction: the pattern, in frames or bare."""
    return Image(frames(pattern(), size, mask) if framed else pattern())


@lru_cache(maxsize=2)
def terminal_image() -> Image:
    """Return the image of numbered lines as a terminal shows them: CR LF."""
    return Image(lines().replace(b"\n", b"\r\n"))


# Behind the relay -----------------------------------------------------------------------------------


def listen(_: Connection) -> tuple[int, int]:
    """Open the two ports behind all relays: one for TCP, one for relays that keep WebSocket."""
    for websocket in (False, True):
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listener.settimeout(TIMEOUT)
        _listeners[websocket] = listener
    return _listeners[False].getsockname()[1], _listeners[True].getsockname()[1]


def forget(_: Connection) -> None:
    """Close connections that came too late for an earlier measurement."""
    for listener in _listeners.values():
        listener.setblocking(False)
        try:
            while True:
                listener.accept()[0].close()
        except BlockingIOError:
            pass
        listener.settimeout(TIMEOUT)


class Stopped(Exception):
    """The measurement was given up meanwhile."""


def accept(control: Connection, websocket: bool, count: int) -> list[socket.socket]:
    """Take the next connections that come.

    Raises:
      Stopped: told to stop before they had.
      TimeoutError: they did not come.
    """
    accepted = []
    listener = _listeners[websocket]
    for _ in range(count):
        ready, _, _ = select.select([listener.fileno(), control.fileno()], [], [], TIMEOUT)
        if listener.fileno() not in ready:
            raise Stopped if ready else TimeoutError("the relay did not connect")
        sock, _address = listener.accept()
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if websocket:
            sock.sendall(answer(read_head(sock)[0]))
        accepted.append(sock)
    return accepted


def source(control: Connection, websocket: bool, load: Load) -> None:
    """Send the pattern on every connection, one write for each `size` bytes, then end it."""
    socks = accept(control, websocket, load.connections)
    pieces = _pieces(load.size, framed=websocket, mask=None, size=load.size)
    _send_all(control, socks, pieces, load.bytes_each // load.size)
    leave(socks, websocket=False)


def sink(control: Connection, websocket: bool, load: Load) -> Moved:
    """Receive what a client sends on every connection."""
    socks = accept(control, websocket, load.connections)
    whole = image(load.size, MASK if websocket else None, websocket)
    expected = load.bytes_each * whole.size // PERIOD
    most = expected if websocket else sys.maxsize
    checks = [Check(whole) for _ in socks]
    readers = [RawReader(check) for check in checks]
    moved = _receive_all(socks, readers, checks, [b""] * len(socks), expected, most)
    for sock in socks:
        sock.close()
    return moved


def flood(control: Connection, websocket: bool, total: int) -> int:
    """Send to one connection whose reader may stall, until told to stop; return what was taken."""
    (sock,) = accept(control, websocket, 1)
    sent = 0
    piece = bytes(64 * 1024)
    with sock:
        sock.settimeout(0.1)
        while sent < total and not control.poll():
            try:
                sent += sock.send(piece)
            except TimeoutError:
                continue
    return sent


def echo(control: Connection) -> None:
    """Send back what comes, on both ports, until told to stop."""
    with selectors.DefaultSelector() as selector:
        selector.register(control.fileno(), selectors.EVENT_READ)
        for websocket, listener in _listeners.items():
            selector.register(listener, selectors.EVENT_READ, websocket)
        open_now: dict[socket.socket, bool] = {}
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    for sock in open_now:
                        sock.close()
                    return
                found = key.fileobj
                assert isinstance(found, socket.socket)
                if found in _listeners.values():
                    sock, _address = found.accept()
                    sock.settimeout(TIMEOUT)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(sock, selectors.EVENT_READ, key.data)
                    open_now[sock] = False
                elif not _echo_once(found, open_now, websocket=key.data):
                    selector.unregister(found)
                    del open_now[found]
                    found.close()


def _echo_once(sock: socket.socket, greeted: dict[socket.socket, bool], *, websocket: bool) -> bool:
    try:
        data = sock.recv(65536)
        if not data:
            return False
        if not websocket:
            sock.sendall(data)
        elif not greeted[sock]:
            greeted[sock] = True
            sock.sendall(answer(data))
        elif data[0] == 0x88:
            sock.sendall(b"\x88\x00")
            return False
        else:
            # Small frames under a mask of zeros: whole ones come and go.
            at, out = 0, b""
            while at < len(data):
                length = data[at + 1] & 127
                out += bytes((0x82, length)) + data[at + 6 : at + 6 + length]
                at += 6 + length
            sock.sendall(out)
    except OSError:
        return False
    return True


# The relay's client ---------------------------------------------------------------------------------


def receive(control: Connection, route: Route, load: Load) -> Moved:
    """Connect and receive what `source` sends."""
    socks, rests = _connect_all(route, load.connections)
    # A relay that keeps WebSocket passes frames on; others make their own.
    checks = [Check(image(load.size, None, False)) for _ in socks]
    readers = [FrameReader(check) if route.websocket else RawReader(check) for check in checks]
    readers, checks, reading = (
        readers[load.stalled :],
        checks[load.stalled :],
        socks[load.stalled :],
    )
    moved = _receive_all(reading, readers, checks, rests[load.stalled :], load.bytes_each)
    for sock in socks[: load.stalled]:
        sock.close()
    leave(reading, websocket=route.websocket)
    return moved


def send(control: Connection, route: Route, load: Load) -> None:
    """Connect and send to `sink`, as fast as it goes: frames of `size` bytes back to back."""
    socks, _ = _connect_all(route, load.connections)
    whole = load.bytes_each // PERIOD
    pieces = _pieces(load.size, framed=route.websocket, mask=MASK, size=PERIOD)
    _send_all(control, socks, pieces, whole * len(pieces))
    rest = load.bytes_each - whole * PERIOD
    if rest:
        wire = image(load.size, MASK if route.websocket else None, route.websocket)
        tail = wire.bytes[: rest * wire.size // PERIOD]
        for sock in socks:
            sock.settimeout(TIMEOUT)
            sock.sendall(tail)
    leave(socks, websocket=route.websocket)


def hold(_: Connection, routes: Sequence[Route], each: int) -> int:
    """Open connections and keep them, unread; return how many there are."""
    for route in routes:
        _held.extend(_connect_all(route, each)[0])
    return len(_held)


def release(_: Connection) -> None:
    """Close what `hold` opened."""
    while _held:
        _held.pop().close()


# Both ends ------------------------------------------------------------------------------------------


def _connect_all(route: Route, count: int) -> tuple[list[socket.socket], list[bytes]]:
    opened = [connect(route, number) for number in range(count)]
    return [sock for sock, _ in opened], [rest for _, rest in opened]


def _pieces(frame: int, *, framed: bool, mask: bytes | None, size: int) -> list[memoryview]:
    """Return one period cut into writes: of `size` bytes of payload each, at most `PIECE` or so."""
    whole = image(frame, mask if framed else None, framed)
    step = min(size, PIECE) * whole.size // PERIOD
    period = memoryview(whole.bytes)[: whole.size]
    return [period[at : at + step] for at in range(0, whole.size, step)]


def _send_all(
    control: Connection, socks: list[socket.socket], pieces: list[memoryview], writes: int
) -> None:
    if len(socks) == 1:
        (sock,) = socks
        sendall, count = sock.sendall, len(pieces)
        for number in range(writes):
            sendall(pieces[number % count])
        return
    with selectors.DefaultSelector() as selector:
        for sock in socks:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_WRITE, _sending(sock, pieces, writes))
        while selector.get_map():
            ready = selector.select(0.1)
            if not ready and control.poll():
                return  # some are stalled on purpose
            for key, _ in ready:
                if next(key.data, True):
                    selector.unregister(key.fileobj)


def _sending(sock: socket.socket, pieces: list[memoryview], writes: int) -> Iterator[bool]:
    """Send as long as the socket takes it, up to 16 writes at a time; yield False in between."""
    turns = 0
    for number in range(writes):
        piece = pieces[number % len(pieces)]
        while piece:
            try:
                piece = piece[sock.send(piece) :]
            except BlockingIOError:
                turns = 0
                yield False
        turns += 1
        if turns == 16:
            turns = 0
            yield False


def _receive_all(
    socks: list[socket.socket],
    readers: Sequence[Any],
    checks: list[Check],
    rests: list[bytes],
    expected: int,
    most: int = sys.maxsize,
) -> Moved:
    """Receive until every connection has `expected` bytes or ends; compare all of it.

    What comes beyond `most` bytes is no payload: the close of a client whose WebSocket the relay keeps.
    """
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    first: float | None = None
    shares: tuple[int, ...] = ()
    for reader, rest in zip(readers, rests, strict=True):
        if rest:
            first = time.perf_counter()
            reader.feed(memoryview(rest))
    if len(socks) == 1:
        (sock,), (reader,) = socks, readers
        while reader.received < expected and not reader.closed:
            count = sock.recv_into(buffer)
            if first is None:
                first = time.perf_counter()
            if not count:
                break
            reader.feed(view[: min(count, most - reader.received)])
    else:
        with selectors.DefaultSelector() as selector:
            for sock, reader in zip(socks, readers, strict=True):
                selector.register(sock, selectors.EVENT_READ, reader)
            while selector.get_map():
                ready = selector.select(TIMEOUT)
                if not ready:
                    raise TimeoutError("nothing has come for too long")
                for key, _ in ready:
                    found = key.fileobj
                    assert isinstance(found, socket.socket)
                    count = found.recv_into(buffer)
                    if first is None:
                        first = time.perf_counter()
                    key.data.feed(view[: min(count, most - key.data.received)])
                    if not count or key.data.received >= expected or key.data.closed:
                        selector.unregister(found)
                        shares = shares or tuple(reader.received for reader in readers)
    seconds = time.perf_counter() - (first or time.perf_counter())
    damage = Damage()
    for check in checks:
        damage.add(check.finish(expected))
    return Moved(max(seconds, 1e-6), damage, shares)
