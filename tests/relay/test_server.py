"""The owner's end of a link, and clients that misuse it."""

from __future__ import annotations

import itertools
import random

import pytest
import trio

from relay.endpoint import Channel, Endpoint, Kind, StartRequest, TerminalSize
from relay.grant import Mode
from relay.limits import StreamLimits
from relay.protocol.connection import MAX_STREAMS
from relay.protocol.frames import FrameType, encode_control, encode_data_header
from relay.protocol.messages import (
    Attach,
    Closed,
    Credit,
    Detach,
    GoAway,
    Hello,
    Ping,
    Pong,
    Refused,
    Resize,
    Signal,
    Start,
    Stop,
    encode,
)
from relay.protocol.reasons import CloseReason, Refusal
from relay.server import ServerLink
from tests.testing.endpoints import FloodSource, ManualSource, exec_endpoint, pty_endpoint
from tests.testing.relay_world import SMALL, RelayWorld, open_world

A, B = "attachment-aaaaaa", "attachment-bbbbbb"
NEW = Start()


def shell(request: StartRequest) -> Endpoint:
    return pty_endpoint(ManualSource())


async def slow(request: StartRequest) -> Endpoint:
    await trio.sleep(1)
    return shell(request)


async def test_detaching_while_the_stream_starts(autojump_clock: object) -> None:
    async with open_world(slow) as world, world.raw() as peer:
        id_ = await peer.request(kind=Kind.PTY, start=NEW, attachment=A)
        await world.settle()
        await peer.detach(id_)
        assert (await peer.expect(Closed, id_)).reason is CloseReason.DETACHED
        await trio.sleep(2)
        assert world.stream().attachments == ()  # started all the same, for when it asks again
        _, answer = await peer.attach(kind=Kind.PTY, start=NEW, attachment=A)
        assert answer.started
    assert len(world.starts) == 1


async def test_detaching_in_the_same_breath(autojump_clock: object) -> None:
    async with open_world(shell) as world, world.raw() as peer:
        request = Attach(attachment=A, kind=Kind.PTY, tag="t", start=NEW)
        await peer.send(encode(request, 1) + encode(Detach(), 1))
        assert (await peer.expect(Closed, 1)).reason is CloseReason.DETACHED
        await world.settle()
        assert world.starts == []
        assert not peer.has(Refused)


async def test_a_link_that_ends_while_a_stream_starts(autojump_clock: object) -> None:
    async with open_world(slow) as world:
        async with world.raw() as peer:
            await peer.request(kind=Kind.PTY, start=NEW, attachment=A)
            await world.settle()
        assert world.servers == []
        await trio.sleep(2)
        assert world.stream().attachments == ()


async def test_resizing_and_signalling(autojump_clock: object) -> None:
    endpoint = pty_endpoint(ManualSource())
    async with open_world(lambda _: endpoint) as world, world.raw() as peer:
        id_, _ = await peer.attach(kind=Kind.PTY, start=NEW, attachment=A, columns=80, rows=24)
        await peer.send(encode(Resize(columns=100, rows=40), id_))
        await peer.send(encode(Signal(number=1, name="INT"), id_))
        await peer.send(encode(Signal(number=2, name="NOSUCH"), id_))
        await world.settle()
        assert endpoint.sizes == [TerminalSize(80, 24), TerminalSize(100, 40)]
        assert endpoint.signals == ["INT"]
        assert not peer.has(GoAway)


async def test_a_lost_link_leaves_its_attachments_for_their_clients(
    autojump_clock: object,
) -> None:
    async with open_world(shell) as world:
        async with world.raw() as peer:
            for tag in "abc":
                await peer.attach(tag, Kind.PTY, start=NEW, attachment=A)
        assert [a.bound for s in world.host.statistics() for a in s.attachments] == [False] * 3


async def test_cancelling_leaves_its_attachments_too(autojump_clock: object) -> None:
    async with open_world(shell) as world, world.raw() as peer:
        await peer.attach(kind=Kind.PTY, start=NEW, attachment=A)
        (server,) = world.servers
        async with trio.open_nursery() as nursery:
            other = ServerLink(server.link.carrier, world.host, world.grant(), "other")
            nursery.start_soon(other.run)
            nursery.cancel_scope.cancel()
        assert other._attached == {}


