"""How a client and a port that were joined directly part, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from proxy.direct import join_directly
from relay.endpoint import Kind, SocketTarget
from relay.grant import Grant
from relay.passage import Passage, Passages
from relay.protocol.reasons import CloseReason
from relay.reactor import open_reactor
from relay.websocket import Role, WebSocket
from relay.websocket.frames import Close
from runtimes.base import OpenPassage
from tests.testing.websocket_pair import tcp_pair

pytestmark = pytest.mark.timeout(60)

GRANT = Grant("session", "somebody", frozenset({Kind.TCP}))


@dataclass
class Parting:
    """`client` talks to `server`; `over` is set when nobody joins them any more."""

    client: WebSocket
    server: trio.SocketStream
    passage: Passage
    over: trio.Event = field(default_factory=trio.Event)

    async def held_up(self) -> None:
        """Fill everything up to the port, which does not read."""
        while self.passage.statistics().input_waiting == 0:
            await self.client.send_binary(bytes(60_000))
            await trio.testing.wait_all_tasks_blocked(0.005)

    async def read_all(self) -> int:
        """Return how many bytes the server gets before the end."""
        total = 0
        async for data in self.server:
            total += len(data)
        return total


@asynccontextmanager
async def open_parting(*, room: int | None = None) -> AsyncIterator[Parting]:
    client_stream, websocket_stream = await tcp_pair()
    port, server = await tcp_pair()
    if room is not None:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    passage = Passages().open(GRANT, Kind.TCP, "tcp-1", SocketTarget(1))
    client = WebSocket(client_stream, Role.CLIENT, close_timeout=1.0)
    websocket = WebSocket(websocket_stream, Role.SERVER, close_timeout=1.0)
    parting = Parting(client, server, passage)

    async def join() -> None:
        try:
            await join_directly(reactor, websocket, OpenPassage(passage, port))
        finally:
            port.socket.close()
            parting.over.set()

    try:
        async with open_reactor() as reactor, trio.open_nursery() as nursery:
            nursery.start_soon(join)
            with trio.fail_after(30):
                yield parting
                await parting.over.wait()
    finally:
        for stream in (client_stream, websocket_stream, port, server):
            stream.socket.close()


async def test_a_server_that_goes_away_delivers_what_it_took() -> None:
    async with open_parting(room=4096) as parting:
        await parting.held_up()
        sent = parting.client.statistics().bytes_sent
        parting.passage.close(CloseReason.DRAINING)
        assert await parting.client.receive() is None
        assert parting.client.peer_close == Close(1001, "draining")
        assert await parting.read_all() == sent


@pytest.mark.parametrize("reason", [CloseReason.REVOKED, CloseReason.EXITED])
async def test_what_was_dropped_does_not_look_like_the_end(reason: CloseReason) -> None:
    async with open_parting(room=4096) as parting:
        await parting.held_up()
        parting.passage.close(reason)
        assert await parting.client.receive() is None
        await parting.over.wait()
        with pytest.raises(trio.BrokenResourceError):
            await parting.read_all()


async def test_a_revoked_connection_that_lost_nothing_ends_in_order() -> None:
    async with open_parting() as parting:
        await parting.client.send_binary(b"whole")
        assert await parting.server.receive_some(5) == b"whole"
        parting.passage.close(CloseReason.REVOKED)
        assert await parting.client.receive() is None
        assert parting.client.peer_close == Close(1008, "revoked")
        assert await parting.read_all() == 0


async def test_one_that_was_closed_before_it_began() -> None:
    async with open_parting() as parting:
        parting.passage.close(CloseReason.REVOKED)
        assert await parting.client.receive() is None
        assert parting.client.peer_close == Close(1008, "revoked")
