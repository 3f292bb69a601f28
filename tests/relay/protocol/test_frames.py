"""Frames: cut anywhere they are the same, and garbage has one outcome only."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.errors import RemoteProtocolError
from relay.protocol.frames import (
    MAX_CONTROL_BYTES,
    MAX_DATA_BYTES,
    MAX_OFFSET,
    ControlFrame,
    DataPiece,
    FrameDecoder,
    FrameType,
    encode_control,
    encode_data_header,
)

CONTROL_TYPES = [type_ for type_ in FrameType if type_ is not FrameType.DATA]
streams = st.integers(0, 2**32 - 1)
channels = st.integers(0, 255)


@st.composite
def control_frames(draw: st.DrawFn) -> tuple[bytes, ControlFrame]:
    type_ = draw(st.sampled_from([*CONTROL_TYPES, 0x7F, 0xFF]))
    stream, channel = draw(streams), draw(channels)
    payload = draw(st.binary(max_size=200))
    wire = struct.pack("!BBBxII", type_, 0, channel, stream, len(payload)) + payload
    return wire, ControlFrame(type_, stream, channel, payload)


@st.composite
def data_frames(draw: st.DrawFn) -> tuple[bytes, tuple[int, int, int, bytes]]:
    stream, channel = draw(streams), draw(channels)
    data = draw(st.binary(min_size=1, max_size=300))
    offset = draw(st.integers(0, MAX_OFFSET - 301))
    return (
        encode_data_header(stream, channel, offset, len(data)) + data,
        (stream, channel, offset, data),
    )


Seen = ControlFrame | tuple[int, int, int, bytes]


def joined(decoder: FrameDecoder, pieces: list[bytes]) -> list[Seen]:
    """Decode, joining the pieces of DATA frames that follow one another."""
    seen: list[Seen] = []
    for piece in pieces:
        for frame in decoder.feed(piece):
            if isinstance(frame, ControlFrame):
                seen.append(frame)
                continue
            last = seen[-1] if seen else None
            if (
                isinstance(last, tuple)
                and last[:2] == (frame.stream, frame.channel)
                and last[2] + len(last[3]) == frame.offset
            ):
                seen[-1] = (*last[:3], last[3] + bytes(frame.data))
            else:
                seen.append((frame.stream, frame.channel, frame.offset, bytes(frame.data)))
    return seen


@given(st.lists(st.one_of(control_frames(), data_frames()), max_size=6), st.data())
def test_cut_anywhere_frames_are_the_same(
    frames: list[tuple[bytes, Seen]], data: st.DataObject
) -> None:
    wire = b"".join(encoded for encoded, _ in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    whole = joined(FrameDecoder(), [wire])
    decoder = FrameDecoder()
    assert joined(decoder, pieces) == whole
    assert joined(FrameDecoder(), [wire[i : i + 1] for i in range(len(wire))]) == whole
    assert decoder.buffered_bytes == 0
    by_hand: list[Seen] = []
    for _, frame in frames:
        last = by_hand[-1] if by_hand else None
        if (
            isinstance(frame, tuple)
            and isinstance(last, tuple)
            and last[:2] == frame[:2]
            and last[2] + len(last[3]) == frame[2]
        ):
            by_hand[-1] = (*last[:3], last[3] + frame[3])
        else:
            by_hand.append(frame)
    assert whole == by_hand


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_garbage_is_frames_or_a_protocol_error(pieces: list[bytes]) -> None:
    decoder = FrameDecoder()
    try:
        for piece in pieces:
            for _ in decoder.feed(piece):
                assert decoder.buffered_bytes <= MAX_CONTROL_BYTES + 20
    except RemoteProtocolError:
        pass


def test_a_data_frame_is_handed_on_as_it_comes() -> None:
    decoder = FrameDecoder()
    head = encode_data_header(7, 1, 1000, 10)
    assert list(decoder.feed(head)) == []
    assert decoder.buffered_bytes == 0
    (first,) = decoder.feed(b"abc")
    assert isinstance(first, DataPiece)
    assert (first.offset, bytes(first.data)) == (1000, b"abc")
    (second,) = decoder.feed(b"defghij")
    assert isinstance(second, DataPiece)
    assert (second.offset, bytes(second.data)) == (1003, b"defghij")


def test_flags_and_the_reserved_byte_are_ignored() -> None:
    wire = bytearray(encode_control(FrameType.PING, 3, 2, b"x"))
    wire[1] = wire[3] = 0xFF
    assert list(FrameDecoder().feed(wire)) == [ControlFrame(FrameType.PING, 3, 2, b"x")]


@pytest.mark.parametrize("length", [0, 1, 8, 8 + MAX_DATA_BYTES + 1, 2**32 - 1])
def test_data_with_an_impossible_length(length: int) -> None:
    wire = struct.pack("!BBBxII", FrameType.DATA, 0, 1, 1, length)
    with pytest.raises(RemoteProtocolError, match="DATA"):
        list(FrameDecoder().feed(wire))


def test_the_largest_frames_pass() -> None:
    wire = encode_data_header(1, 1, 0, MAX_DATA_BYTES) + bytes(MAX_DATA_BYTES)
    (piece,) = FrameDecoder().feed(wire[:100_000])
    assert isinstance(piece, DataPiece)
    control = encode_control(FrameType.ATTACH, 1, 0, bytes(MAX_CONTROL_BYTES))
    (frame,) = FrameDecoder().feed(control)
    assert isinstance(frame, ControlFrame)


def test_a_control_frame_that_is_too_long() -> None:
    wire = struct.pack("!BBBxII", 0x55, 0, 0, 1, MAX_CONTROL_BYTES + 1)
    with pytest.raises(RemoteProtocolError, match="0x55"):
        list(FrameDecoder().feed(wire))


@pytest.mark.parametrize("offset", [MAX_OFFSET - 10, MAX_OFFSET, 2**64 - 1])
def test_offsets_stay_below_the_limit(offset: int) -> None:
    wire = struct.pack("!BBBxIIQ", FrameType.DATA, 0, 1, 1, 18, offset)
    with pytest.raises(RemoteProtocolError, match="offset"):
        list(FrameDecoder().feed(wire))
