"""A carrier without a network: two ends in one process, bounded like a socket's buffer."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from relay.carrier import Buffer, Carrier, CarrierStatistics
from relay.protocol.reasons import CloseReason

CAPACITY = 256 * 1024
"""Bytes that may wait in one direction before `send` waits (a unit may overshoot it)."""


class _Pipe:
    """One direction."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.ended = False
        self.broken = False
        self.readable = trio.lowlevel.ParkingLot()
        self.writable = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        self.readable.unpark_all()
        self.writable.unpark_all()


class MemoryCarrier(Carrier):
    """One end of a pair made by `carrier_pair`."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, description: str) -> None:
        self._in = incoming
        self._out = outgoing
        self._description = description
        self._closed = False
        self._sent = 0
        self._received = 0

    @property
    def description(self) -> str:
        """See `Carrier`."""
        return self._description

    async def receive(self) -> Buffer:
        """See `Carrier`."""
        if self._nothing_to_receive:
            while self._nothing_to_receive:
                await self._in.readable.park()
        else:
            await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError
        if not self._in.chunks:
            return b""
        data = b"".join(self._in.chunks)
        self._in.chunks.clear()
        self._in.size = 0
        self._received += len(data)
        self._in.writable.unpark_all()
        return data

    @property
    def _nothing_to_receive(self) -> bool:
        return not (self._in.chunks or self._in.ended or self._closed)

    async def send(self, buffers: Sequence[Buffer]) -> None:
        """See `Carrier`."""
        await trio.lowlevel.checkpoint()
        while self._out.size >= CAPACITY and not self._closed and not self._out.broken:
            await self._out.writable.park()
        if self._closed:
            raise trio.ClosedResourceError
        if self._out.broken:
            raise trio.BrokenResourceError("the other end is closed")
        data = b"".join(buffers)
        self._out.chunks.append(data)
        self._out.size += len(data)
        self._sent += len(data)
        self._out.readable.unpark_all()

    async def aclose(self, reason: CloseReason | None = None) -> None:
        """See `Carrier`."""
        self._closed = True
        self._out.ended = True
        self._in.broken = True
        self._out.wake()
        self._in.wake()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> CarrierStatistics:
        """See `Carrier`."""
        return CarrierStatistics(bytes_sent=self._sent, bytes_received=self._received)


def carrier_pair(description: str = "memory") -> tuple[MemoryCarrier, MemoryCarrier]:
    """Return two carriers; what one sends the other receives."""
    there, back = _Pipe(), _Pipe()
    return MemoryCarrier(back, there, description), MemoryCarrier(there, back, description)
