"""What a stream keeps, for whom it waits, and what the process gets to read."""

from __future__ import annotations

from typing import Any

import trio

from relay.endpoint import Channel, ExitStatus, Kind, Overflow
from relay.grant import Mode
from relay.protocol.messages import (
    Closed,
    Credit,
    Exit,
    Fin,
    Start,
    Stop,
    encode,
)
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason
from tests.testing.endpoints import (
    BlockedSink,
    BrokenSink,
    FloodSource,
    ManualSource,
    ScriptedEndpoint,
    Sink,
    SlowSink,
    exec_endpoint,
    pty_endpoint,
)
from tests.testing.raw_peer import BIG, RawPeer
from tests.testing.relay_world import SMALL, RelayWorld, open_world

A, B = "attachment-aaaaaa", "attachment-bbbbbb"
NEW = Start()
RING = SMALL.ring_bytes
PTY: dict[str, Any] = {"kind": Kind.PTY, "start": NEW, "attachment": A}


def ring_of(world: RelayWorld) -> tuple[int, int]:
    ring = world.stream().rings[Channel.OUTPUT]
    return ring.start, ring.end


async def read_all_there_is(peer: RawPeer, world: RelayWorld, id_: int) -> int:
    """Read, acknowledging everything, until no more comes; return the offset."""
    before = -1
    while (end := peer.received(id_).end) != before:
        before = end
        await peer.credit(id_, ack=end)
        await world.settle()
    return end


# -------------------------------------------------------------------------- pacing


async def test_one_who_paces_holds_the_process_back(autojump_clock: object) -> None:
    source = FloodSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.raw() as peer:
        id_, _ = await peer.attach(**PTY)
        await world.settle()
        assert ring_of(world) == (0, RING)
        assert source.taken <= RING + SMALL.read_bytes
        await trio.sleep(1000)
        assert ring_of(world) == (0, RING)
        await peer.credit(id_, ack=5000)
        await world.settle()
        assert ring_of(world) == (5000, RING + 5000)


async def test_the_slowest_of_those_who_pace_counts(autojump_clock: object) -> None:
    async with (
        open_world(lambda _: pty_endpoint(FloodSource()), SMALL) as world,
        world.raw() as peer,
    ):
        fast, _ = await peer.attach(**PTY)
        slow, _ = await peer.attach(kind=Kind.PTY, attachment=B, mode=Mode.VIEW, policy=Policy.PACE)
        await world.settle()
        await peer.credit(fast, ack=RING)
        await peer.credit(slow, ack=10)
        await world.settle()
        assert ring_of(world) == (10, RING + 10)
        await peer.detach(slow)
        await world.settle()
        assert ring_of(world) == (RING, 2 * RING)


async def test_a_reader_gets_a_full_ring_however_pieces_fall(autojump_clock: object) -> None:
    """A piece that does not fit is appended in part: else a reader might wait for its rest, and
    the stream for the acknowledgement that the reader owes for more bytes only."""
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.raw() as peer:
        id_, _ = await peer.attach(**PTY)
        source.write(bytes(RING - 1))
        await world.settle()
        source.write(bytes(SMALL.read_bytes))
        await peer.wait_for_bytes(id_, RING)


async def test_a_cut_loses_nothing_while_the_stream_lingers(autojump_clock: object) -> None:
    async with open_world(lambda _: pty_endpoint(FloodSource()), SMALL) as world:
        async with world.raw() as peer:
            id_, answer = await peer.attach(**PTY)
            await world.settle()
            await peer.credit(id_, ack=100)
            await world.settle()
        await trio.sleep(SMALL.linger - 1)
        assert ring_of(world) == (100, RING + 100)
        async with world.raw() as peer:
            id_, resumed = await peer.resume(answer, {Channel.OUTPUT: 100}, attachment=A)
            assert resumed.resumed
            got = await peer.wait_for_bytes(id_, RING)
            assert (got.start, got.gaps) == (100, [])


async def test_after_the_linger_time_the_oldest_is_dropped(autojump_clock: object) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world:
        source.write(bytes(RING + 1000))
        async with world.raw() as peer:
            _, answer = await peer.attach(**PTY, window={})
            await world.settle()
            assert ring_of(world) == (0, RING)
        await trio.sleep(SMALL.linger + 1)
        assert ring_of(world) == (1000, RING + 1000)
        async with world.raw() as peer:
            id_, resumed = await peer.resume(answer, {Channel.OUTPUT: 0}, attachment=A)
            assert resumed.start[Channel.OUTPUT] == 0
            got = await peer.wait_for_bytes(id_, RING + 1000)
            assert got.gaps == [(0, 1000)]
            assert len(got.data) == RING


