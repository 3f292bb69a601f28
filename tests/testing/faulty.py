"""A pair of carriers over a bad network: it cuts, stalls, splits, delays and half-closes.

Everything it does follows from the `Fault` of each direction and from a seed, so a failure comes
back.  Time is Trio's, so a mock clock makes a delay cost nothing.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import trio

from relay.carrier import Buffer, Carrier, CarrierStatistics
from relay.protocol.reasons import CloseReason


class Cut(Enum):
    """What a cut looks like."""

    RESET = auto()
    """Both ends get an error at once; what was under way is lost."""
    END = auto()
    """Both ends may read what had come, then see the end of the pipe."""
    HALF = auto()
    """The receiver of this direction sees its end; the other direction goes on."""
    STALL = auto()
    """Nothing comes through any more, in either direction, and nobody is told."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one direction.

    After `at` bytes (None: never) `cut` happens.  `split` is the most bytes one `receive` returns
    (1: each byte alone).  `latency` is in seconds, `capacity` in bytes.
    """

    at: int | None = None
    cut: Cut = Cut.RESET
    split: int | None = None
    latency: float = 0.0
    capacity: int = 256 * 1024


FINE = Fault()


class _Direction:
    """The bytes one way."""

    def __init__(self, fault: Fault, chance: random.Random) -> None:
        self.fault = fault
        self.chance = chance
        self.units: deque[tuple[float, memoryview]] = deque()  # when each arrives
        self.held = 0
        self.carried = 0
        self.ended = False
        self.reset = False
        self.stalled = False
        self.changed = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        self.changed.unpark_all()

    def put(self, data: bytes) -> bool:
        """Take bytes; tell whether that was one too many."""
        fault = self.fault
        room = math.inf if fault.at is None else fault.at - self.carried
        taken = data if len(data) <= room else data[: int(max(0, room))]
        self.carried += len(taken)
        if taken and not self.stalled:
            self.units.append((trio.current_time() + fault.latency, memoryview(taken)))
            self.held += len(taken)
            self.wake()
        return len(data) > room or (fault.at is not None and self.carried >= fault.at)

    async def get(self) -> bytes | None:
        """Return what has arrived, b"" at the end; None: look again."""
        if self.reset:
            raise trio.BrokenResourceError("the network reset the connection")
        if self.units and not self.stalled:
            arrives, data = self.units[0]
            if arrives > trio.current_time():
                with trio.move_on_at(arrives):
                    await self.changed.park()
                return None
            split = self.fault.split
            if split is not None and len(data) > split:
                size = split if split == 1 else self.chance.randint(1, split)
                self.units[0] = (arrives, data[size:])
                data = data[:size]
            else:
                self.units.popleft()
            self.held -= len(data)
            self.wake()
            return bytes(data)
        if self.ended and not self.stalled:
            return b""
        await self.changed.park()
        return None


class FaultyCarrier(Carrier):
    """One end of a pair made by `faulty_pair`."""

    def __init__(self, network: Network, incoming: _Direction, outgoing: _Direction) -> None:
        self.network = network
        self._in = incoming
        self._out = outgoing
        self.closed = False
        self.close_reason: CloseReason | None = None
        self._sent = 0
        self._received = 0

    @property
    def description(self) -> str:
        return "a bad network"

    async def receive(self) -> Buffer:
        await trio.lowlevel.checkpoint()
        while True:
            if self.closed:
                raise trio.ClosedResourceError
            data = await self._in.get()
            if data is not None:
                self._received += len(data)
                return data

    async def send(self, buffers: Sequence[Buffer]) -> None:
        await trio.lowlevel.checkpoint()
        data = b"".join(buffers)
        while True:
            self._check()
            if self._out.stalled or self._out.held >= self._out.fault.capacity:
                await self._out.changed.park()
                continue
            self._sent += len(data)
            if self._out.put(data):
                self.network.cut(self._out.fault.cut, self._out)
            self._check()
            return

    def _check(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError
        if self._out.reset or self._out.ended:
            raise trio.BrokenResourceError("the network reset the connection")

    async def aclose(self, reason: CloseReason | None = None) -> None:
        if not self.closed:
            self.closed = True
            self.close_reason = reason
            self._out.ended = True
            self._in.reset = True
            self._in.wake()
            self._out.wake()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> CarrierStatistics:
        return CarrierStatistics(bytes_sent=self._sent, bytes_received=self._received)


class Network:
    """What is between two carriers."""

    def __init__(self, there: _Direction, back: _Direction) -> None:
        self._directions = (there, back)

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes carried there and back."""
        there, back = self._directions
        return there.carried, back.carried

    def cut(self, how: Cut, only: _Direction | None = None) -> None:
        """Cut now."""
        for direction in self._directions:
            if how is Cut.RESET:
                direction.reset = True
            elif how is Cut.STALL:
                direction.stalled = True
            elif how is Cut.END or direction is only or only is None:
                direction.ended = True
            direction.wake()


def faulty_pair(
    there: Fault = FINE, back: Fault = FINE, seed: int = 0
) -> tuple[FaultyCarrier, FaultyCarrier]:
    """Return the dialer's end and the acceptor's; `there` is the way from the dialer."""
    chance = random.Random(seed)
    one, two = _Direction(there, chance), _Direction(back, chance)
    network = Network(one, two)
    return FaultyCarrier(network, two, one), FaultyCarrier(network, one, two)
