"""A session's streams with scripted endpoints, and links to them over good and bad networks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing

from relay.carrier import Carrier
from relay.client import Trunk, open_trunk
from relay.endpoint import Endpoint, Kind, SocketTarget, StartRequest
from relay.grant import Grant, Mode
from relay.host import StreamHost, open_stream_host
from relay.limits import StreamLimits
from relay.link import LinkEnd
from relay.memory import carrier_pair
from relay.server import ServerLink
from relay.stream import StreamStatistics
from tests.testing.endpoints import ManualSource, ScriptedEndpoint, exec_endpoint, pty_endpoint
from tests.testing.raw_peer import RawPeer, open_raw_peer

ALL = frozenset(Kind)
SMALL = StreamLimits(ring_bytes=128 * 1024, read_bytes=16 * 1024, input_window=32 * 1024)
"""The smallest ring there may be: what drops, drops soon."""


class Shell:
    """Starts terminals that the test writes to, and keeps them."""

    def __init__(self) -> None:
        self.sources: list[ManualSource] = []
        self.endpoints: list[ScriptedEndpoint] = []

    def __call__(self, request: StartRequest) -> Endpoint:
        source = ManualSource()
        endpoint = pty_endpoint(source) if request.kind is Kind.PTY else exec_endpoint(source)
        self.sources.append(source)
        self.endpoints.append(endpoint)
        return endpoint


@dataclass
class RelayWorld:
    """One session.  `start` decides what a request starts; `starts` keeps the requests."""

    host: StreamHost
    nursery: trio.Nursery
    starts: list[StartRequest]
    servers: list[ServerLink] = field(default_factory=list)
    ends: list[LinkEnd] = field(default_factory=list)

    def serve(self, carrier: Carrier, grant: Grant | None = None) -> ServerLink:
        """Serve a link in the background."""
        server = ServerLink(carrier, self.host, grant or self.grant(), "owner")
        self.servers.append(server)
        self.nursery.start_soon(self._serve, server)
        return server

    async def _serve(self, server: ServerLink) -> None:
        self.ends.append(await server.run())
        self.servers.remove(server)

    @staticmethod
    def grant(
        subject: str = "me",
        mode: Mode = Mode.CONTROL,
        tag: str | None = None,
        kinds: frozenset[Kind] = ALL,
        epoch: int = 0,
    ) -> Grant:
        return Grant("session", subject, kinds, mode, tag, epoch)

    @asynccontextmanager
    async def raw(self, grant: Grant | None = None) -> AsyncIterator[RawPeer]:
        """Open a link to a raw peer; when the block is left, the owner has noticed."""
        ours, theirs = carrier_pair()
        self.serve(theirs, grant)
        async with open_raw_peer(ours) as peer:
            yield peer
        await self.settle()

    @asynccontextmanager
    async def trunk(self, grant: Grant | None = None) -> AsyncIterator[Trunk]:
        """Open a trunk over a good network."""

        async def dial() -> Carrier:
            ours, theirs = carrier_pair()
            self.serve(theirs, grant)
            return ours

        async with open_trunk(dial, chance=lambda: 1.0) as trunk:
            yield trunk

    def stream(self, tag: str = "t") -> StreamStatistics:
        (found,) = (s for s in self.host.statistics() if s.tag == tag)
        return found

    async def settle(self) -> None:
        """Wait until everybody waits."""
        await trio.testing.wait_all_tasks_blocked()


Start = Callable[[StartRequest], Endpoint] | Callable[[StartRequest], Awaitable[Endpoint]]


@asynccontextmanager
async def open_world(
    start: Start, limits: StreamLimits | None = None, desktop: SocketTarget | None = None
) -> AsyncIterator[RelayWorld]:
    """Open a session.  Leaving the block ends it and checks that no link has failed."""
    starts: list[StartRequest] = []

    async def starter(request: StartRequest) -> Endpoint:
        starts.append(request)
        await trio.lowlevel.checkpoint()
        made = start(request)
        return made if isinstance(made, Endpoint) else await made

    async with (
        trio.open_nursery() as nursery,
        open_stream_host(starter, limits, desktop=desktop) as host,
    ):
        yield RelayWorld(host, nursery, starts)
        nursery.cancel_scope.cancel()
