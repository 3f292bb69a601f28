"""Connections to the session's desktop: where they lead, and what a ticket to view covers."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio.testing

from relay.endpoint import Endpoint, InputRefusedError, Kind, SocketTarget, StartRequest
from relay.grant import Grant, Mode
from relay.protocol.messages import Closed, Start
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason, Refusal
from tests.testing.relay_world import RelayWorld, open_world
from tests.testing.stream_endpoint import StreamEndpoint

DESKTOP = SocketTarget(path="/run/vnc.sock")
HERE = Start(path="/run/vnc.sock")
UNNAMED = Start()
OTHER = "attachment-of-another"


@dataclass
class Network:
    """Where every connection leads to."""

    endpoints: list[StreamEndpoint] = field(default_factory=list)

    def __call__(self, request: StartRequest) -> Endpoint:
        endpoint = StreamEndpoint(trio.testing.memory_stream_pair()[0])
        self.endpoints.append(endpoint)
        return endpoint


def viewer() -> Grant:
    return RelayWorld.grant(mode=Mode.VIEW, subject="viewer")


async def test_it_leads_to_the_desktop_if_the_request_does_not_say(autojump_clock: object) -> None:
    async with open_world(Network(), desktop=DESKTOP) as world, world.raw() as peer:
        await peer.attach("a", Kind.VNC, start=UNNAMED)
        await peer.attach("b", Kind.VNC, start=HERE)
        refused = await peer.refused("c", Kind.TCP, start=UNNAMED)
        assert refused.code is Refusal.BAD_REQUEST
    assert [request.socket for request in world.starts] == [DESKTOP, DESKTOP]
    assert not any(request.view_only for request in world.starts)


async def test_where_there_is_none_the_request_has_to_say(autojump_clock: object) -> None:
    async with open_world(Network()) as world, world.raw() as peer:
        refused = await peer.refused("a", Kind.VNC, start=UNNAMED)
        assert refused.code is Refusal.BAD_REQUEST
    assert world.starts == []


async def test_a_ticket_to_view_opens_connections_for_viewing(autojump_clock: object) -> None:
    async with open_world(Network(), desktop=DESKTOP) as world, world.raw(viewer()) as peer:
        for tag, policy in (("a", None), ("b", Policy.PACE)):
            _, answer = await peer.attach(tag, Kind.VNC, start=UNNAMED, policy=policy)
            assert answer.mode is Mode.CONTROL
            assert answer.credit > 0  # it may send, as RFB needs it
    assert [request.view_only for request in world.starts] == [True, True]


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        (Kind.VNC, Start(port=22)),
        (Kind.VNC, Start(path="/run/docker.sock")),
        (Kind.TCP, Start(port=8080)),
        (Kind.TCP, HERE),
        (Kind.PTY, UNNAMED),
        (Kind.EXEC, Start(command=["true"])),
    ],
)
async def test_and_nothing_else(kind: Kind, start: Start, autojump_clock: object) -> None:
    async with open_world(Network(), desktop=DESKTOP) as world, world.raw(viewer()) as peer:
        refused = await peer.refused("a", kind, start=start)
        assert refused.code is Refusal.FORBIDDEN
    assert world.starts == []


@pytest.mark.parametrize("takeover", [False, True])
async def test_a_viewer_does_not_get_the_connection_of_one_in_control(
    takeover: bool, autojump_clock: object
) -> None:
    async with (
        open_world(Network(), desktop=DESKTOP) as world,
        world.raw() as owner,
        world.raw(viewer()) as peer,
    ):
        await owner.attach("desk", Kind.VNC, start=UNNAMED)
        for start in (UNNAMED, None):
            refused = await peer.refused(
                "desk", Kind.VNC, start=start, attachment=OTHER, takeover=takeover
            )
            assert refused.code is Refusal.FORBIDDEN
            assert "open another" in refused.message
        assert world.stream("desk").attachments[0].subject == "me"


async def test_a_viewer_has_no_direct_connection(autojump_clock: object) -> None:
    """There everything would pass: it has to be a stream, whose input is looked at."""
    async with open_world(Network(), desktop=DESKTOP) as world:
        assert world.host.open_passage(viewer(), Kind.VNC, "a", DESKTOP) is None
        passage = world.host.open_passage(RelayWorld.grant(), Kind.VNC, "a", DESKTOP)
        assert passage is not None
        world.host.close_passage(passage)


class Refusing(StreamEndpoint):
    """Takes no input that begins with "!"."""

    async def send(self, data: object) -> None:
        if bytes(data).startswith(b"!"):  # type: ignore[call-overload]  # a buffer
            raise InputRefusedError("there is no message of type 33")
        await super().send(data)  # type: ignore[arg-type]  # a buffer


async def test_input_that_is_refused_closes_the_stream(autojump_clock: object) -> None:
    def start(_: StartRequest) -> Endpoint:
        return Refusing(trio.testing.memory_stream_pair()[0])

    async with open_world(start, desktop=DESKTOP) as world, world.raw(viewer()) as peer:
        id_, _ = await peer.attach("a", Kind.VNC, start=UNNAMED)
        await peer.input(id_, 0, b"fine")
        await peer.input(id_, 4, b"!")
        closed = await peer.expect(Closed, id_)
        assert closed.reason is CloseReason.PROTOCOL_ERROR
        assert closed.message == "there is no message of type 33"
        # The link goes on.
        await peer.attach("b", Kind.VNC, start=UNNAMED)
