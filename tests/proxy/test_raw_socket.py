"""Plain WebSockets to ports, and who is admitted, with the fake runtime's servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
import trio

from auth.keys import Keyring, generate_key
from auth.principal import Principal
from auth.tickets import TicketOffice
from proxy.admission import Admission
from proxy.raw_socket import SocketRoutes
from proxy.routes import RouteTables
from proxy.terminal import TerminalRoutes
from relay.endpoint import Kind, SocketTarget
from relay.grant import Grant, Mode
from relay.limits import StreamLimits
from relay.protocol.reasons import CloseReason
from relay.reactor import Reactor, open_reactor
from relay.socket_rules import SocketRules
from relay.websocket import Binary, Close, CloseCode, WebSocket
from runtimes.agent import Agent
from runtimes.base import HostedSession, SandboxSpec
from runtimes.fake import FakeRuntime
from runtimes.fake.runtime import FakeSandbox
from sessions.database import StoreError
from sessions.manager import CreateRequest
from sessions.profiles import Profile
from sessions.record import SessionRecord
from sessions.state import State
from tests.testing.api_world import FakeManager
from tests.testing.front_world import World as Front
from tests.testing.front_world import open_front
from tests.testing.websocket_pair import tcp_pair
from trunkline.sdk.websocket import HandshakeRefused, open_websocket

UNKNOWN = "550e8400-e29b-41d4-a716-446655440000"
OWNER = Principal("owner")
EVERYTHING = frozenset(Kind)

pytestmark = pytest.mark.timeout(60)


class OneManager(FakeManager):
    """Records of sessions that the test makes."""

    def find(self, session_id: str) -> SessionRecord | None:
        record = self.records.get(session_id)
        return None if record is None or record.ended else record


@dataclass
class Edge:
    """A front with the data plane's routes, and one session behind it."""

    front: Front
    manager: OneManager
    tickets: TicketOffice
    record: SessionRecord
    hosted: HostedSession
    now: list[datetime]

    def ticket(
        self,
        *kinds: Kind,
        mode: Mode = Mode.CONTROL,
        tag: str | None = None,
        ports: SocketRules | None = None,
        session_id: str = "",
    ) -> str:
        grant = Grant(
            session_id or self.record.session_id,
            "owner",
            frozenset(kinds) or EVERYTHING,
            mode,
            tag,
            ports=ports,
        )
        return self.tickets.issue(grant, ttl_seconds=60, uses=1).token

    def url(self, path: str, token: str | None = None, session_id: str = "") -> str:
        token = self.ticket() if token is None else token
        separator = "&" if "?" in path else "?"
        base = f"{self.front.ws_url}/v1/sessions/{session_id or self.record.session_id}"
        return f"{base}/{path}{separator}token={token}" if token else f"{base}/{path}"

    @asynccontextmanager
    async def connect(self, url: str, *subprotocols: str) -> AsyncIterator[WebSocket]:
        websocket, _ = await open_websocket(url, subprotocols=subprotocols)
        try:
            yield websocket
        finally:
            await websocket.aclose()

    async def refused(self, url: str, *subprotocols: str) -> tuple[int, str]:
        with pytest.raises(HandshakeRefused) as caught:
            await open_websocket(url, subprotocols=subprotocols)
        return caught.value.status, str(caught.value)


@asynccontextmanager
async def open_edge(
    limits: StreamLimits | None = None,
    *,
    reactor: Reactor | None = None,
) -> AsyncIterator[Edge]:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    manager = OneManager(lambda: now[0])
    record = await manager.create(OWNER, CreateRequest("default", 60))
    tickets = TicketOffice(Keyring([generate_key()]), clock=lambda: now[0])
    agent = Agent(FakeRuntime(grace=0.1), software="test", limits=limits)
    admission = Admission(manager, tickets)
    sockets = SocketRoutes(admission, manager, agent, reactor)
    routes = RouteTables(TerminalRoutes(admission, agent), sockets)
    async with (
        agent.open_session(SandboxSpec(record.session_id)) as hosted,
        open_front(routes=routes) as front,  # type: ignore[arg-type]  # any table of routes
    ):
        yield Edge(front, manager, tickets, record, hosted, now)


