"""Cut the carrier anywhere: output and input arrive complete, in order, once.

Every run is a session with a few streams, a client that reads and writes them all over one link,
perhaps a slow viewer, and a network that cuts, half-closes, stalls and splits.  Nothing takes real
time: the clock jumps whenever everybody waits.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.carrier import Carrier
from relay.client import Dial, Trunk, TrunkStatus, open_trunk
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.endpoint import (
    OUTPUT_CHANNELS,
    Channel,
    ExitStatus,
    Kind,
    Overflow,
    StartRequest,
    TerminalSize,
)
from relay.grant import Mode
from relay.inbox import Missed, Output
from relay.limits import StreamLimits
from relay.protocol.messages import Start
from relay.service_nursery import open_service_nursery
from tests.testing.endpoints import BytesSource, ScriptedEndpoint, Sink, SlowSink, Source
from tests.testing.faulty import FINE, Cut, Fault, faulty_pair
from tests.testing.relay_world import RelayWorld, open_world

RUNS = 36
BATCHES = 6
CUTS_WANTED = 1000
LIMITS = StreamLimits(
    ring_bytes=128 * 1024,
    read_bytes=16 * 1024,
    input_window=16 * 1024,
    linger=100_000.0,  # a link that stalls costs 30 s, and there may be many in a row
)


@dataclass(frozen=True)
class Shape:
    """What one stream does; sizes in bytes, pauses in seconds."""

    kind: Kind
    output: int
    error: int
    input: int
    signals: int
    process_pause: float
    reader_pause: float
    overflow: Overflow | None = None
    viewer: bool = False


@dataclass(frozen=True)
class LinkFault:
    there: Fault
    back: Fault


@dataclass
class Process:
    """A stream's endpoint, and what it should write and read."""

    shape: Shape
    output: dict[Channel, bytes]
    input: bytes
    endpoint: ScriptedEndpoint
    starts: int = 0
    started: trio.Event = field(default_factory=trio.Event)

    @property
    def was_told(self) -> bool:
        """Whether all input, signals and sizes have come."""
        endpoint, signals = self.endpoint, self.shape.signals
        last_size = TerminalSize(100 + signals, 31)
        return (
            len(endpoint.sink.data) == len(self.input)
            and len(endpoint.signals) == signals
            and (signals == 0 or endpoint.sizes[-1:] == [last_size])
        )


class UntilTold(Source):
    """Another source, whose end waits until the client has said all it has to say."""

    def __init__(self, source: Source, process: Process) -> None:
        self._source = source
        self._process = process

    async def read(self, max_bytes: int) -> bytes:
        data = await self._source.read(max_bytes)
        if not data:
            while not self._process.was_told:
                await self._process.endpoint.sink.changed.park()
        return data


def make_process(shape: Shape, seed: int) -> Process:
    chance = random.Random(seed)
    sizes = {Channel.OUTPUT: shape.output, Channel.ERROR: shape.error}
    output = {channel: chance.randbytes(sizes[channel]) for channel in OUTPUT_CHANNELS[shape.kind]}
    input_ = chance.randbytes(shape.input)
    sink = SlowSink(3000, shape.process_pause, seed) if shape.process_pause else Sink()
    sources: dict[Channel, Source] = {}
    endpoint = ScriptedEndpoint(
        sources, sink, ExitStatus(code=seed % 256), linger=shape.kind is not Kind.PTY
    )
    process = Process(shape, output, input_, endpoint)
    for channel, data in output.items():
        sources[channel] = UntilTold(BytesSource(data, seed, shape.process_pause), process)
    return process


