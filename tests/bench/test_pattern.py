from __future__ import annotations

import random

import pytest
from wsproto.frame_protocol import FrameProtocol, Opcode

from bench.pattern import (
    MASK,
    PERIOD,
    Check,
    Damage,
    Image,
    frames,
    lines,
    masked,
    pattern,
)

IMAGE = Image(pattern())
WHOLE = IMAGE.bytes[:PERIOD] * 3


def fed(data: bytes, expected: int, rng: random.Random) -> Damage:
    check = Check(IMAGE)
    at = 0
    while at < len(data):
        size = rng.randrange(1, 70_000)
        check.feed(memoryview(data)[at : at + size])
        at += size
    return check.finish(expected)


@pytest.fixture(params=range(4))
def rng(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


def test_no_two_words_are_equal() -> None:
    words = {WHOLE[at : at + 8] for at in range(0, PERIOD, 8)}
    assert len(words) == PERIOD // 8


def test_all_that_was_sent_is_clean(rng: random.Random) -> None:
    damage = fed(WHOLE, len(WHOLE), rng)
    assert damage.clean
    assert damage.received == len(WHOLE)


def test_lost_bytes_are_counted(rng: random.Random) -> None:
    start, size = rng.randrange(1, PERIOD), rng.randrange(1, 200_000)
    damage = fed(WHOLE[:start] + WHOLE[start + size :], len(WHOLE), rng)
    assert not damage.clean
    assert (damage.lost, damage.repeated, damage.changed) == (size, 0, 0)


def test_repeated_bytes_are_counted(rng: random.Random) -> None:
    start, size = rng.randrange(200_000, PERIOD), rng.randrange(1, 200_000)
    damage = fed(WHOLE[:start] + WHOLE[start - size :], len(WHOLE), rng)
    assert (damage.lost, damage.repeated, damage.changed) == (0, size, 0)


def test_a_hole_and_a_repetition_of_the_same_size_do_not_cancel_out(rng: random.Random) -> None:
    damaged = WHOLE[:50_000] + WHOLE[54_096:200_000] + WHOLE[195_904:]
    assert len(damaged) == len(WHOLE)
    damage = fed(damaged, len(WHOLE), rng)
    assert (damage.lost, damage.repeated) == (4096, 4096)


def test_a_missing_end_is_lost(rng: random.Random) -> None:
    assert fed(WHOLE[:-1000], len(WHOLE), rng).lost == 1000


def test_a_changed_byte_is_found(rng: random.Random) -> None:
    data = bytearray(WHOLE)
    data[rng.randrange(len(data) - 200_000)] ^= 1
    damage = fed(bytes(data), len(WHOLE), rng)
    assert not damage.clean
    assert damage.lost == damage.repeated


@pytest.mark.parametrize("size", [16, 1024, 65536])
@pytest.mark.parametrize("mask", [None, MASK])
def test_frames_are_what_others_read(size: int, mask: bytes | None) -> None:
    """The load generator's own framing, read by an implementation that is not its own."""
    reader = FrameProtocol(client=mask is None, extensions=[])
    reader.receive_bytes(frames(pattern(), size, mask)[: 4 * (size + 14)])
    got = b""
    for frame in reader.received_frames():
        assert frame.opcode in (Opcode.BINARY, Opcode.CONTINUATION)
        got += bytes(frame.payload)  # type: ignore[arg-type]  # no text, no close
    assert len(got) >= 3 * size
    assert pattern().startswith(got)


def test_masking_twice_is_nothing() -> None:
    for size in (0, 1, 3, 4, 7):
        data = bytes(range(size))
        assert masked(masked(data, MASK), MASK) == data


def test_frames_divide_the_pattern() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        frames(pattern(), 1000, None)


def test_an_image_is_long_enough_to_find_a_place() -> None:
    with pytest.raises(ValueError, match="at least"):
        Image(b"short")


def test_lines_are_numbered() -> None:
    first = lines().splitlines()
    assert first[:2] == [b"000000000000000", b"000000000000001"]
    assert len(set(first)) == len(first) == PERIOD // 16
