"""Frames in bulk: both implementations against each other and against the reader of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.websocket import reader as reader_module
from relay.websocket.frames import Binary, Event, FrameError, Opcode, Role, encode_frame
from relay.websocket.reader import FrameReader
from relay.websocket.unmasking import (
    BETWEEN_MESSAGES,
    Unmask,
    unmask_in_c,
    unmask_in_python,
)

IMPLEMENTATIONS = [
    pytest.param(unmask_in_python, id="python"),
    pytest.param(
        unmask_in_c,
        id="c",
        marks=pytest.mark.skipif(unmask_in_c is None, reason="the C codec was not built"),
    ),
]


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Unmask:
    chosen: Unmask = request.param
    monkeypatch.setattr(reader_module, "unmask", chosen)
    return chosen


def masked(
    opcode: int, payload: bytes, *, final: bool = True, key: bytes = b"\x01\x80\xff\x7e"
) -> bytes:
    return encode_frame(Opcode(opcode), payload, mask=key, final=final)


def read_as_stream(pieces: Sequence[bytes]) -> tuple[bytes, list[Event], str | None]:
    """Return the byte stream, the other events, and how it failed."""
    reader = FrameReader(Role.SERVER)
    payload = bytearray()
    events: list[Event] = []
    buffer = memoryview(bytearray(max(map(len, pieces), default=0) + 65536))
    try:
        for piece in pieces:
            held = len(reader.held)
            buffer[:held] = reader.held
            buffer[held : held + len(piece)] = piece
            payload += reader.read_stream(buffer, held + len(piece))
            while (event := reader.next_event(merge=True)) is not None:
                if isinstance(event, Binary):
                    payload += event.data
                else:
                    events.append(event)
    except FrameError as error:
        return bytes(payload), events, str(error)
    assert reader.payload_bytes >= len(payload)
    return bytes(payload), events, None


def read_by_events(pieces: Sequence[bytes]) -> tuple[bytes, list[Event], str | None]:
    reader = FrameReader(Role.SERVER)
    payload = bytearray()
    events: list[Event] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (event := reader.next_event(merge=True)) is not None:
                if isinstance(event, Binary):
                    payload += event.data
                else:
                    events.append(event)
    except FrameError as error:
        return bytes(payload), events, str(error)
    return bytes(payload), events, None


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """Mostly proper frames, with everything that may be between them, and sometimes garbage."""
    out = bytearray()
    sizes = st.sampled_from([0, 1, 3, 4, 7, 125, 126, 127, 1000, 65535, 65536, 70001])
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.integers(0, 9))
        key = draw(st.binary(min_size=4, max_size=4))
        payload = bytes(range(256)) * 274
        payload = payload[: draw(sizes)]
        if kind < 5:
            out += masked(2, payload, key=key)
        elif kind == 5:
            out += masked(2, payload, final=False, key=key)
            if draw(st.booleans()):
                out += masked(9, b"between", key=key)
            out += masked(0, payload, key=key)
        elif kind == 6:
            out += masked(9, payload[:125], key=key)
        elif kind == 7:
            out += masked(1, b"text \xc3\xa9", key=key)
        elif kind == 8:
            out += draw(st.binary(max_size=20))
        else:
            out += masked(8, b"", key=key)
    return bytes(out)


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


@given(data=conversations(), cuts=st.lists(st.integers(0, 1 << 20), max_size=5))
def test_the_stream_is_what_the_events_say(data: bytes, cuts: list[int]) -> None:
    pieces = cut(data, cuts)
    expected = read_by_events(pieces)
    for parameter in IMPLEMENTATIONS:
        (chosen,) = parameter.values
        if chosen is None:
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader_module, "unmask", chosen)
            payload, events, error = read_as_stream(pieces)
        assert (events, error) == expected[1:]
        if error is None:
            assert payload == expected[0]
        else:  # what was joined in front of an error is lost to who reads events
            assert payload.startswith(expected[0])


def test_every_cut_of_a_conversation(implementation: Unmask) -> None:
    data = masked(2, b"abcde") + masked(2, b"fg", final=False) + masked(0, b"h" * 130)
    for place in range(len(data) + 1):
        payload, events, error = read_as_stream([data[:place], data[place:]])
        assert (payload, events, error) == (b"abcdefg" + b"h" * 130, [], None)


def test_a_frame_larger_than_the_buffer(implementation: Unmask) -> None:
    content = bytes(range(256)) * 1024
    frame = masked(2, content)
    pieces = [frame[at : at + 40_001] for at in range(0, len(frame), 40_001)]
    assert read_as_stream(pieces) == (content, [], None)


def test_what_is_not_for_here_is_left_where_it_is(implementation: Unmask) -> None:
    first = masked(2, b"first")
    for frame in (
        masked(9, b"ping"),
        masked(1, b"text"),
        encode_frame(Opcode.BINARY, b"not masked", mask=None),
        masked(0, b"nothing to continue"),
        b"\xc2" + masked(2, b"reserved")[1:],
        b"\x82\xfe\x00\x05" + bytes(4) + b"short",
        b"\x82\xff" + (5).to_bytes(8, "big") + bytes(4) + b"short",
        b"\x82\xff" + (1 << 63).to_bytes(8, "big") + bytes(4),
    ):
        data = memoryview(bytearray(first + frame))
        result = implementation(data, 0, len(data), 0, bytes(4), BETWEEN_MESSAGES)
        assert bytes(result.payload) == b"first"
        assert result.position == len(first)
        assert result.state == BETWEEN_MESSAGES
        assert bytes(data[len(first) :]) == frame


@dataclass
class Arguments:
    position: int = 0
    end: int = 4
    remaining: int = 0
    key: bytes = bytes(4)
    state: int = 0


@pytest.mark.skipif(unmask_in_c is None, reason="the C codec was not built")
@pytest.mark.parametrize(
    "bad",
    [
        Arguments(position=-1),
        Arguments(position=3, end=2),
        Arguments(end=5),
        Arguments(key=b"abc"),
        Arguments(state=4),
        Arguments(state=-1),
    ],
)
def test_the_c_code_trusts_nobody(bad: Arguments) -> None:
    assert unmask_in_c is not None
    with pytest.raises(ValueError, match="out of range"):
        unmask_in_c(
            memoryview(bytearray(4)), bad.position, bad.end, bad.remaining, bad.key, bad.state
        )
    with pytest.raises(TypeError):
        unmask_in_c(memoryview(b"read-only"), 0, 4, 0, bytes(4), 0)
