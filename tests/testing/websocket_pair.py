"""Two ends of a WebSocket, on real sockets or in memory, after the handshake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from relay.websocket import Role, WebSocket


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return two connected TCP streams."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        host, port = listener.socket.getsockname()
        client = await trio.open_tcp_stream(host, port)
        return client, await listener.accept()


@asynccontextmanager
async def websocket_pair(
    *, tcp: bool = True, close_timeout: float = 5.0
) -> AsyncIterator[tuple[WebSocket, WebSocket]]:
    """Yield a client and a server; both are closed at the end."""
    ends = await tcp_pair() if tcp else trio.testing.memory_stream_pair()
    client = WebSocket(ends[0], Role.CLIENT, close_timeout=close_timeout)
    server = WebSocket(ends[1], Role.SERVER, close_timeout=close_timeout)
    try:
        yield client, server
    finally:
        for end in ends:
            await trio.aclose_forcefully(end)


@asynccontextmanager
async def raw_peer(
    role: Role, *, close_timeout: float = 5.0, max_text_bytes: int = 1 << 20
) -> AsyncIterator[tuple[WebSocket, trio.SocketStream]]:
    """Yield a WebSocket and the bare TCP stream of its peer."""
    ours, theirs = await tcp_pair()
    websocket = WebSocket(ours, role, close_timeout=close_timeout, max_text_bytes=max_text_bytes)
    try:
        yield websocket, theirs
    finally:
        await trio.aclose_forcefully(ours)
        await trio.aclose_forcefully(theirs)