async def test_after_the_linger_time_a_stream_that_blocks_waits(autojump_clock: object) -> None:
    source = FloodSource()
    start = Start(overflow=Overflow.BLOCK)
    async with open_world(lambda _: exec_endpoint(source), SMALL) as world:
        async with world.raw() as peer:
            id_, answer = await peer.attach(start=start, attachment=A)
            await world.settle()
            await peer.credit(id_, ack=100)
            await world.settle()
            await peer.detach(id_)
        await trio.sleep(3600)
        assert ring_of(world) == (100, RING + 100)
        async with world.raw() as peer:  # whoever comes gets all that nobody has had
            id_, answer = await peer.attach(attachment=B)
            assert answer.start[Channel.OUTPUT] == 100
            await peer.wait_for_bytes(id_, RING + 100)


async def test_a_stream_that_blocks_goes_on_for_whoever_reads(autojump_clock: object) -> None:
    source = FloodSource()
    async with open_world(lambda _: exec_endpoint(source), SMALL) as world, world.raw() as peer:
        id_, _ = await peer.attach(start=NEW, attachment=A)
        await peer.detach(id_)
        view, _ = await peer.attach(attachment=B, mode=Mode.VIEW)
        await world.settle()
        await peer.credit(view, ack=RING)
        await world.settle()
        assert ring_of(world) == (RING, 2 * RING)


async def test_a_channel_that_was_stopped_is_not_waited_for(autojump_clock: object) -> None:
    endpoint = exec_endpoint(b"out", bytes(10 * RING))
    async with open_world(lambda _: endpoint, SMALL) as world, world.raw() as peer:
        id_, _ = await peer.attach(start=NEW, attachment=A, window={Channel.OUTPUT: BIG})
        await world.settle()
        assert not peer.has(Exit)
        await peer.send(encode(Stop(), id_, Channel.ERROR))
        assert await peer.expect(Exit, id_) == Exit(code=0)
        assert not peer.received(id_, Channel.ERROR).data
        assert world.stream().rings[Channel.ERROR].dropped > 0


# -------------------------------------------------------------------------- viewers


async def test_one_who_skips_gets_a_gap_and_costs_nothing(autojump_clock: object) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.raw() as peer:
        control, _ = await peer.attach(**PTY)
        view, _ = await peer.attach(
            kind=Kind.PTY, attachment=B, mode=Mode.VIEW, window={Channel.OUTPUT: 10}
        )
        source.write(bytes(3 * RING))
        assert await read_all_there_is(peer, world, control) == 3 * RING
        got = peer.received(view)
        assert (got.end, got.gaps) == (10, [])  # no credit, no GAP
        await peer.credit(view, up_to=11)
        await world.settle()
        assert (got.end, got.gaps) == (2 * RING, [(10, 2 * RING)])
        await peer.credit(view, up_to=BIG)
        await peer.wait_for_bytes(view, 3 * RING)
        assert len(got.data) == 10 + RING


async def test_one_who_would_rather_be_dropped(autojump_clock: object) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.raw() as peer:
        control, _ = await peer.attach(**PTY)
        view, _ = await peer.attach(
            kind=Kind.PTY, attachment=B, mode=Mode.VIEW, policy=Policy.DROP, window={}
        )
        source.write(bytes(RING))
        await read_all_there_is(peer, world, control)
        assert not peer.has(Closed, view)
        source.write(b"x")
        await peer.wait_for_bytes(control, RING + 1)
        assert (await peer.expect(Closed, view)).reason is CloseReason.TOO_FAR_BEHIND
        assert [a.attachment for a in world.stream().attachments] == [A]


async def test_one_who_would_rather_be_dropped_and_comes_back_late(
    autojump_clock: object,
) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.raw() as peer:
        control, _ = await peer.attach(**PTY)
        async with world.raw() as viewer:
            _, answer = await viewer.attach(
                kind=Kind.PTY, attachment=B, mode=Mode.VIEW, policy=Policy.DROP
            )
        source.write(bytes(RING + 1))
        await read_all_there_is(peer, world, control)
        async with world.raw() as viewer:
            view, _ = await viewer.resume(answer, {Channel.OUTPUT: 0}, attachment=B, mode=Mode.VIEW)
            assert (await viewer.expect(Closed, view)).reason is CloseReason.TOO_FAR_BEHIND
            assert not viewer.received(view).gaps


