"""A bridge between real sockets: a client's WebSocket on one side, whoever serves a port on the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from relay.reactor import Bridge, BridgeEnd, Reactor
from relay.websocket import Role, WebSocket
from tests.testing.websocket_pair import tcp_pair


@dataclass
class Joined:
    """`client` talks to `server` over `bridge`, which `run` runs."""

    client: WebSocket
    client_stream: trio.SocketStream
    server: trio.SocketStream
    bridge: Bridge
    websocket: WebSocket
    port: trio.SocketStream
    ended: trio.Event = field(default_factory=trio.Event)
    end: BridgeEnd | None = None

    async def run(self) -> None:
        self.end = await self.bridge.run()
        self.ended.set()

    async def wait_end(self) -> BridgeEnd:
        with trio.fail_after(20):
            await self.ended.wait()
        assert self.end is not None
        return self.end


@asynccontextmanager
async def open_joined(reactor: Reactor) -> AsyncIterator[Joined]:
    """Join a new client and a new server; everything is closed at the end."""
    client_stream, websocket_stream = await tcp_pair()
    port, server = await tcp_pair()
    client = WebSocket(client_stream, Role.CLIENT, close_timeout=1.0)
    websocket = WebSocket(websocket_stream, Role.SERVER, close_timeout=1.0)
    joined = Joined(
        client,
        client_stream,
        server,
        Bridge(reactor, websocket, port.socket),
        websocket,
        port,
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.run)
            yield joined
            nursery.cancel_scope.cancel()
    finally:
        for stream in (client_stream, websocket_stream, port, server):
            stream.socket.close()
