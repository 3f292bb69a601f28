"""Connections to ports among the streams of a session: who may, and what becomes of lost ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import trio
import trio.testing

from relay.endpoint import Channel, Endpoint, Kind, StartRequest
from relay.grant import Grant
from relay.limits import StreamLimits
from relay.protocol.messages import Resume, Start
from relay.protocol.reasons import Refusal
from relay.socket_rules import SocketRules
from tests.testing.relay_world import SMALL, RelayWorld, open_world
from tests.testing.stream_endpoint import StreamEndpoint

WEB = Start(port=8080)
OTHER = "attachment-of-another"


@dataclass
class Network:
    """Where every port leads to."""

    endpoints: list[StreamEndpoint] = field(default_factory=list)

    def __call__(self, request: StartRequest) -> Endpoint:
        endpoint = StreamEndpoint(trio.testing.memory_stream_pair()[0])
        self.endpoints.append(endpoint)
        return endpoint


def narrow(*ports: object) -> Grant:
    return replace(RelayWorld.grant(), ports=SocketRules.parse(ports))


@pytest.mark.parametrize("kind", [Kind.TCP, Kind.VNC])
async def test_a_ticket_for_some_ports(kind: Kind, autojump_clock: object) -> None:
    async with (
        open_world(Network()) as world,
        world.raw(narrow(8080, "3000-3999", "/run/vnc")) as peer,
    ):
        for tag, start in (("a", WEB), ("b", Start(port=3001)), ("c", Start(path="/run/vnc"))):
            await peer.attach(tag, kind, start=start)
        for start in (Start(port=22), Start(path="/run/docker.sock"), Start(port=4000)):
            refused = await peer.refused("d", kind, start=start)
            assert refused.code is Refusal.FORBIDDEN
            assert f"{kind} to {'port' if start.port else 'socket'}" in refused.message
            assert "it covers 3000-3999, 8080, /run/vnc" in refused.message
    assert len(world.starts) == 3


async def test_it_does_not_let_in_by_the_tag_either(autojump_clock: object) -> None:
    """The port counts whenever somebody attaches, not only for who opens it."""
    async with (
        open_world(Network()) as world,
        world.raw() as owner,
        world.raw(narrow(22)) as other,
    ):
        stream, answer = await owner.attach("web", Kind.TCP, start=WEB)
        resume = Resume(stream=answer.stream, have={Channel.OUTPUT: 0})
        for fields in ({}, {"takeover": True}, {"attachment": OTHER}, {"resume": resume}):
            refused = await other.refused("web", Kind.TCP, **fields)
            assert refused.code is Refusal.FORBIDDEN
        await owner.input(stream, 0, b"still mine")


async def test_a_ticket_for_no_port_opens_other_kinds(autojump_clock: object) -> None:
    async with open_world(Network()) as world, world.raw(narrow()) as peer:
        assert (await peer.refused("a", Kind.TCP, start=WEB)).code is Refusal.FORBIDDEN
        await peer.attach("b", Kind.EXEC, start=Start())


@pytest.mark.parametrize("start", [Start(), Start(port=1, path="/x")])
async def test_there_is_one_target(start: Start, autojump_clock: object) -> None:
    async with open_world(Network()) as world, world.raw() as peer:
        refused = await peer.refused("a", Kind.TCP, start=start)
        assert refused.code is Refusal.BAD_REQUEST
        assert "either a port or a path" in refused.message
    assert world.starts == []


async def test_a_tag_leads_to_one_target(autojump_clock: object) -> None:
    async with open_world(Network()) as world, world.raw() as peer:
        await peer.attach("web", Kind.TCP, start=WEB)
        refused = await peer.refused("web", Kind.TCP, attachment=OTHER, start=Start(port=22))
        assert (refused.code, refused.message) == (Refusal.CONFLICT, "'web' leads to port 8080")
        busy = await peer.refused("web", Kind.TCP, attachment=OTHER, start=WEB)
        assert busy.code is Refusal.BUSY


async def test_connections_that_lost_their_clients_make_place(autojump_clock: object) -> None:
    network = Network()
    limits = StreamLimits(max_streams=2, linger=30, connection_linger=600)
    async with open_world(network, limits) as world, world.raw() as stays:
        for tag in ("first", "second"):
            async with world.raw() as leaves:
                await leaves.attach(tag, Kind.TCP, start=WEB, attachment=f"attachment-{tag}-lost")
            await trio.sleep(1)
        refused = await stays.refused("third", Kind.TCP, start=WEB)
        assert refused.code is Refusal.LIMIT
        await trio.sleep(28.5)  # the first has been away for longer than 30 s, the second has not
        await stays.attach("third", Kind.TCP, start=WEB)
        assert [endpoint.signals for endpoint in network.endpoints] == [["HUP"], [], []]
        assert {stream.tag for stream in world.host.statistics()} == {"second", "third"}
        assert (await stays.refused("fourth", Kind.TCP, start=WEB)).code is Refusal.LIMIT


async def test_one_who_comes_back_finds_it(autojump_clock: object) -> None:
    network = Network()
    async with open_world(network, SMALL) as world:
        async with world.raw() as peer:
            _, answer = await peer.attach("web", Kind.TCP, start=WEB)
        await trio.sleep(SMALL.connection_linger - 1)
        async with world.raw() as peer:
            _, again = await peer.resume(answer, {Channel.OUTPUT: 0})
            assert again.resumed
            await trio.sleep(SMALL.connection_linger + 1)
            assert network.endpoints[0].signals == []