async def test_nobody_pays_for_a_viewer_who_never_reads(autojump_clock: object) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.raw() as peer:
        control, _ = await peer.attach(**PTY)
        for number in range(20):
            await peer.attach(
                kind=Kind.PTY, attachment=f"viewer-{number:012}", mode=Mode.VIEW, window={}
            )
        source.write(bytes(20 * RING))
        assert await read_all_there_is(peer, world, control) == 20 * RING
        assert world.stream().rings[Channel.OUTPUT].allocated <= RING


# -------------------------------------------------------------------------- input


async def test_credit_comes_back_as_the_process_reads(autojump_clock: object) -> None:
    sink = BlockedSink()
    async with (
        open_world(lambda _: exec_endpoint(ManualSource(), b"", sink), SMALL) as world,
        world.raw() as peer,
    ):
        id_, answer = await peer.attach(start=NEW, attachment=A)
        window = SMALL.input_window
        assert answer.credit == window
        for offset in range(0, window, 1024):
            await peer.input(id_, offset, bytes(1024))
        await world.settle()
        assert not peer.has(Credit)
        assert world.stream().input_waiting == window
        sink.opened.set()
        credit = await peer.expect(Credit, id_)
        assert (credit.ack, credit.up_to) == (window, 2 * window)
        await world.settle()
        assert world.stream().input_waiting == 0
    assert len(sink.data) == SMALL.input_window


async def test_small_pieces_of_input_are_joined(autojump_clock: object) -> None:
    """A window of single bytes must not cost an object each."""

    class Counting(Sink):
        calls = 0

        async def write(self, data: bytes | bytearray | memoryview) -> None:
            self.calls += 1
            await trio.sleep(1)
            self.take(data)

    sink = Counting()
    async with (
        open_world(lambda _: exec_endpoint(ManualSource(), b"", sink), SMALL) as world,
        world.raw() as peer,
    ):
        id_, _ = await peer.attach(start=NEW, attachment=A)
        for offset in range(SMALL.input_window):
            await peer.input(id_, offset, offset.to_bytes(4, "big")[-1:])
        await trio.sleep(10)
    assert sink.calls < 5
    assert bytes(sink.data) == bytes(n % 256 for n in range(SMALL.input_window))


async def test_the_end_of_input_comes_after_the_input(autojump_clock: object) -> None:
    sink = SlowSink(10, 0.1, 1)
    endpoint = ScriptedEndpoint(
        {Channel.OUTPUT: ManualSource(), Channel.ERROR: ManualSource()}, sink
    )
    async with open_world(lambda _: endpoint, SMALL) as world, world.raw() as peer:
        id_, _ = await peer.attach(start=NEW, attachment=A)
        await peer.input(id_, 0, bytes(100))
        await peer.send(encode(Fin(at=100), id_, 0))
        assert (await peer.expect(Credit, id_)).ack == 100  # it is in good hands
        await peer.expect(Stop, id_)
        assert (len(sink.data), endpoint.eofs) == (100, 1)


async def test_input_has_one_end_whoever_sends_it(autojump_clock: object) -> None:
    """After the end of input somebody else may take over, but cannot write to what is closed."""
    endpoint = exec_endpoint(ManualSource(), ManualSource())
    async with open_world(lambda _: endpoint, SMALL) as world, world.raw() as peer:
        one, _ = await peer.attach(start=NEW, attachment=A)
        await peer.send(encode(Fin(at=0), one, 0))
        await peer.expect(Stop, one)
        two, answer = await peer.attach(attachment=B, takeover=True)
        assert answer.stopped
        await peer.input(two, 0, b"more")
        await peer.send(encode(Fin(at=4), two, 0))
        await world.settle()
        assert not peer.has(Closed, two)
        assert endpoint.sink.data == b""
        assert (endpoint.eofs, endpoint.closed) == (1, False)


