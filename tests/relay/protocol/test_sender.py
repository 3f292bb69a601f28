"""A cursor on a ring, under credit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.frames import DataPiece
from relay.protocol.messages import Fin, Gap
from relay.protocol.ring import ReplayRing
from relay.protocol.sender import ChannelSender, SenderStatistics
from tests.testing.pair import Frame, parse


def next_frame(sender: ChannelSender, limit: int = 1000) -> Frame | tuple[int, bytes] | None:
    wire = b"".join(sender.next_frame(limit))
    if not wire:
        return None
    ((stream, channel, frame),) = parse(wire)
    assert (stream, channel) == (3, 1)
    return (frame.offset, bytes(frame.data)) if isinstance(frame, DataPiece) else frame


def is_idle(sender: ChannelSender) -> bool:
    return not sender.ready


def test_slices_under_credit() -> None:
    ring = ReplayRing(100)
    ring.append(b"abcdefghij")
    sender = ChannelSender(3, 1, ring, 2, 8)
    assert next_frame(sender, 4) == (2, b"cdef")
    assert next_frame(sender, 4) == (6, b"gh")
    assert is_idle(sender)
    assert next_frame(sender) is None
    sender.window.credited(20)
    assert sender.ready
    assert next_frame(sender) == (8, b"ij")
    assert not sender.ready


def test_a_cursor_that_was_overtaken_gets_a_gap() -> None:
    ring = ReplayRing(4)
    ring.append(b"abc")
    sender = ChannelSender(3, 1, ring, 0, 100)
    ring.append(b"defg")
    assert next_frame(sender) == Gap(start=0, to=3)
    assert next_frame(sender) == (3, b"defg")
    assert sender.statistics() == SenderStatistics(7, 0, 100, 0, 3, False)


def test_one_who_does_not_read_gets_no_gaps() -> None:
    ring = ReplayRing(4)
    sender = ChannelSender(3, 1, ring, 0, 2)
    ring.append(b"ab")
    assert next_frame(sender) == (0, b"ab")
    ring.append(b"cdefghij")
    assert not sender.ready
    assert next_frame(sender) is None
    sender.window.credited(3)
    assert next_frame(sender) == Gap(start=2, to=6)
    assert next_frame(sender) is None  # the gap has passed the credit
    sender.window.credited(7)
    assert next_frame(sender) == (6, b"g")


def test_the_end_needs_no_credit_and_comes_once() -> None:
    ring = ReplayRing(10)
    ring.append(b"ab")
    sender = ChannelSender(3, 1, ring, 0, 2)
    assert next_frame(sender) == (0, b"ab")
    assert is_idle(sender)
    ring.finished = True
    assert sender.ready
    assert next_frame(sender) == Fin(at=2)
    assert sender.fin_sent
    assert is_idle(sender)
    assert next_frame(sender) is None


def test_the_end_waits_for_the_bytes() -> None:
    ring = ReplayRing(10)
    ring.append(b"ab")
    ring.finished = True
    sender = ChannelSender(3, 1, ring, 0, 0)
    assert not sender.ready
    assert next_frame(sender) is None


def test_a_stopped_channel_says_nothing_more() -> None:
    ring = ReplayRing(10)
    ring.append(b"ab")
    ring.finished = True
    sender = ChannelSender(3, 1, ring, 0, 10)
    sender.stopped = True
    assert not sender.ready
    assert next_frame(sender) is None


def test_senders_on_one_ring_do_not_know_of_each_other() -> None:
    ring = ReplayRing(10)
    ring.append(b"abc")
    one, two = ChannelSender(3, 1, ring, 0, 10), ChannelSender(3, 1, ring, 1, 10)
    assert next_frame(one) == (0, b"abc")
    assert next_frame(two) == (1, b"bc")


@given(st.data())
def test_what_comes_out_is_what_went_in(data: st.DataObject) -> None:
    """Pieces and gaps follow one another without holes, within the credit; `ready` tells the truth."""
    ring = ReplayRing(data.draw(st.integers(1, 50)))
    everything = b""
    offset, limit = 0, 0
    sender = ChannelSender(3, 1, ring, 0, 0)
    for action in data.draw(st.lists(st.sampled_from(["append", "credit", "send"]), max_size=60)):
        if action == "append" and not ring.finished:
            piece = data.draw(st.binary(max_size=40))
            ring.append(piece)
            everything += piece
            ring.finished = data.draw(st.integers(0, 20)) == 0
        elif action == "credit":
            limit = max(limit, data.draw(st.integers(0, len(everything) + 10)))
            sender.window.credited(limit)
        else:
            ready = sender.ready
            frame = next_frame(sender, data.draw(st.integers(1, 30)))
            assert ready is (frame is not None)
            if isinstance(frame, tuple):
                assert frame[0] == offset
                assert offset + len(frame[1]) <= limit
                assert everything[offset:].startswith(frame[1])
                offset += len(frame[1])
            elif isinstance(frame, Gap):
                assert frame.start == offset < limit
                assert frame.to == ring.start
                offset = frame.to
            elif frame is not None:
                assert frame == Fin(at=len(everything))
                assert offset == len(everything)