async def read(websocket: WebSocket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        message = await websocket.receive(merge=True)
        assert isinstance(message, Binary), message
        got += message.data
    return bytes(got)


async def test_binary_and_text_are_bytes() -> None:
    async with open_edge() as edge, edge.connect(edge.url("tcp/7")) as websocket:
        assert websocket.subprotocol is None
        await websocket.send_binary(b"\x00\xff")
        await websocket.send_text("é")
        assert await read(websocket, 4) == b"\x00\xff\xc3\xa9"


async def test_a_desktop_is_where_the_profile_says() -> None:
    async with open_edge() as edge:
        for path in ("vnc", "vnc?port=5900"):
            async with edge.connect(edge.url(path), "binary") as websocket:
                assert websocket.subprotocol == "binary"
                assert await read(websocket, 12) == b"RFB 003.008\n"
        edge.manager.profiles["default"] = Profile("default", vnc=SocketTarget(7))
        async with edge.connect(edge.url("vnc")) as websocket:
            await websocket.send_binary(b"an echo")
            assert await read(websocket, 7) == b"an echo"


async def test_what_is_wrong_with_a_request_costs_no_ticket() -> None:
    async with open_edge() as edge:
        token = edge.ticket()
        for path in ("tcp/0", "tcp/65536", "tcp/x", "tcp/+7", "vnc?port=0", "vnc?port=7&port=7"):
            assert (await edge.refused(edge.url(path, token)))[0] == 400
        assert (await edge.refused(edge.url("vnc?port=7&path=/x", token)))[0] == 400
        assert (await edge.refused(edge.url("tcp/7", token), "base64"))[0] == 400
        async with edge.connect(edge.url("tcp/7", token)):
            pass
        assert (await edge.refused(edge.url("tcp/7", token)))[0] == 401


async def test_refusals_have_a_status() -> None:
    async with open_edge(StreamLimits(max_streams=1)) as edge:
        status, text = await edge.refused(edge.url("tcp/8"))
        assert (status, "port 8: connection refused" in text) == (502, True)
        for token in (
            edge.ticket(Kind.PTY),
            edge.ticket(Kind.TCP, mode=Mode.VIEW),
            edge.ticket(Kind.TCP, ports=SocketRules.parse([8])),
        ):
            assert (await edge.refused(edge.url("tcp/7", token)))[0] == 403
        tagged = edge.ticket(Kind.TCP, tag="mine"), edge.ticket(Kind.TCP, tag="mine")
        async with edge.connect(edge.url("tcp/7", tagged[0])):
            assert (await edge.refused(edge.url("tcp/7", tagged[1])))[0] == 409  # busy
            assert (await edge.refused(edge.url("tcp/7")))[0] == 503
        edge.hosted.end(CloseReason.SESSION_ENDED)
        assert (await edge.refused(edge.url("tcp/7")))[0] == 409


async def test_who_is_admitted() -> None:
    async with open_edge() as edge:
        assert (await edge.refused(edge.url("tcp/7", "")))[0] == 401
        assert (await edge.refused(edge.url("tcp/7", "nonsense")))[0] == 401
        both = edge.url("tcp/7"), "binary", f"trunk.ticket.{edge.ticket()}"
        status, text = await edge.refused(*both)
        assert (status, "more than one ticket" in text) == (400, True)
        foreign = edge.ticket(session_id=UNKNOWN)
        assert (await edge.refused(edge.url("tcp/7", foreign)))[0] == 403
        status, text = await edge.refused(edge.url("tcp/7", foreign, UNKNOWN))
        assert (status, "no such session" in text) == (404, True)
        async with edge.connect(
            edge.url("tcp/7", ""), "binary", f"trunk.ticket.{edge.ticket()}"
        ) as websocket:
            assert websocket.subprotocol == "binary"
        late = edge.ticket()
        edge.now[0] += timedelta(minutes=2)
        assert (await edge.refused(edge.url("tcp/7", late)))[0] == 401


async def test_sessions_that_cannot_be_had() -> None:
    async with open_edge() as edge:
        session_id = edge.record.session_id
        edge.manager.records[session_id] = replace(
            edge.record, owner="somebody", state=State.TERMINATED
        )
        assert (await edge.refused(edge.url("tcp/7")))[0] == 403
        edge.manager.records[session_id] = replace(edge.record, state=State.TERMINATED)
        status, text = await edge.refused(edge.url("tcp/7"))
        assert (status, "terminated, not running" in text) == (409, True)
        edge.manager.error = StoreError("disk full")
        status, text = await edge.refused(edge.url("tcp/7"))
        assert (status, "disk full" in text) == (500, False)
        edge.manager.error = None


async def test_a_server_that_goes_away_says_so() -> None:
    async with open_edge() as edge, edge.connect(edge.url("tcp/7")) as websocket:
        edge.front.front.stop()
        assert await websocket.receive() is None
        close = websocket.peer_close
        assert close is not None
        assert (close.code, close.reason) == (CloseCode.GOING_AWAY, "draining")


async def test_a_server_that_went_away_before_the_connection_was_made_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that could be told when it happened did not include this one."""
    port, server = await tcp_pair()
    edges: list[Edge] = []

    async def connect(_: FakeSandbox, target: SocketTarget) -> trio.SocketStream:
        # Nobody holds a passage yet that `Agent.drain` has not reached; what follows has to see it.
        edges[0].front.front.stop()
        await trio.lowlevel.checkpoint()
        return port

    monkeypatch.setattr(FakeSandbox, "connect", connect)
    async with open_reactor() as reactor, open_edge(reactor=reactor) as edge:
        edges.append(edge)
        with trio.fail_after(10):
            async with edge.connect(edge.url("tcp/7")) as websocket:
                assert await websocket.receive() is None
                assert websocket.peer_close == Close(CloseCode.GOING_AWAY, "draining")
    await server.aclose()


async def test_a_stream_is_gone_when_its_client_is() -> None:
    async with open_edge() as edge:
        agent_streams = edge.hosted.streams  # type: ignore[attr-defined]  # the agent's own
        async with edge.connect(edge.url("tcp/7")) as websocket:
            await websocket.send_binary(b"x")
            await read(websocket, 1)
            (stream,) = agent_streams.statistics()
            assert (stream.kind, stream.tag[:4]) == (Kind.TCP, "tcp-")
        while agent_streams.statistics():
            await trio.sleep(0.01)


async def test_paths_that_are_none_of_ours() -> None:
    async with open_edge() as edge:
        for path in ("tcp", "tcp/", "tcp/7/8", "vnc/", "udp/7"):
            assert (await edge.refused(edge.url(path)))[0] == 404
