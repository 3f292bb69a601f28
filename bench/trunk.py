"""The load generator's clients that speak trunk/1: with the SDK, as Trunkline's users do."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

import trio

import trunkline
from bench.loadgen import PIECE, Moved, image, terminal_image
from bench.pattern import PERIOD, Check, pattern
from trunkline import Kind, Output

MESSAGE = b"0123456789abcdef"
LIMIT = 25.0
"""Seconds for any of these."""


@dataclass(frozen=True)
class Where:
    """A session of a server."""

    url: str
    token: str
    session: str


async def _pace(take: Callable[[], Awaitable[bytes | None]], check: Check, expected: int) -> Moved:
    first: float | None = None
    while check.damage.received < expected and (data := await take()):
        if first is None:
            first = time.perf_counter()
        check.feed(data)
    seconds = time.perf_counter() - first if first is not None else 0.0
    return Moved(max(seconds, 1e-6), check.finish(expected))


@asynccontextmanager
async def _session(where: Where) -> AsyncIterator[trunkline.Session]:
    with trio.fail_after(LIMIT):
        async with trunkline.open_client(where.url, where.token) as client:
            yield client.session(where.session)


def _taker(attachment: trunkline.ClientAttachment) -> Callable[[], Awaitable[bytes | None]]:
    async def take() -> bytes | None:
        while (item := await attachment.receive()) is not None:
            if isinstance(item, Output):
                return item.data
        return None

    return take


def terminal(_: Connection, where: Where, path: str, expected: int) -> Moved:
    """Read a terminal on which `cat` shows a file."""

    async def main() -> Moved:
        async with _session(where) as session, session.connect() as connection:
            attachment = await connection.terminal("flood", command=["cat", path], restart=True)
            return await _pace(_taker(attachment), Check(terminal_image()), expected)

    return trio.run(main)


def command(_: Connection, where: Where, path: str, expected: int) -> Moved:
    """Read a file from `cat`."""

    async def main() -> Moved:
        async with _session(where) as session, session.connect() as connection:
            attachment = await connection.exec(["cat", path])
            return await _pace(_taker(attachment), Check(image(65536, None, False)), expected)

    return trio.run(main)


def receive(_: Connection, where: Where, port: int, expected: int) -> Moved:
    """Receive from a port of the session."""

    async def main() -> Moved:
        async with _session(where) as session, session.connect(ports=[port]) as connection:
            stream = await connection.open_port(port)
            check = Check(image(65536, None, False))
            moved = await _pace(stream.receive_some, check, expected)
            await stream.aclose()
            return moved

    return trio.run(main)


def send(_: Connection, where: Where, port: int, size: int) -> None:
    """Send to a port of the session."""

    async def main() -> None:
        view = memoryview(pattern())
        async with _session(where) as session, session.connect(ports=[port]) as connection:
            stream = await connection.open_port(port)
            for at in range(0, size, PERIOD):
                whole = view[: min(PERIOD, size - at)]
                for start in range(0, len(whole), PIECE):
                    await stream.send_all(whole[start : start + PIECE])
            await stream.aclose()

    trio.run(main)


def attaches(_: Connection, where: Where, port: int, seconds: float) -> float:
    """Return how often per second: ticket, link, attach, one echo, close; one after the other."""

    async def main() -> float:
        done = 0
        async with _session(where) as session:
            began = time.perf_counter()
            while time.perf_counter() - began < seconds:
                async with session.connect(kinds=frozenset({Kind.TCP}), ports=[port]) as connection:
                    stream = await connection.open_port(port)
                    await _echo(stream)
                    await stream.aclose()
                done += 1
            return done / (time.perf_counter() - began)

    return trio.run(main)


async def _echo(stream: trio.abc.Stream) -> None:
    await stream.send_all(MESSAGE)
    got = b""
    while len(got) < len(MESSAGE):
        piece = await stream.receive_some()
        if not piece:
            raise EOFError("the echo ended")
        got += piece
    assert got == MESSAGE


def start_up(_: Connection, where: Where) -> tuple[float, float]:
    """Return the seconds to make a session, and from asking for it to the first byte of a command."""

    async def main() -> tuple[float, float]:
        with trio.fail_after(LIMIT):
            async with trunkline.open_client(where.url, where.token) as client:
                await client.sessions()  # connected
                began = time.perf_counter()
                session = await client.create_session()
                made = time.perf_counter() - began
                async with session.connect() as connection:
                    process = await connection.exec(["echo", "x"])
                    await process.receive()
                    first = time.perf_counter() - began
                await session.delete()
                return made, first

    return trio.run(main)


def resume(_: Connection, where: Where, line_port: int, port: int, delay: float) -> float:
    """Return the seconds from a cut to the first byte after it, over a line with a `delay` each way.

    The line begins at `line_port`.
    """

    async def main() -> float:
        target = urlsplit(where.url).port or 80
        async with trio.open_nursery() as nursery:
            line = _Line(target, delay)
            serve = partial(trio.serve_tcp, line.carry, line_port, host="127.0.0.1")
            await nursery.start(serve)
            far = Where(f"http://127.0.0.1:{line_port}", where.token, where.session)
            async with (
                _session(far) as session,
                session.connect(ports=[port]) as connection,
            ):
                stream = await connection.open_port(port)
                await _echo(stream)
                await trio.sleep(4 * delay)
                began = time.perf_counter()
                line.cut()
                await _echo(stream)
                took = time.perf_counter() - began
                await stream.aclose()
            nursery.cancel_scope.cancel()
            return took

    return trio.run(main)


class _Line:
    """A line to `port` with a delay each way, that can be cut."""

    def __init__(self, port: int, delay: float) -> None:
        self._port = port
        self._delay = delay
        self._open: set[tuple[trio.SocketStream, trio.SocketStream, trio.CancelScope]] = set()

    def cut(self) -> None:
        """Reset every connection there is."""
        for near, far, scope in self._open:
            for stream in (near, far):
                # Closing sends RST.
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            scope.cancel()

    async def carry(self, near: trio.SocketStream) -> None:
        """Carry one connection."""
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as far:
            await trio.sleep(2 * self._delay)  # the connection itself takes a round trip
            with trio.CancelScope() as scope:
                ends = (near, far, scope)
                self._open.add(ends)
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._one_way, near, far)
                        nursery.start_soon(self._one_way, far, near)
                except* (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # one side left
                finally:
                    self._open.discard(ends)

    async def _one_way(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        sending, receiving = trio.open_memory_channel[tuple[float, bytes]](1024)

        async def late() -> None:
            async for at, data in receiving:
                await trio.sleep_until(at)
                await sink.send_all(data)
            await sink.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(late)
            async with sending:
                while data := await source.receive_some(65536):
                    await sending.send((trio.current_time() + self._delay, data))
