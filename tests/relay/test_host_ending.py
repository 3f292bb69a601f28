"""Streams and sessions that have ended, or are about to."""

from __future__ import annotations

import pytest
import trio

from relay.client_attachment import AttachOptions
from relay.endpoint import (
    Endpoint,
    ExitStatus,
    Kind,
    StartRequest,
)
from relay.grant import Mode
from relay.host import open_stream_host
from relay.memory import carrier_pair
from relay.protocol.messages import (
    Closed,
    Exit,
    Refused,
    Start,
)
from relay.protocol.reasons import CloseReason, Refusal
from tests.testing.endpoints import (
    EchoSource,
    FloodSource,
    ManualSource,
    ScriptedEndpoint,
    Sink,
    exec_endpoint,
    pty_endpoint,
)
from tests.testing.raw_peer import open_raw_peer
from tests.testing.relay_world import RelayWorld, Shell, open_world

A, B = "attachment-aaaaaa", "attachment-bbbbbb"
NEW = Start()
AGAIN = Start(restart=True)


# -------------------------------------------------------------------------- what has ended


async def test_coming_late_for_the_exit(autojump_clock: object) -> None:
    async with open_world(lambda _: pty_endpoint(b"all of it")) as world:
        async with world.raw() as peer:
            id_, _ = await peer.attach(kind=Kind.PTY, start=NEW, attachment=A)
            await peer.expect(Exit, id_)
            await peer.detach(id_)
        await trio.sleep(599)
        async with world.raw() as peer:
            id_, answer = await peer.attach(kind=Kind.PTY, attachment=B)
            assert answer.stopped
            assert await peer.expect(Exit, id_) == Exit(code=0)
            got = peer.received(id_)
            assert got.data == b"all of it"
            assert got.fin == 9


async def test_what_has_ended_is_forgotten_after_a_while(autojump_clock: object) -> None:
    async with open_world(lambda _: pty_endpoint(b"x")) as world, world.raw() as peer:
        id_, _ = await peer.attach(kind=Kind.PTY, start=NEW, attachment=A)
        await peer.expect(Exit, id_)
        await peer.detach(id_)
        await peer.expect(Closed)
        await trio.sleep(601)
        assert world.host.statistics() == ()  # although nobody has asked for anything
        assert (await peer.refused(kind=Kind.PTY)).code is Refusal.NOT_FOUND


async def test_what_somebody_still_reads_is_not_forgotten(autojump_clock: object) -> None:
    async with open_world(lambda _: pty_endpoint(b"x")) as world:
        async with world.trunk() as trunk:
            attachment = await trunk.attach(AttachOptions(A, Kind.PTY, "t", start=NEW))
            await trio.sleep(2000)
            assert len(world.host.statistics()) == 1
            assert await attachment.wait() == ExitStatus(code=0)
        await trio.sleep(700)
        assert world.host.statistics() == ()


# -------------------------------------------------------------------------- the end


@pytest.mark.parametrize(
    "reason", [CloseReason.EXPIRED, CloseReason.SESSION_ENDED, CloseReason.DRAINING]
)
async def test_ending_says_why_and_closes_everything(
    reason: CloseReason, autojump_clock: object
) -> None:
    shell = Shell()
    async with open_world(shell) as world, world.raw() as peer:
        id_, _ = await peer.attach(start=NEW, attachment=A)
        view, _ = await peer.attach(attachment=B, mode=Mode.VIEW)
        world.host.end(reason)
        assert (await peer.expect(Closed, id_)).reason is reason
        assert (await peer.expect(Closed, view)).reason is reason
        assert (await peer.refused(attachment=A)).code is Refusal.ENDING
        assert not shell.endpoints[0].closed  # that is up to who owns the block
    assert shell.endpoints[0].closed


async def test_leaving_the_block_says_that_the_session_has_ended(autojump_clock: object) -> None:
    shell = Shell()

    async def start(request: StartRequest) -> Endpoint:
        return shell(request)

    ours, theirs = carrier_pair()
    async with trio.open_nursery() as nursery, open_raw_peer(ours) as peer:
        async with open_stream_host(start) as host:
            RelayWorld(host, nursery, []).serve(theirs)
            id_, _ = await peer.attach(start=NEW, attachment=A)
        assert (await peer.expect(Closed, id_)).reason is CloseReason.SESSION_ENDED
        assert shell.endpoints[0].closed


async def test_ending_while_a_stream_starts(autojump_clock: object) -> None:
    made: list[ScriptedEndpoint] = []

    async def slow(request: StartRequest) -> Endpoint:
        await trio.sleep(1)
        made.append(pty_endpoint(FloodSource()))
        return made[0]

    async with open_world(slow) as world, world.raw() as peer:
        id_ = await peer.request(start=NEW)
        await world.settle()
        world.host.end(CloseReason.EXPIRED)
        answer = await peer.answer(id_)
        assert isinstance(answer, Refused)
        assert answer.code is Refusal.ENDING
    assert made[0].closed


async def test_a_stream_that_fails_ends_nothing_else(autojump_clock: object) -> None:
    class Bad(ManualSource):
        async def read(self, max_bytes: int) -> bytes:
            await trio.sleep(1)
            raise ZeroDivisionError("a bug")

    good = exec_endpoint(EchoSource(sink := Sink()), b"", sink)
    endpoints: list[Endpoint] = [pty_endpoint(Bad()), good]
    async with open_world(lambda _: endpoints.pop(0)) as world, world.raw() as peer:
        bad, _ = await peer.attach("bad", Kind.PTY, attachment=A, start=NEW)
        id_, _ = await peer.attach("good", attachment=B, start=NEW)
        closed = await peer.expect(Closed, bad)
        assert closed.reason is CloseReason.INTERNAL_ERROR
        assert "bug" not in closed.message
        await peer.input(id_, 0, b"hello")
        assert (await peer.wait_for_bytes(id_, 5)).data == b"hello"
        assert [stream.tag for stream in world.host.statistics()] == ["good"]
