"""One viewer never reads.  Nobody else notices, and memory stays where it was."""

from __future__ import annotations

import pytest
import trio

from relay.carrier import Carrier
from relay.client import open_trunk
from relay.client_attachment import AttachOptions
from relay.endpoint import Kind
from relay.grant import Mode
from relay.inbox import Missed, Output
from relay.limits import StreamLimits
from relay.protocol.messages import Start
from tests.testing.endpoints import FloodSource, ManualSource, Sink, SlowSink, pty_endpoint
from tests.testing.faulty import Fault, faulty_pair
from tests.testing.relay_world import SMALL, RelayWorld, open_world

RATE = 2_000_000
"""Bytes per second that the process writes, while it is let."""
SECONDS = 10


def control(window: int = 64 * 1024) -> AttachOptions:
    return AttachOptions("control-attachment", Kind.PTY, "t", start=Start(), window=window)


def viewer(number: int) -> AttachOptions:
    return AttachOptions(
        f"viewing-attachment-{number}", Kind.PTY, "t", mode=Mode.VIEW, window=64 * 1024
    )


async def write_steadily(source: ManualSource) -> None:
    for _ in range(SECONDS * 100):
        source.write(bytes(RATE // 100))
        await trio.sleep(0.01)
    source.end()


async def measure(*, stalled: int) -> tuple[float, float]:
    """Return how long a controller and a viewer take, with so many viewers who never read."""
    source = ManualSource()
    took: dict[str, float] = {}

    async def read(name: str, options: AttachOptions, world: RelayWorld) -> None:
        async with world.trunk() as trunk:
            attachment = await trunk.attach(options)
            end = 0
            while (item := await attachment.receive()) is not None:
                start = item.start if isinstance(item, Missed) else item.offset
                assert start == end
                end = item.to if isinstance(item, Missed) else start + len(item.data)
            assert end == RATE * SECONDS
            took[name] = trio.current_time() - began

    async def stare(number: int, world: RelayWorld) -> None:
        async with world.trunk() as trunk:
            await trunk.attach(viewer(number))
            await trio.sleep_forever()

    async with open_world(lambda _: pty_endpoint(source), SMALL) as world:
        async with trio.open_nursery() as background:
            async with trio.open_nursery() as nursery:
                began = trio.current_time()
                nursery.start_soon(read, "control", control(), world)
                await world.settle()
                nursery.start_soon(read, "viewer", viewer(1000), world)
                for number in range(stalled):
                    background.start_soon(stare, number, world)
                await world.settle()
                nursery.start_soon(write_steadily, source)
            stream = world.stream()
            assert all(ring.allocated <= SMALL.ring_bytes for ring in stream.rings.values())
            assert len([a for a in stream.attachments if a.bound]) == stalled
            background.cancel_scope.cancel()
        return took["control"], took["viewer"]


async def test_a_viewer_who_never_reads(autojump_clock: object) -> None:
    alone = await measure(stalled=0)
    crowded = await measure(stalled=20)
    assert alone == pytest.approx((SECONDS, SECONDS))
    assert crowded == pytest.approx(alone)


async def test_a_controller_who_never_reads_holds_back_the_process_only(
    autojump_clock: object,
) -> None:
    """Pacing is what control is for; what the process does not write costs no memory."""
    source = FloodSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.raw() as peer:
        await peer.attach(kind=Kind.PTY, attachment="control-attachment", start=Start(), window={})
        async with world.trunk() as trunk:
            watching = await trunk.attach(viewer(0))
            total = 0
            with trio.move_on_after(100):
                while True:
                    item = await watching.receive()
                    assert isinstance(item, Output)
                    total += len(item.data)
            assert total == SMALL.ring_bytes
        assert source.taken <= SMALL.ring_bytes + SMALL.read_bytes


async def test_a_slow_stream_does_not_slow_the_link(autojump_clock: object) -> None:
    """Two streams on one link; one is not read.  The other gets all the path can carry."""
    sources = [FloodSource(), FloodSource()]
    rest = list(sources)
    limits = StreamLimits(ring_bytes=1024 * 1024)
    async with open_world(lambda _: pty_endpoint(rest.pop(0)), limits) as world:

        async def dial() -> Carrier:
            fault = Fault(latency=0.001)
            ours, theirs = faulty_pair(fault, fault)
            world.serve(theirs)
            return ours

        async with open_trunk(dial) as trunk:
            await trunk.attach(AttachOptions("attachment-stalled", Kind.PTY, "a", start=Start()))
            running = await trunk.attach(
                AttachOptions("attachment-running", Kind.PTY, "b", start=Start())
            )
            total = 0
            with trio.move_on_after(0.1):
                while True:
                    item = await running.receive()
                    assert isinstance(item, Output)
                    total += len(item.data)
            # 256 KiB per round trip of 2 ms at least.
            assert total > 50 * 256 * 1024 * 0.9
            assert sources[0].taken <= 2 * limits.ring_bytes


async def test_input_and_output_are_independent(autojump_clock: object) -> None:
    """A process that does not read its input is not kept from writing, nor the other way round."""
    source, sink = ManualSource(), SlowSink(100, 1.0, seed=1)
    async with (
        open_world(lambda _: pty_endpoint(source, sink), SMALL) as world,
        world.trunk() as trunk,
    ):
        attachment = await trunk.attach(control())
        await attachment.send(bytes(500_000))
        before = len(sink.data)
        began = trio.current_time()
        total = 0
        while total < 3_000_000:
            source.write(bytes(100_000))
            item = await attachment.receive()
            assert isinstance(item, Output)
            total += len(item.data)
        assert trio.current_time() == began
        assert len(sink.data) == before


async def test_the_memory_of_a_stream_has_a_bound(autojump_clock: object) -> None:
    """64 attachments, none of which reads, and a flood: ring, one piece, input window."""
    source, sink = FloodSource(), Sink()
    async with (
        open_world(lambda _: pty_endpoint(source, sink), SMALL) as world,
        world.raw() as peer,
    ):
        for number in range(SMALL.max_attachments - 2):
            await peer.attach(
                kind=Kind.PTY,
                attachment=f"viewing-attachment-{number}",
                start=Start() if number == 0 else None,
                mode=Mode.VIEW if number else Mode.CONTROL,
                window={},
            )
        await world.settle()
        stream = world.stream()
        assert sum(ring.allocated for ring in stream.rings.values()) <= SMALL.ring_bytes
        assert source.taken <= SMALL.ring_bytes + SMALL.read_bytes
        (server,) = world.servers
        assert server.link.connection.statistics().backlog == 0
