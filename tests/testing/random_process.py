"""Streams of every kind with processes, and networks, that a seed decides about."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from relay.endpoint import OUTPUT_CHANNELS, Channel, ExitStatus, FileOperation, Kind, StartRequest
from relay.protocol.messages import FileStart, Start
from tests.testing.endpoints import BytesSource, ScriptedEndpoint, Sink, SlowSink, Source
from tests.testing.faulty import Cut, Fault


class Between(Source):
    """Another source, which begins when all streams have, and ends when all input has come."""

    def __init__(self, source: Source, begin: trio.Event, sink: Sink, size: int) -> None:
        self._source = source
        self._begin = begin
        self._sink = sink
        self._size = size

    async def read(self, max_bytes: int) -> bytes:
        await self._begin.wait()
        data = await self._source.read(max_bytes)
        if not data:
            await self._sink.wait_for(self._size)
        return data


@dataclass
class Process:
    """A stream's endpoint, and what it writes and should read."""

    kind: Kind
    output: dict[Channel, bytes]
    input: bytes
    status: ExitStatus
    endpoint: ScriptedEndpoint
    starts: int = 0
    started: trio.Event = field(default_factory=trio.Event)


def make_process(kind: Kind, chance: random.Random, begin: trio.Event, *, much: bool) -> Process:
    """Return one that writes anything from nothing to a lot, or `much`; its output waits for `begin`."""
    output = {
        channel: chance.randbytes(chance.choice((0, chance.randint(1, 9000), 500_000)))
        for channel in OUTPUT_CHANNELS[kind]
    }
    if much:
        output[Channel.OUTPUT] = chance.randbytes(500_000)
    input_ = chance.randbytes(chance.randint(0, 40_000))
    pause = chance.choice((0.0, 0.2, 2.0))
    sink = SlowSink(3000, pause, chance.randrange(999)) if pause else Sink()
    sources: dict[Channel, Source] = {
        channel: Between(BytesSource(data, chance.randrange(999), pause), begin, sink, len(input_))
        for channel, data in output.items()
    }
    status = ExitStatus(code=chance.randrange(256))
    endpoint = ScriptedEndpoint(sources, sink, status, linger=kind is not Kind.PTY)
    return Process(kind, output, input_, status, endpoint)


def number_of(request: StartRequest) -> int:
    """Return the number that `start_of` was given."""
    if request.socket is not None and request.socket.port is not None:
        return request.socket.port - 1
    return int(request.file.path if request.file is not None else request.command[0])


def start_of(kind: Kind, number: int) -> Start:
    """Return what starts the stream with this number, so that it is known again."""
    match kind:
        case Kind.TCP | Kind.VNC:
            return Start(port=1 + number)
        case Kind.FILE:
            return Start(file=FileStart(operation=FileOperation.WRITE, path=str(number)))
        case _:
            return Start(command=[str(number)])


def random_faults(chance: random.Random, count: int) -> Iterator[tuple[Fault, Fault]]:
    for _ in range(count):
        yield tuple(  # type: ignore[misc]  # a pair, as `largest` is
            Fault(
                at=int(10 ** chance.uniform(0, largest)),
                cut=chance.choice((Cut.RESET, Cut.RESET, Cut.END, Cut.HALF, Cut.STALL)),
                split=chance.choice((None, None, 1, 100)),
                latency=chance.choice((0.0, 0.0, 0.05)),
            )
            for largest in (4, 5)
        )
