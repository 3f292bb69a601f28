"""What waits for the caller of `receive`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.endpoint import Channel
from relay.inbox import JOINED_BYTES, Inbox, Missed, Output, ScreenOutput
from relay.protocol.budget import Budget
from relay.protocol.messages import Screen


def inbox(live: int = 0, window: int = 1_000_000) -> Inbox:
    box = Inbox(Channel.OUTPUT, window)
    box.begin(0, live)
    return box


def put(box: Inbox, data: bytes) -> None:
    box.window.check(box.window.received, len(data))
    box.put(box.window.received - len(data), memoryview(data))


def put_gap(box: Inbox, to: int) -> None:
    start = box.window.received
    box.window.skip(start, to)
    box.put_gap(start, to)


def test_small_pieces_are_joined() -> None:
    box = inbox()
    for _ in range(100_000):
        put(box, b"x")
    assert len(box._items) <= 100_000 // JOINED_BYTES + 1
    first = box.take()
    assert isinstance(first, Output)
    assert (first.offset, len(first.data)) == (0, JOINED_BYTES)


def test_gaps_are_joined_too() -> None:
    box = inbox()
    for to in range(1, 1000):
        put_gap(box, to)
    put(box, b"x")
    assert box.take() == Missed(Channel.OUTPUT, 0, 999)
    assert box.take() == Output(Channel.OUTPUT, 999, b"x")
    assert box.is_empty


def test_a_piece_is_cut_where_the_replay_ends() -> None:
    box = inbox(live=3)
    put(box, b"abcdef")
    put(box, b"ghi")
    assert box.take() == Output(Channel.OUTPUT, 0, b"abc", replay=True)
    assert box.take() == Output(Channel.OUTPUT, 3, b"defghi")


def test_only_what_was_taken_can_have_been_consumed() -> None:
    box = inbox(live=6)
    put(box, b"abc")
    assert not box.consume_taken()
    assert box.window.consumed == 0
    box.take()
    assert not box.consume_taken()
    assert box.window.consumed == 3
    put_gap(box, 10)
    box.take()
    assert box.consume_taken(), "the replay has ended, in a gap"
    assert not box.consume_taken(), "and only once"


def test_what_is_asked_for_again_is_what_there_is_room_for() -> None:
    box = inbox(window=10)
    put(box, b"abcdef")
    assert box.grant_for_resume() == 4
    put(box, b"ghij")
    assert box.grant_for_resume() == 0
    box.take()
    box.consume_taken()
    assert box.grant_for_resume() == 10
    assert box.window.granted == 20


def grown_inbox(growth: Budget) -> Inbox:
    box = Inbox(Channel.OUTPUT, 100, growth)
    box.begin(0, 0)
    for now in range(10):
        put(box, bytes(100))
        box.take()
        box.consume_taken()
        box.window.renewal(float(now), 1e9)
    assert box.window.window > 100
    assert growth.statistics().taken == box.window.window - 100
    return box


def test_growth_is_given_back_when_the_last_byte_was_taken() -> None:
    growth = Budget(1000)
    box = grown_inbox(growth)
    put(box, b"last")
    box.end()
    assert growth.statistics().taken > 0
    box.take()
    assert growth.statistics().taken == 0
    box.consume_taken()
    assert box.window.renewal(20.0, 1e9) is None


def test_growth_is_given_back_when_the_end_comes_last_or_is_not_waited_for() -> None:
    growth = Budget(1000)
    grown_inbox(growth).end()
    assert growth.statistics().taken == 0
    box = grown_inbox(growth)
    put(box, b"left")
    box.give_up()
    assert growth.statistics().taken == 0
    assert box.waiting == 4
    assert box.take() == Output(Channel.OUTPUT, 1000, b"left")


def test_what_waits_is_counted() -> None:
    box = inbox()
    put(box, b"abc")
    put_gap(box, 10)
    put(box, b"de")
    assert box.waiting == 5
    box.take()
    assert box.waiting == 2


@given(st.lists(st.binary(min_size=1, max_size=50) | st.integers(1, 50)), st.integers(0, 200))
def test_what_goes_in_comes_out(pieces: list[bytes | int], live: int) -> None:
    box = inbox(live)
    expected: list[tuple[int, int | None, bool]] = []
    for piece in pieces:
        at = box.window.received
        if isinstance(piece, int):
            put_gap(box, at + piece)
            expected += [(offset, None, False) for offset in range(at, at + piece)]
        else:
            put(box, piece)
            expected += [(at + i, byte, at + i < live) for i, byte in enumerate(piece)]
    got: list[tuple[int, int | None, bool]] = []
    while not box.is_empty:
        item = box.take()
        if isinstance(item, Missed):
            got += [(offset, None, False) for offset in range(item.start, item.to)]
        else:
            got += [(item.offset + i, byte, item.replay) for i, byte in enumerate(item.data)]
        box.consume_taken()
        assert box.window.consumed == len(got)
    assert got == expected


def put_screen(box: Inbox, data: bytes) -> None:
    box.put_screen(
        Screen(data=data, at=box.window.received, columns=80, rows=24, last=True),
    )


def gap_with_screen(box: Inbox, to: int, data: bytes) -> None:
    start = box.window.received
    box.window.skip(start, to)
    box.put_gap(start, to, screen=True)
    put_screen(box, data)


def test_of_several_screens_that_wait_only_the_last_is_kept() -> None:
    """However often the ring runs away from one who does not read."""
    box = inbox()
    put(box, b"before")
    for number in range(1, 100):
        gap_with_screen(box, 1000 * number, b"s" * 50_000)
        put(box, b"bytes")
        assert box.waiting <= 6 + 50_000 + 5
    put(box, b", the last")
    assert box.take() == Output(Channel.OUTPUT, 0, b"before")
    assert box.take() == Missed(Channel.OUTPUT, 6, 99_000, screen=True)
    screen = box.take()
    assert isinstance(screen, ScreenOutput)
    assert screen.offset == 99_000
    assert box.take() == Output(Channel.OUTPUT, 99_000, b"bytes, the last")
    assert box.is_empty
    box.consume_taken()
    assert box.window.consumed == box.window.received


def test_a_screen_is_overtaken_by_one_without_a_gap() -> None:
    """As after a resume, where the first was taken to be lost."""
    box = inbox()
    box.expect_screen(announced=True)
    put_screen(box, b"first")
    box.expect_screen(announced=True)
    put_screen(box, b"second")
    screen = box.take()
    assert isinstance(screen, ScreenOutput)
    assert screen.data == b"second"
    assert box.is_empty