@dataclass
class Run:
    """One session under a bad network."""

    shapes: tuple[Shape, ...]
    faults: tuple[LinkFault, ...]
    seed: int
    processes: dict[str, Process] = field(default_factory=dict)
    states: list[TrunkStatus] = field(default_factory=list)
    cuts: int = 0
    gaps: int = 0

    async def main(self) -> None:
        for number, shape in enumerate(self.shapes):
            self.processes[f"s{number}"] = make_process(shape, self.seed + number)
        with trio.fail_after(50_000):
            async with open_world(self._start, LIMITS) as world:
                async with open_trunk(
                    self._dialler(world, list(self.faults)), observe=self.states.append
                ) as trunk:
                    async with open_service_nursery() as impatience:
                        impatience.start_soon(self._nudge, trunk)
                        await self._use(trunk, world)
                    links = trunk.statistics().links
                await trio.sleep(100)  # the last cut may have been noticed by one side only
                bound = [a for s in world.host.statistics() for a in s.attachments if a.bound]
                assert not bound
                assert not world.servers
        self.cuts = links - 1
        for process in self.processes.values():
            self._check(process)

    def _start(self, request: StartRequest) -> ScriptedEndpoint:
        process = self.processes[request.command[0]]
        process.starts += 1
        process.started.set()
        return process.endpoint

    def _dialler(self, world: RelayWorld, faults: list[LinkFault]) -> Dial:
        async def dial() -> Carrier:
            await trio.lowlevel.checkpoint()
            self._check_bounds(world)
            fault = faults.pop(0) if faults else LinkFault(FINE, FINE)
            ours, theirs = faulty_pair(fault.there, fault.back, self.seed)
            world.serve(theirs)
            return ours

        return dial

    async def _use(self, trunk: Trunk, world: RelayWorld) -> None:
        async with trio.open_nursery() as nursery:
            for tag, process in self.processes.items():
                nursery.start_soon(self._client, trunk, tag, process)
                if process.shape.viewer:
                    nursery.start_soon(self._view, world, tag, process)

    async def _nudge(self, trunk: Trunk) -> None:
        """Do not let the back-off grow: what is under way at a cut shall still be under way after."""
        chance = random.Random(self.seed)
        while True:
            await trio.sleep(chance.choice((0.01, 0.1, 1.0)))
            trunk.retry_now()

    async def _client(self, trunk: Trunk, tag: str, process: Process) -> None:
        shape = process.shape
        attachment = await trunk.attach(
            AttachOptions(
                attachment=f"control-attachment-{tag}",
                kind=shape.kind,
                tag=tag,
                start=Start(command=[tag], overflow=shape.overflow),
                size=TerminalSize(100, 30) if shape.kind is Kind.PTY else None,
                window=32 * 1024,
            )
        )
        assert attachment.answer is not None
        assert attachment.answer.started
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, attachment, process)
            nursery.start_soon(self._signal, attachment, process)
            for channel in process.output:
                nursery.start_soon(self._read, attachment, channel, process)
            assert await attachment.wait() == process.endpoint._status
        trunk.detach(attachment)

    async def _write(self, attachment: ClientAttachment, process: Process) -> None:
        chance = random.Random(self.seed)
        rest = process.input
        while rest:
            size = chance.choice((1, 5, 500, 20_000))
            await attachment.send(rest[:size])
            rest = rest[size:]
            if chance.random() < 0.1:
                await trio.sleep(chance.random() * 0.2)
        attachment.send_eof()

    async def _signal(self, attachment: ClientAttachment, process: Process) -> None:
        for number in range(process.shape.signals):
            attachment.send_signal(f"S{number}")
            attachment.resize(TerminalSize(101 + number, 31))
            await trio.sleep(0.01)

    async def _read(self, attachment: ClientAttachment, channel: Channel, process: Process) -> None:
        chance = random.Random(self.seed)
        expected = process.output[channel]
        offset = 0
        while (item := await attachment.receive(channel)) is not None:
            assert isinstance(item, Output), f"bytes are gone: {item}"
            assert item.offset == offset
            assert item.data == expected[offset : offset + len(item.data)]
            offset += len(item.data)
            if process.shape.reader_pause and chance.random() < 0.2:
                await trio.sleep(chance.random() * process.shape.reader_pause)
        assert offset == len(expected)

    async def _view(self, world: RelayWorld, tag: str, process: Process) -> None:
        """Watch over links of one's own, slowly: what comes is right, gaps are told."""
        await process.started.wait()
        chance = random.Random(self.seed + 1)
        faults = [
            LinkFault(Fault(at=chance.randint(500, 5000)), Fault(at=chance.randint(500, 90_000)))
            for _ in range(3)
        ]
        async with open_trunk(self._dialler(world, faults)) as trunk:
            attachment = await trunk.attach(
                AttachOptions(
                    attachment=f"viewing-attachment-{tag}",
                    kind=process.shape.kind,
                    tag=tag,
                    mode=Mode.VIEW,
                    window=8 * 1024,
                )
            )
            async with trio.open_nursery() as readers:
                for channel, expected in process.output.items():
                    readers.start_soon(self._watch, attachment, channel, expected, chance)
            assert await attachment.wait() == process.endpoint._status

    async def _watch(
        self,
        attachment: ClientAttachment,
        channel: Channel,
        expected: bytes,
        chance: random.Random,
    ) -> None:
        offset: int | None = None  # a viewer who comes late begins where the ring does
        while (item := await attachment.receive(channel)) is not None:
            start = item.start if isinstance(item, Missed) else item.offset
            assert offset is None or start == offset
            if isinstance(item, Missed):
                assert item.start < item.to
                offset = item.to
                self.gaps += 1
                continue
            offset = start + len(item.data)
            assert item.data == expected[start:offset]
            await trio.sleep(chance.random() * 0.05)
        assert offset is None or offset == len(expected)

    def _check_bounds(self, world: RelayWorld) -> None:
        for stream in world.host.statistics():
            for ring in stream.rings.values():
                assert ring.end - ring.start <= ring.capacity == LIMITS.ring_bytes
                assert ring.allocated <= ring.capacity
            assert stream.input_waiting <= LIMITS.input_window

    def _check(self, process: Process) -> None:
        assert process.starts == 1
        endpoint = process.endpoint
        assert bytes(endpoint.sink.data) == process.input
        assert endpoint.signals == [f"S{n}" for n in range(process.shape.signals)]
        if process.shape.signals:
            assert endpoint.sizes[-1] == TerminalSize(100 + process.shape.signals, 31)
        assert endpoint.eofs == (0 if process.shape.kind is Kind.PTY else 1)
        assert endpoint.closed


