"""The replay ring against the plain bytes it stands for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.protocol.errors import LocalProtocolError
from relay.protocol.ring import ReplayRing


class RingMachine(RuleBasedStateMachine):
    """A ring of a small capacity beside all the bytes it ever got."""

    def __init__(self) -> None:
        super().__init__()
        self.capacity = 5000
        self.base = 1234
        self.ring = ReplayRing(self.capacity, self.base)
        self.all = bytearray()
        self.start = self.base
        self.dropped = 0

    @property
    def end(self) -> int:
        return self.base + len(self.all)

    @rule(data=st.binary(max_size=300), times=st.integers(1, 40))
    def append(self, data: bytes, times: int) -> None:
        data *= times
        self.ring.append(data)
        self.all += data
        oldest = max(self.start, self.end - self.capacity)
        self.dropped += oldest - self.start
        self.start = oldest

    @rule(back=st.integers(0, 6000))
    def trim(self, back: int) -> None:
        offset = self.end - back
        self.ring.trim(offset)
        self.start = max(self.start, offset)

    @rule()
    def trim_beyond_the_end(self) -> None:
        self.ring.trim(self.end + 10)
        self.start = self.end

    @precondition(lambda self: self.end > self.start)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(self.start, self.end))
        limit = data.draw(st.integers(0, 7000))
        expected = bytes(self.all[offset - self.base :][:limit])
        assert self.ring.read(offset, limit) == expected

    @rule(floor_back=st.integers(0, 6000))
    def room(self, floor_back: int) -> None:
        floor = self.end - floor_back
        room = self.ring.room(floor)
        kept = self.end - max(floor, self.start)
        assert room == self.capacity - kept

    @invariant()
    def same(self) -> None:
        ring = self.ring
        assert (ring.start, ring.end) == (self.start, self.end)
        assert ring.end - ring.start <= self.capacity
        statistics = ring.statistics()
        assert statistics.dropped == self.dropped
        assert statistics.allocated <= self.capacity
        assert ring.read(self.start, self.capacity) == self.all[self.start - self.base :]


TestRing = RingMachine.TestCase


@given(st.integers(1, 40), st.lists(st.binary(max_size=60), max_size=10))
def test_every_capacity(capacity: int, pieces: list[bytes]) -> None:
    ring = ReplayRing(capacity)
    everything = b""
    for piece in pieces:
        ring.append(piece)
        everything += piece
        assert ring.end == len(everything)
        assert ring.start == max(0, len(everything) - capacity)
        assert ring.read(ring.start, capacity) == everything[ring.start :]
        assert ring.statistics().dropped == ring.start


def test_what_is_read_does_not_change() -> None:
    ring = ReplayRing(4)
    ring.append(b"abcd")
    before = ring.read(0, 4)
    ring.append(b"efgh")
    assert before == b"abcd"


def test_it_takes_memory_only_as_it_fills() -> None:
    ring = ReplayRing(1024 * 1024)
    assert ring.statistics().allocated == 4096
    ring.append(bytes(5000))
    assert ring.statistics().allocated == 8192
    ring.append(bytes(3 * 1024 * 1024))
    assert ring.statistics().allocated == 1024 * 1024


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_it_takes_any_buffer(kind: type) -> None:
    ring = ReplayRing(8)
    ring.append(b"123456")
    ring.append(kind(b"abcdef"))
    assert ring.read(4, 8) == b"56abcdef"


def test_a_capacity_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ReplayRing(0)


def test_reading_what_is_not_there() -> None:
    ring = ReplayRing(4, start=10)
    ring.append(b"abcdef")
    for offset in (11, 17):
        with pytest.raises(LocalProtocolError, match=r"12\.\.16"):
            ring.read(offset, 1)


def test_nothing_after_the_end() -> None:
    ring = ReplayRing(4)
    ring.finished = True
    with pytest.raises(LocalProtocolError, match="after the end"):
        ring.append(b"x")
