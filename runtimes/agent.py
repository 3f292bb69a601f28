"""The agent: the process next to the sandboxes that owns the streams and their replay buffers.

`trunkline serve` embeds one.  What it serves on a carrier is trunk/1, whoever is at the other end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from relay.carrier import Carrier
from relay.client import Trunk, open_trunk
from relay.endpoint import Kind, SocketTarget
from relay.errors import DialFailed
from relay.grant import Grant
from relay.host import StreamHost, open_stream_host
from relay.limits import StreamLimits
from relay.link import LinkEnd
from relay.memory import carrier_pair
from relay.protocol.budget import Budget, BudgetStatistics
from relay.protocol.reasons import CloseReason
from relay.server import ServerLink
from relay.service_nursery import open_service_nursery
from relay.stream import StreamStatistics
from runtimes.base import (
    HostedSession,
    OpenPassage,
    Runtime,
    Sandbox,
    SandboxError,
    SandboxSpec,
    SessionHost,
    UnknownSession,
)
from runtimes.desktop.sandbox import open_desktop

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AgentStatistics:
    """How many sessions and links an agent has, and the streams of each session."""

    sessions: int
    links: int
    budget: BudgetStatistics
    streams: dict[str, tuple[StreamStatistics, ...]]


class _Hosted(HostedSession):
    """One session on this agent."""

    def __init__(self, sandbox: Sandbox, streams: StreamHost) -> None:
        self.sandbox = sandbox
        self.streams = streams
        self.links: set[ServerLink] = set()
        self.ending: CloseReason | None = None

    def end(self, reason: CloseReason) -> None:
        """See `HostedSession`."""
        if self.sandbox.broken:
            reason = CloseReason.SESSION_ENDED  # whoever ends it may not know that nothing is left
        self.ending = reason
        self.streams.end(reason)
        for server in self.links:
            server.link.close(reason)

    async def pause(self) -> None:
        """See `HostedSession`."""
        await self.sandbox.pause()

    async def resume(self) -> None:
        """See `HostedSession`."""
        await self.sandbox.resume()

    def revoke(self, epoch: int) -> None:
        """See `HostedSession`."""
        self.streams.revoke(epoch)
        for server in self.links:
            if server.grant.epoch < epoch:
                server.link.close(CloseReason.REVOKED)


class Agent(SessionHost):
    """Hosts sessions in the sandboxes of one runtime."""

    def __init__(
        self, runtime: Runtime, *, software: str, limits: StreamLimits | None = None
    ) -> None:
        self._runtime = runtime
        self._software = software
        self._limits = limits or StreamLimits()
        self._budget = Budget(self._limits.budget_bytes)
        self._sessions: dict[str, _Hosted] = {}

    @property
    def runtime_name(self) -> str:
        """See `SessionHost`."""
        return self._runtime.name

    @property
    def isolated(self) -> bool:
        """See `SessionHost`."""
        return self._runtime.isolated

    def isolates(self, runtime: str) -> bool | None:
        """See `SessionHost`."""
        return self._runtime.isolates(runtime)

    def keeps_homes(self, runtime: str) -> bool:
        """See `SessionHost`."""
        return self._runtime.keeps_homes(runtime)

    async def remove_home(self, spec: SandboxSpec) -> None:
        """See `SessionHost`."""
        await self._runtime.remove_home(spec)

    async def end_lost(self, session_ids: Collection[str]) -> None:
        """See `SessionHost`."""
        await self._runtime.end_lost(session_ids)

    @asynccontextmanager
    async def open_session(self, spec: SandboxSpec) -> AsyncIterator[HostedSession]:
        """See `SessionHost`."""
        if spec.session_id in self._sessions:
            raise SandboxError(f"session {spec.session_id} is here already")
        async with (
            self._runtime.open_sandbox(spec) as bare,
            open_desktop(bare, spec) as sandbox,
            open_stream_host(sandbox.start, self._limits, self._budget, spec.vnc) as streams,
        ):
            hosted = self._sessions[spec.session_id] = _Hosted(sandbox, streams)
            try:
                yield hosted
            finally:
                hosted.end(hosted.ending or CloseReason.SESSION_ENDED)
                del self._sessions[spec.session_id]

    async def serve_link(
        self, carrier: Carrier, grant: Grant, *, client_returns: bool = True
    ) -> LinkEnd:
        """Serve trunk/1 on `carrier` for the session of `grant` until the link ends.

        `client_returns`: after a cut its attachments linger for their client to come back.

        Raises:
          UnknownSession: the session is not here (any more); the carrier is left open.

        Cancellation: closes the link at once, as a cut does.
        """
        hosted = self._hosted(grant.session_id)
        server = ServerLink(carrier, hosted.streams, grant, self._software, returns=client_returns)
        hosted.links.add(server)
        try:
            end = await server.run()
        finally:
            hosted.links.discard(server)
        # Those within the process come and go with requests, which are logged themselves.
        log = logger.info if client_returns else logger.debug
        log(
            "link ended",
            session=grant.session_id,
            subject=grant.subject,
            carrier=carrier.description,
            reason=end.reason,
            detail=end.message,
            by_peer=end.by_peer,
        )
        return end

    @asynccontextmanager
    async def open_trunk(self, grant: Grant) -> AsyncIterator[Trunk]:
        """See `SessionHost`; the trunk stays within this process.

        When the session ends, what is attached is closed with the session's reason.
        """
        self._hosted(grant.session_id)
        ours, agents = carrier_pair(f"in process, for {grant.subject}")
        dialled = False

        async def dial() -> Carrier:
            nonlocal dialled
            if dialled:
                raise DialFailed(
                    "the session has ended", permanent=True, reason=CloseReason.SESSION_ENDED
                )
            dialled = True
            return ours

        async with open_service_nursery() as nursery:
            nursery.start_soon(self._serve_trunk, agents, grant)
            async with open_trunk(dial, software=self._software) as trunk:
                yield trunk

    async def _serve_trunk(self, carrier: Carrier, grant: Grant) -> None:
        try:
            await self.serve_link(carrier, grant, client_returns=False)
        except UnknownSession:
            await carrier.aclose()

    @asynccontextmanager
    async def open_passage(
        self, grant: Grant, kind: Kind, tag: str, target: SocketTarget
    ) -> AsyncIterator[OpenPassage | None]:
        """See `SessionHost`."""
        hosted = self._hosted(grant.session_id)
        passage = hosted.streams.open_passage(grant, kind, tag, target)
        if passage is None:
            yield None
            return
        try:
            stream = await hosted.sandbox.connect(target)
            if stream is None:
                hosted.streams.close_passage(passage)
                yield None
                return
            try:
                yield OpenPassage(passage, stream)
            finally:
                stream.socket.close()
        finally:
            hosted.streams.close_passage(passage)

    def streams(self, session_id: str) -> tuple[StreamStatistics, ...]:
        """See `SessionHost`."""
        return self._hosted(session_id).streams.statistics()

    def send_signal(self, session_id: str, tag: str, name: str) -> None:
        """See `SessionHost`."""
        self._hosted(session_id).streams.send_signal(tag, name)

    def _hosted(self, session_id: str) -> _Hosted:
        hosted = self._sessions.get(session_id)
        if hosted is None or hosted.ending is not None:
            raise UnknownSession(f"session {session_id} is not running here")
        return hosted

    def drain(self, retry_after: float) -> None:
        """Tell every client to come back in `retry_after` seconds, here or elsewhere."""
        for hosted in self._sessions.values():
            hosted.streams.drain()
            for server in hosted.links:
                server.link.close(CloseReason.DRAINING, "the server is going away", retry_after)

    def statistics(self) -> AgentStatistics:
        """Return a snapshot."""
        return AgentStatistics(
            sessions=len(self._sessions),
            links=sum(len(hosted.links) for hosted in self._sessions.values()),
            budget=self._budget.statistics(),
            streams={id_: hosted.streams.statistics() for id_, hosted in self._sessions.items()},
        )