def run(shapes: tuple[Shape, ...], faults: tuple[LinkFault, ...], seed: int) -> Run:
    run = Run(shapes, faults, seed)
    trio.run(run.main, clock=trio.testing.MockClock(autojump_threshold=0))
    return run


# -------------------------------------------------------------------------- very many cuts


def random_fault(chance: random.Random) -> LinkFault:
    def direction(largest: int) -> Fault:
        return Fault(
            at=int(10 ** chance.uniform(0, largest)),
            cut=chance.choice((Cut.RESET, Cut.RESET, Cut.END, Cut.HALF, Cut.STALL)),
            split=chance.choice((None, None, 1, 100)),
            latency=chance.choice((0.0, 0.0, 0.05)),
        )

    return LinkFault(direction(4), direction(5))


def random_shape(chance: random.Random) -> Shape:
    kind = chance.choice((Kind.PTY, Kind.EXEC))
    return Shape(
        kind=kind,
        output=chance.randint(0, 400_000),
        error=chance.randint(0, 50_000) if kind is Kind.EXEC else 0,
        input=chance.randint(0, 60_000),
        signals=chance.randint(0, 20),
        process_pause=chance.choice((0.0, 0.2, 2.0)),
        reader_pause=chance.choice((0.0, 0.0, 0.3)),
        overflow=chance.choice((None, *Overflow)),
        viewer=chance.random() < 0.3,
    )


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_thousand_cuts(batch: int) -> None:
    cuts = 0
    for seed in range(batch, RUNS, BATCHES):
        chance = random.Random(seed)
        shapes = tuple(random_shape(chance) for _ in range(chance.randint(1, 4)))
        faults = tuple(random_fault(chance) for _ in range(40))
        cuts += run(shapes, faults, seed * 1000).cuts
    assert cuts >= CUTS_WANTED / BATCHES


# -------------------------------------------------------------------------- and the smallest failure

cuts = st.sampled_from(Cut)
there = st.builds(Fault, at=st.integers(0, 3000), cut=cuts, split=st.sampled_from([None, 1, 50]))
back = st.builds(Fault, at=st.integers(0, 60_000), cut=cuts, split=st.sampled_from([None, 1, 999]))
shapes = st.builds(
    Shape,
    kind=st.sampled_from([Kind.PTY, Kind.EXEC]),
    output=st.integers(0, 200_000),
    error=st.integers(0, 3000),
    input=st.integers(0, 30_000),
    signals=st.integers(0, 5),
    process_pause=st.sampled_from([0.0, 0.1]),
    reader_pause=st.sampled_from([0.0, 0.1]),
    overflow=st.none() | st.sampled_from(Overflow),
    viewer=st.booleans(),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(shapes, min_size=1, max_size=3),
    st.lists(st.builds(LinkFault, there, back), max_size=6),
    st.integers(0, 2**16),
)
def test_cut_anywhere(shapes: list[Shape], faults: list[LinkFault], seed: int) -> None:
    run(tuple(shapes), tuple(faults), seed)


# -------------------------------------------------------------------------- at every byte

SMALL = Shape(Kind.EXEC, output=40, error=10, input=30, signals=1, process_pause=0, reader_pause=0)


@pytest.mark.parametrize("cut", [Cut.RESET, Cut.END])
@pytest.mark.parametrize("direction", ["there", "back"])
def test_a_cut_at_every_byte(cut: Cut, direction: str) -> None:
    """So also within and right around ATTACH, ATTACHED, DATA, FIN, EXIT, DETACH and CLOSED."""
    at = 0
    while True:
        fault = Fault(at=at, cut=cut)
        faults = LinkFault(fault, FINE) if direction == "there" else LinkFault(FINE, fault)
        if run((SMALL,), (faults,), seed=1).cuts == 0:
            break  # all was over before
        at += 1
    assert at > 300
