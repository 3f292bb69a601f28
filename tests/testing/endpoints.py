"""Endpoints that do what a test tells them to.

An endpoint is put together from a source for each output channel and a sink for the input.  It ends
when all its sources have, and (unless told otherwise) does not care about its input.
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping

import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, Endpoint, ExitStatus, TerminalSize
from relay.wakeup import Wakeup


class Source(ABC):
    """Where the output of a channel comes from."""

    @abstractmethod
    async def read(self, max_bytes: int) -> bytes:
        """Return 1..`max_bytes` bytes, b"" at the end."""


class BytesSource(Source):
    """Writes `data`, in pieces of random sizes, now and then after a pause (in seconds)."""

    def __init__(
        self, data: bytes, seed: int | None = None, pause: float = 0.0, largest: int = 65536
    ) -> None:
        self._data = memoryview(data)
        self._chance = None if seed is None else random.Random(seed)
        self._pause = pause
        self._largest = largest

    async def read(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        size = min(max_bytes, self._largest)
        if self._chance is not None:
            if self._pause and self._chance.random() < 0.2:
                await trio.sleep(self._chance.random() * self._pause)
            size = min(size, self._chance.choice((1, 10, 1000, 10_000, size)))
        piece = bytes(self._data[:size])
        self._data = self._data[size:]
        return piece


class FloodSource(Source):
    """Writes for ever; counts how much was taken from it."""

    def __init__(self, piece: bytes = b"y\n" * 32768) -> None:
        self._piece = piece
        self.taken = 0

    async def read(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = self._piece[:max_bytes]
        self.taken += len(piece)
        return piece


class ManualSource(Source):
    """Writes what the test gives it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ended = False
        self._changed = Wakeup()

    def write(self, data: bytes) -> None:
        self._data += data
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    @property
    def waiting(self) -> int:
        """Bytes that nobody has taken yet."""
        return len(self._data)

    async def read(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._data and not self._ended:
            await self._changed.wait()
        piece = bytes(self._data[:max_bytes])
        del self._data[:max_bytes]
        return piece


class Sink:
    """Takes all input at once and remembers it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = trio.Event()
        self.changed = trio.lowlevel.ParkingLot()

    async def write(self, data: Buffer) -> None:
        await trio.lowlevel.checkpoint()
        self.take(data)

    def take(self, data: Buffer) -> None:
        self.data += data
        self.changed.unpark_all()

    def end(self) -> None:
        self.ended.set()

    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    async def wait_for(self, size: int) -> None:
        """Wait until `size` bytes have come."""
        while len(self.data) < size:
            await self.changed.park()


class SlowSink(Sink):
    """Takes input in pieces of at most `piece` bytes, each after up to `pause` seconds."""

    def __init__(self, piece: int, pause: float, seed: int) -> None:
        super().__init__()
        self._piece = piece
        self._pause = pause
        self._chance = random.Random(seed)

    async def write(self, data: Buffer) -> None:
        view = memoryview(data)
        while view:
            await trio.sleep(self._chance.random() * self._pause)
            self.take(view[: self._piece])
            view = view[self._piece :]


class BlockedSink(Sink):
    """Takes nothing until `opened`."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = trio.Event()
        self.offered = 0

    async def write(self, data: Buffer) -> None:
        self.offered += len(data)
        await self.opened.wait()
        self.take(data)


class BrokenSink(Sink):
    """Nobody reads it."""

    async def write(self, data: Buffer) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("nobody reads")


class EchoSource(Source):
    """Writes what comes into `sink`, until that has ended."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._at = 0

    async def read(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        sink = self._sink
        while self._at == len(sink.data) and not sink.ended.is_set():
            await sink.changed.park()
        piece = bytes(sink.data[self._at : self._at + max_bytes])
        self._at += len(piece)
        return piece


class ScriptedEndpoint(Endpoint):
    """Made of sources and a sink; ends with `status` when all its sources have ended.

    `linger` tells it to wait for the end of its input as well.
    """

    def __init__(
        self,
        sources: Mapping[Channel, Source],
        sink: Sink | None = None,
        status: ExitStatus | None = None,
        *,
        linger: bool = False,
    ) -> None:
        self.sources = sources
        self.sink = sink or Sink()
        self.signals: list[str] = []
        self.sizes: list[TerminalSize] = []
        self.eofs = 0
        self.closed = False
        self._status = status or ExitStatus(code=0)
        self._ended: set[Channel] = set()
        self._linger = linger
        self._closing = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def pid(self) -> int | None:
        return 4711

    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        if self.closed:
            raise trio.ClosedResourceError
        data = await self.sources[channel].read(max_bytes)
        if not data:
            self._ended.add(channel)
            self._changed.unpark_all()
        return data

    async def send(self, data: Buffer) -> None:
        if self.closed or self.eofs:
            raise trio.ClosedResourceError
        await self.sink.write(data)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.eofs += 1
        self.sink.end()
        self.sink.changed.unpark_all()
        self._changed.unpark_all()

    async def wait(self) -> ExitStatus:
        await trio.lowlevel.checkpoint()
        while not self.closed and (
            self._ended != set(self.sources) or (self._linger and not self.eofs)
        ):
            await self._changed.park()
        return self._status

    def resize(self, size: TerminalSize) -> None:
        self.sizes.append(size)
        self.sink.changed.unpark_all()

    def send_signal(self, name: str) -> None:
        if name == "NOSUCH":
            raise ValueError(f"there is no signal {name}")
        self.signals.append(name)
        self.sink.changed.unpark_all()

    async def aclose(self) -> None:
        self.closed = True
        self._changed.unpark_all()
        await trio.lowlevel.checkpoint()


def exec_endpoint(
    output: Source | bytes = b"", error: Source | bytes = b"", sink: Sink | None = None
) -> ScriptedEndpoint:
    """Return an endpoint for a stream of kind exec."""
    return ScriptedEndpoint({Channel.OUTPUT: _source(output), Channel.ERROR: _source(error)}, sink)


def pty_endpoint(output: Source | bytes, sink: Sink | None = None) -> ScriptedEndpoint:
    """Return an endpoint for a stream of kind pty."""
    return ScriptedEndpoint({Channel.OUTPUT: _source(output)}, sink)


def _source(given: Source | bytes) -> Source:
    return given if isinstance(given, Source) else BytesSource(given)