async def test_closed_attachments_do_not_pile_up(autojump_clock: object) -> None:
    async with open_world(shell) as world, world.raw() as one, world.raw() as two:
        for number in range(50):
            for peer in (one, two):
                await peer.attach(
                    kind=Kind.PTY, start=NEW, attachment=f"attachment-{number:06}", takeover=True
                )
        assert all(len(server._attached) <= 2 for server in world.servers)
        assert len(world.stream().attachments) == 1


# -------------------------------------------------------------------------- misuse


async def is_closed_for(peer_frames: bytes, world: RelayWorld) -> GoAway:
    async with world.raw() as peer:
        await peer.send(peer_frames)
        goodbye = await peer.wait_ended()
        assert goodbye is not None
        assert not peer.has(Hello) or peer.order[0] == "Hello"
        return goodbye


@pytest.mark.parametrize(
    "frames",
    [
        encode(Hello(version=1)),
        b"\x01" + bytes(11),
        b"\xff" * 12,
        encode_control(FrameType.ATTACH, 1, 0, b"\x80"),
        encode_control(FrameType.ATTACH, 1, 0, b"\x81\x90\x01"),
        encode_control(FrameType.CREDIT, 3, 1, b"\x80"),
        encode_data_header(1, 0, 0, 1) + b"x",
        encode(Closed(reason=CloseReason.EXITED), 1),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10,
    ],
)
async def test_rubbish_closes_the_link_and_nothing_else(
    frames: bytes, autojump_clock: object
) -> None:
    async with open_world(shell) as world, world.raw() as other:
        id_, _ = await other.attach(kind=Kind.PTY, start=NEW, attachment=A)
        goodbye = await is_closed_for(frames, world)
        assert goodbye.reason is CloseReason.PROTOCOL_ERROR
        assert goodbye.message
        await world.settle()
        assert len(world.servers) == 1
        await other.send(encode(Ping(id=1)))
        await other.expect(Pong)
        assert not other.has(Closed, id_)


async def test_random_rubbish(autojump_clock: object) -> None:
    chance = random.Random(5)
    frames = [
        encode(Attach(attachment=A, kind=Kind.PTY, tag="t", start=NEW), 1),
        encode(Detach(), 1),
        encode(Credit(ack=0, up_to=10), 1, 1),
        encode(Stop(), 1, 1),
        encode(Resize(columns=1, rows=1), 1),
        encode(Signal(number=1, name="INT"), 1),
        encode(Ping(id=1)),
        encode(GoAway(reason=CloseReason.DETACHED)),
        encode_data_header(1, 0, 0, 3) + b"abc",
    ]
    async with open_world(shell) as world:
        for _ in range(300):
            wire = bytearray(b"".join(chance.choices(frames, k=8)))
            for _ in range(chance.randint(0, 4)):
                wire[chance.randrange(len(wire))] = chance.randrange(256)
            async with world.raw() as peer:
                await peer.send(bytes(wire))
                await world.settle()
        assert world.servers == []
        async with world.raw() as peer:
            await peer.attach("sane", Kind.PTY, start=NEW, attachment=B)


async def test_a_flood_of_requests(autojump_clock: object) -> None:
    """More than 256 at once is an error; the session has its own limit, and stays in order."""
    async with open_world(slow, StreamLimits(max_streams=8)) as world:
        async with world.raw() as peer:
            ids = [
                await peer.request(f"t{n}", Kind.PTY, start=NEW, attachment=A)
                for n in range(MAX_STREAMS)
            ]
            answers = [await peer.answer(id_) for id_ in ids]
            codes = [a.code for a in answers if isinstance(a, Refused)]
            assert codes == [Refusal.LIMIT] * (MAX_STREAMS - 8)
        assert len(world.host.statistics()) == 8
    async with open_world(slow) as world:
        async with world.raw() as peer:
            for _ in range(MAX_STREAMS + 1):
                await peer.request("t", Kind.PTY, start=NEW, attachment=A)
            goodbye = await peer.wait_ended()
            assert goodbye is not None
            assert goodbye.reason is CloseReason.PROTOCOL_ERROR
        await trio.sleep(2)
        assert world.stream().attachments == ()
    assert len(world.starts) == 1


