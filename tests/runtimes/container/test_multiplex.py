"""The framing of output without a terminal."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.endpoint import Channel
from runtimes.container.multiplex import MAX_FAILURE_BYTES, Demultiplexer, MultiplexError


def piece(number: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", number, len(data)) + data


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=8),
    st.integers(1, 20),
)
def test_however_it_is_cut_each_channel_gets_its_bytes(
    pieces: list[tuple[int, bytes]], step: int
) -> None:
    wire = b"".join(piece(number, data) for number, data in pieces)
    demultiplexer = Demultiplexer()
    seen = {Channel.OUTPUT: b"", Channel.ERROR: b""}
    for start in range(0, len(wire), step):
        for channel, data in demultiplexer.feed(wire[start : start + step]):
            assert data
            seen[channel] += data
    for number, channel in ((1, Channel.OUTPUT), (2, Channel.ERROR)):
        assert seen[channel] == b"".join(data for n, data in pieces if n == number)
    assert demultiplexer.is_between_pieces


def test_a_piece_is_passed_on_before_it_is_whole() -> None:
    demultiplexer = Demultiplexer()
    assert [bytes(d) for _, d in demultiplexer.feed(piece(1, b"abcdef")[:10])] == [b"ab"]
    assert not demultiplexer.is_between_pieces
    assert [bytes(d) for _, d in demultiplexer.feed(b"cdef")] == [b"cdef"]
    assert demultiplexer.is_between_pieces


@pytest.mark.parametrize(
    "header", [b"\x04\0\0\0\0\0\0\x01", b"\x01\0\0\x01\0\0\0\x01", b"HTTP/1.1"]
)
def test_something_else_is_refused(header: bytes) -> None:
    with pytest.raises(MultiplexError, match="where a stream header belongs"):
        list(Demultiplexer().feed(header))


def test_the_complaint_of_the_engine_is_told_and_bounded() -> None:
    with pytest.raises(MultiplexError, match=r"^disk on fire$"):
        list(Demultiplexer().feed(piece(3, b"disk on fire\n")))
    endless = struct.pack(">BxxxL", 3, 2**32 - 1) + b"x" * 100_000
    with pytest.raises(MultiplexError) as caught:
        list(Demultiplexer().feed(endless))
    assert len(str(caught.value)) == MAX_FAILURE_BYTES
