"""The replay ring: the last bytes of a channel, addressed by absolute offset.

Both ends keep one per channel they send: the owner so that readers can come late, be slow or come
back; the client until its input is acknowledged.

It is a circular buffer, not a list of chunks: a terminal writes many pieces of a few bytes, and
each would cost a Python object; here a byte costs a byte.  It starts small and doubles up to its
capacity.  Reading copies, so that what is on its way out cannot be overwritten by what comes in.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.protocol.budget import Budget
from relay.protocol.errors import LocalProtocolError

_SMALLEST = 4096


@dataclass(frozen=True, slots=True)
class RingStatistics:
    """Offsets and sizes of a ring, in bytes."""

    start: int
    end: int
    capacity: int
    allocated: int
    dropped: int


class ReplayRing:
    """Holds the bytes with offsets in `start` .. `end`, at most `capacity` of them.

    When it is full, `append` drops the oldest bytes; whoever must not lose them asks `room` first.

    With a `budget`, it takes `guaranteed` bytes from it at once and more as it grows; while there
    are none it stays as small as it is.  `release` gives them back.
    """

    def __init__(
        self, capacity: int, start: int = 0, *, budget: Budget | None = None, guaranteed: int = 0
    ) -> None:
        if capacity < 1:
            raise ValueError("a ring holds at least one byte")
        self._budget = budget
        self._granted = min(guaranteed, capacity)
        if budget is not None:
            budget.take(self._granted)
        self._capacity = capacity
        self._buffer = bytearray(min(_SMALLEST, capacity))
        self._start = start
        self._end = start
        self._head = 0  # where in the buffer the byte with offset `start` is
        self._dropped = 0
        self.finished = False
        """Nothing will be appended any more: `end` is the end of the channel."""

    @property
    def start(self) -> int:
        """The offset of the oldest byte that is still there."""
        return self._start

    @property
    def end(self) -> int:
        """The offset after the newest byte."""
        return self._end

    @property
    def capacity(self) -> int:
        """How many bytes it holds at the most."""
        return self._capacity

    def room(self, floor: int) -> int:
        """Return how many bytes can be appended without dropping one at or above `floor`."""
        return self._reachable - (self._end - max(floor, self._start))

    @property
    def _reachable(self) -> int:
        """The capacity that can be had now."""
        if self._budget is None:
            return self._capacity
        return min(self._capacity, self._granted + self._budget.available)

    def release(self) -> None:
        """Give back what was taken from the budget; the ring holds nothing from now on."""
        self.trim(self._end)
        self.finished = True
        self._buffer = bytearray(1)
        self._head = 0
        if self._budget is not None:
            self._budget.give_back(self._granted)
            self._granted = 0
            self._budget = None

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes at `end`, dropping the oldest where there is no room.

        Raises:
          LocalProtocolError: the ring is finished.
        """
        if self.finished:
            raise LocalProtocolError("bytes after the end of the channel")
        size = len(data)
        reachable = self._reachable
        if size > reachable:
            skipped = size - reachable
            self._dropped += self._end - self._start + skipped
            self._end += skipped
            self._start = self._end
            self._head = 0
            data = memoryview(data)[skipped:]
            size = reachable
        excess = self._end - self._start + size - reachable
        if excess > 0:
            self._dropped += excess
            self._forget(excess)
        self._reserve(self._end - self._start + size)
        buffer = self._buffer
        position = (self._head + self._end - self._start) % len(buffer)
        first = min(size, len(buffer) - position)
        if first == size:
            buffer[position : position + size] = data
        else:
            view = memoryview(data)
            buffer[position:] = view[:first]
            buffer[: size - first] = view[first:]
        self._end += size

    def read(self, offset: int, limit: int) -> bytes:
        """Return at most `limit` bytes from `offset` on; ``b""`` at the end.

        Raises:
          LocalProtocolError: `offset` is not in `start` .. `end`.
        """
        if not self._start <= offset <= self._end:
            raise LocalProtocolError(f"offset {offset} is not in {self._start}..{self._end}")
        size = min(limit, self._end - offset)
        buffer = self._buffer
        position = (self._head + offset - self._start) % len(buffer)
        first = min(size, len(buffer) - position)
        with memoryview(buffer) as view:
            if first == size:
                return bytes(view[position : position + size])
            return b"".join((view[position:], view[: size - first]))

    def trim(self, offset: int) -> None:
        """Forget everything below `offset` (which is not counted as dropped)."""
        if offset > self._start:
            self._forget(min(offset, self._end) - self._start)

    def statistics(self) -> RingStatistics:
        """Return a snapshot."""
        return RingStatistics(
            self._start, self._end, self._capacity, len(self._buffer), self._dropped
        )

    def _forget(self, count: int) -> None:
        self._head = (self._head + count) % len(self._buffer)
        self._start += count

    def _reserve(self, size: int) -> None:
        """Grow the buffer so that it holds `size` bytes, in order from index 0."""
        if size <= len(self._buffer):
            return
        grown = len(self._buffer)
        while grown < size:
            grown *= 2
        grown = min(grown, self._reachable)
        if self._budget is not None and grown > self._granted:
            self._budget.take(grown - self._granted)
            self._granted = grown
        content = self.read(self._start, self._end - self._start)
        buffer = bytearray(grown)
        buffer[: len(content)] = content
        self._buffer = buffer
        self._head = 0