async def test_a_flood_of_everything_that_is_allowed(autojump_clock: object) -> None:
    """Whatever a client asks for again and again, answers stay bounded and others are served."""
    endpoint = pty_endpoint(FloodSource())
    async with open_world(lambda _: endpoint, SMALL) as world, world.raw() as peer:
        id_, _ = await peer.attach(kind=Kind.PTY, start=NEW, attachment=A, window={})
        (server,) = world.servers
        for number in range(1, 3000):
            await peer.send(
                encode(Ping(id=number)),
                encode(Resize(columns=number, rows=1), id_),
                encode(Signal(number=number, name="WINCH"), id_),
                encode(Credit(ack=0, up_to=1), id_, 1),
                encode(Credit(), id_, 200),
                encode(Stop(), id_, 7),
            )
            assert server.link.connection.statistics().backlog < 4096
        await peer.send(encode(Ping(id=2**40)))
        while (await peer.expect(Pong)).id != 2**40:
            pass
        assert endpoint.sizes[-1] == TerminalSize(2999, 1)
        assert len(endpoint.signals) == 2999


async def test_credit_games(autojump_clock: object) -> None:
    async with open_world(lambda _: exec_endpoint(b"12345", b""), SMALL) as world:
        for frames in (
            encode(Credit(ack=6, up_to=10), 1, 1),
            encode(Credit(ack=2**62), 1, 1),
            encode(Credit(ack=1), 1, 2),
        ):
            async with world.raw() as peer:
                id_, _ = await peer.attach(start=NEW, attachment=A, takeover=True)
                assert id_ == 1
                await peer.wait_for_bytes(id_, 5)
                await peer.send(frames)
                goodbye = await peer.wait_ended()
                assert goodbye is not None
                assert "acknowledged" in goodbye.message


async def test_input_beyond_the_credit(autojump_clock: object) -> None:
    endpoint = exec_endpoint(ManualSource())
    async with open_world(lambda _: endpoint, SMALL) as world, world.raw() as peer:
        id_, answer = await peer.attach(start=NEW, attachment=A)
        await peer.input(id_, 0, bytes(answer.credit + 1))
        goodbye = await peer.wait_ended()
        assert goodbye is not None
        assert "credit given" in goodbye.message


async def test_a_client_that_says_goodbye_and_stays(autojump_clock: object) -> None:
    async with open_world(shell) as world, world.raw() as peer:
        await peer.attach(kind=Kind.PTY, start=NEW, attachment=A)
        await peer.send(encode(GoAway(reason=CloseReason.DETACHED)))
        for number in itertools.count():
            if peer.ended is not None:
                break
            await peer.send(encode(Ping(id=number)))
            await trio.sleep(1)
            assert number < 25
        await world.settle()
        assert world.servers == []


async def test_a_client_that_says_goodbye_cannot_stay_when_revoked(
    autojump_clock: object,
) -> None:
    async with open_world(shell) as world, world.raw() as peer:
        await peer.attach(kind=Kind.PTY, start=NEW, attachment=A)
        await peer.send(encode(GoAway(reason=CloseReason.DETACHED)))
        await world.settle()
        (server,) = world.servers
        server.link.close(CloseReason.REVOKED)
        await peer.wait_ended()
        await world.settle()
        assert world.servers == []


async def test_a_stranger_with_a_hundred_thousand_frames_holds_nobody_up() -> None:
    """Tiny frames cost time: others get their turn in between (in real time, generously)."""
    async with open_world(shell) as world, world.raw() as peer, world.raw() as other:
        flood = encode(Ping(id=1)) * 100_000
        await peer.send(flood)
        (first, second) = world.servers
        await other.send(encode(Ping(id=7)))
        await other.expect(Pong)
        frames = {s.link.connection.statistics().frames_received for s in (first, second)}
        assert max(frames) < 100_000, "the whole flood was taken in before anybody else's frame"


async def test_viewers_have_no_input_channel(autojump_clock: object) -> None:
    async with open_world(shell) as world, world.raw() as peer:
        await peer.attach(kind=Kind.PTY, start=NEW, attachment=A)
        id_, _ = await peer.attach(kind=Kind.PTY, mode=Mode.VIEW, attachment=B)
        await peer.send(encode(Stop(), id_, Channel.INPUT))
        await world.settle()
        assert not peer.has(GoAway)
        await peer.input(id_, 0, b"x")
        assert await peer.wait_ended() is not None