async def test_a_terminal_has_no_end_of_input(autojump_clock: object) -> None:
    endpoint = pty_endpoint(ManualSource())
    async with open_world(lambda _: endpoint, SMALL) as world, world.raw() as peer:
        one, _ = await peer.attach(**PTY)
        await peer.send(encode(Fin(at=0), one, 0))
        two, answer = await peer.attach(kind=Kind.PTY, attachment=B, takeover=True)
        assert not answer.stopped
        await peer.input(two, 0, b"more")
        await world.settle()
        assert endpoint.sink.data == b"more"
        assert endpoint.eofs == 0


async def test_input_that_nobody_reads_is_thrown_away(autojump_clock: object) -> None:
    source = ManualSource()
    endpoint = exec_endpoint(source, b"", BrokenSink())
    async with open_world(lambda _: endpoint, SMALL) as world, world.raw() as peer:
        id_, _ = await peer.attach(start=NEW, attachment=A)
        await peer.input(id_, 0, b"x" * 1000)
        await peer.expect(Stop, id_)
        # Credit goes on coming: no link breaks over what crosses STOP on its way.
        for offset in range(1000, 10 * SMALL.input_window, 1000):
            await peer.input(id_, offset, b"x" * 1000)
            await world.settle()
        assert world.stream().input_waiting == 0
        source.write(b"the output goes on")
        assert (await peer.wait_for_bytes(id_, 18)).data == b"the output goes on"


async def test_blocked_output_does_not_hold_up_input(autojump_clock: object) -> None:
    sink = Sink()
    async with (
        open_world(lambda _: pty_endpoint(FloodSource(), sink), SMALL) as world,
        world.raw() as peer,
    ):
        id_, _ = await peer.attach(**PTY, window={})
        await world.settle()
        assert ring_of(world) == (0, RING)
        await peer.input(id_, 0, b"\x03")
        with trio.fail_after(0.001):
            await sink.wait_for(1)


# -------------------------------------------------------------------------- the end


async def test_the_exit_comes_after_the_last_byte(autojump_clock: object) -> None:
    endpoint = ScriptedEndpoint(
        {Channel.OUTPUT: ManualSource(), Channel.ERROR: ManualSource()},
        status=ExitStatus(signal="SEGV"),
    )
    output, error = endpoint.sources.values()
    assert isinstance(output, ManualSource)
    assert isinstance(error, ManualSource)
    async with open_world(lambda _: endpoint, SMALL) as world, world.raw() as peer:
        id_, _ = await peer.attach(
            start=NEW, attachment=A, window={Channel.OUTPUT: 3, Channel.ERROR: BIG}
        )
        output.write(b"12345")
        output.end()
        error.end()
        await peer.wait_for_fin(id_, Channel.ERROR)
        await world.settle()
        assert not peer.has(Exit)
        await peer.credit(id_, up_to=5)
        assert await peer.expect(Exit, id_) == Exit(signal="SEGV")
        assert peer.received(id_).fin == 5
        assert peer.order[-2:] == ["Fin", "Exit"]


async def test_an_attachment_stays_after_the_exit(autojump_clock: object) -> None:
    async with open_world(lambda _: pty_endpoint(b"x"), SMALL) as world, world.raw() as peer:
        id_, _ = await peer.attach(**PTY)
        await peer.expect(Exit, id_)
        await trio.sleep(100)
        assert not peer.has(Closed)
        await peer.input(id_, 0, b"late")
        await peer.detach(id_)
        assert (await peer.expect(Closed, id_)).reason is CloseReason.DETACHED


async def test_input_under_way_at_the_exit_is_freed(autojump_clock: object) -> None:
    source = ManualSource()
    sink = BlockedSink()
    async with (
        open_world(lambda _: pty_endpoint(source, sink), SMALL) as world,
        world.raw() as peer,
    ):
        id_, _ = await peer.attach(**PTY)
        await peer.input(id_, 0, bytes(10))
        await world.settle()
        await peer.input(id_, 10, bytes(10_000))
        source.end()
        await peer.expect(Stop, id_)
        await peer.expect(Exit, id_)
        assert world.stream().input_waiting <= 10


async def test_an_endpoint_that_will_not_close_is_left_alone(
    autojump_clock: object,
) -> None:
    class Stubborn(ScriptedEndpoint):
        async def aclose(self) -> None:
            await trio.sleep_forever()

    endpoint = Stubborn({Channel.OUTPUT: ManualSource()})
    began = trio.current_time()
    async with open_world(lambda _: endpoint, SMALL) as world, world.raw() as peer:
        await peer.attach(**PTY)
    assert 9 < trio.current_time() - began < 20
