"""Small servers on real sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from relay.endpoint import SocketTarget

Serve = Callable[[trio.SocketStream], Awaitable[None]]

PIECE = 65536


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes, until it ends."""
    try:
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()
    except trio.BrokenResourceError:
        pass


async def discard(stream: trio.SocketStream) -> None:
    """Take everything, say nothing."""
    async for _ in stream:
        pass


async def flood(stream: trio.SocketStream) -> None:
    """Send for ever, read nothing."""
    try:
        while True:
            await stream.send_all(bytes(PIECE))
    except trio.BrokenResourceError:
        pass


def reset(stream: trio.SocketStream) -> None:
    """Let closing the socket send RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def open_server(
    serve: Serve, *, host: str = "127.0.0.1", path: str | None = None
) -> AsyncIterator[SocketTarget]:
    """Serve each connection with `serve`, on a free port or at `path`; give the target."""
    if path is not None:
        listening = trio.socket.socket(socket.AF_UNIX)
        await listening.bind(path)
    else:
        listening = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        await listening.bind((host, 0))
    listening.listen(128)
    target = SocketTarget(path=path) if path else SocketTarget(listening.getsockname()[1])

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await serve(stream)
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [trio.SocketListener(listening)])
        yield target
        nursery.cancel_scope.cancel()
