"""The mux: two real connections over a fake wire."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from relay.endpoint import Channel
from relay.protocol.connection import (
    SEND_BUDGET,
    SLICE_BYTES,
)
from relay.protocol.errors import LocalProtocolError
from relay.protocol.frames import (
    encode_data_header,
)
from relay.protocol.messages import (
    Closed,
    Credit,
    Detach,
    Exit,
    Fin,
    GoAway,
    Ping,
    Pong,
    Resize,
    Signal,
    Stop,
    encode,
)
from relay.protocol.reasons import CloseReason
from relay.protocol.ring import ReplayRing
from relay.protocol.windows import ReceiveWindow
from tests.testing.pair import (
    ANSWER,
    ATTACH,
    Pair,
    fresh,
    full_ring,
    open_stream,
    parse,
    receive,
    sent,
)

# -------------------------------------------------------------------------- the pair


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
@pytest.mark.parametrize("by_dialer", [True, False])
def test_bytes_both_ways(seed: int | None, by_dialer: bool) -> None:
    pair = Pair(seed)
    attacher = pair.dialer if by_dialer else pair.acceptor
    owner = pair.other(attacher)
    chance = random.Random(7)
    output, input_ = chance.randbytes(200_000), chance.randbytes(100_000)
    ring = ReplayRing(len(output))
    id_, _, window = open_stream(pair, ring, 50_000, by=attacher)
    input_ring = ReplayRing(len(input_))
    input_window = ReceiveWindow(0, 20_000)
    owner.connection.open_receiver(id_, Channel.INPUT, input_window)
    attacher.connection.open_sender(id_, Channel.INPUT, input_ring, 0, 20_000)
    ring.append(output)
    owner.connection.wake(id_, Channel.OUTPUT)
    input_ring.append(input_)
    attacher.connection.wake(id_, Channel.INPUT)
    for _ in range(100):
        pair.pump()
        for end, channel, counted in (
            (attacher, Channel.OUTPUT, window),
            (owner, Channel.INPUT, input_window),
        ):
            counted.consume(counted.received)
            up_to = counted.renewal(0.0, None)
            if up_to is not None:
                end.connection.credit(id_, channel, ack=counted.consumed, up_to=up_to)
    assert attacher.data[id_, Channel.OUTPUT] == output
    assert owner.data[id_, Channel.INPUT] == input_


def test_streams_share_fairly() -> None:
    """Jain's index over what ten streams have sent stays at 0.99 or more, whenever one looks."""
    pair = Pair()
    rings = [ReplayRing(2_000_000) for _ in range(10)]
    senders = [open_stream(pair, ring)[1] for ring in rings]
    for ring in rings:
        ring.append(bytes(2_000_000))
    for id_ in pair.acceptor.connection._streams:
        pair.acceptor.connection.wake(id_, Channel.OUTPUT)
    for turn in range(50):
        pair.step(pair.acceptor)
        done = [sender.window.sent for sender in senders]
        assert max(done) - min(done) <= SLICE_BYTES
        if turn >= 15:
            assert sum(done) ** 2 / (len(done) * sum(x * x for x in done)) >= 0.99


def test_a_stalled_stream_costs_the_others_nothing() -> None:
    pair = Pair()
    _, stalled, _ = open_stream(pair, full_ring(1_000_000), credit=1000)
    _, running, _ = open_stream(pair, full_ring(1_000_000))
    pair.step(pair.acceptor)
    assert stalled.window.sent == 1000
    before = running.window.sent
    pair.step(pair.acceptor)
    assert running.window.sent - before >= SEND_BUDGET


def test_a_unit_is_about_the_budget() -> None:
    pair = Pair()
    open_stream(pair, full_ring(2_000_000))
    unit = b"".join(pair.acceptor.connection.next_send())
    assert SEND_BUDGET <= len(unit) <= SEND_BUDGET + SLICE_BYTES + 100


def test_control_goes_before_waiting_data() -> None:
    pair = Pair()
    id_, _, _ = open_stream(pair, full_ring(1_000_000))
    owner = pair.acceptor.connection
    owner.credit(id_, Channel.INPUT, ack=None, up_to=10)
    receive(owner, encode(Ping(id=5)))
    owner.go_away(CloseReason.DRAINING)
    names = [type(frame).__name__ for _, _, frame in parse(b"".join(owner.next_send()))]
    assert names[:3] == ["GoAway", "Pong", "Credit"]
    assert set(names[3:]) == {"DataPiece"}
    owner.close(id_, CloseReason.REVOKED)
    assert [f for _, _, f in sent(owner)] == [Closed(reason=CloseReason.REVOKED)]


def test_answers_do_not_pile_up_under_a_flood() -> None:
    pair = Pair()
    id_, _, _ = open_stream(pair, ReplayRing(10))
    owner = pair.acceptor.connection
    receive(owner, b"".join(encode(Ping(id=n)) for n in range(10_000)))
    for up_to in range(10_000):
        owner.credit(id_, Channel.INPUT, ack=up_to if up_to % 2 else None, up_to=up_to)
    assert sent(owner) == [(0, 0, Pong(id=9_999)), (id_, 0, Credit(ack=9_999, up_to=9_999))]
    assert not owner.has_output


def test_a_later_credit_keeps_what_it_does_not_say() -> None:
    pair = Pair()
    id_, _, _ = open_stream(pair, ReplayRing(10))
    owner = pair.acceptor.connection
    owner.credit(id_, Channel.INPUT, ack=3, up_to=None)
    owner.credit(id_, Channel.INPUT, ack=None, up_to=9)
    assert sent(owner) == [(id_, 0, Credit(ack=3, up_to=9))]


def test_no_credit_for_what_has_ended() -> None:
    pair = Pair()
    id_, _, _ = open_stream(pair, ReplayRing(10))
    owner = pair.acceptor.connection
    owner.credit(id_, Channel.INPUT, ack=3, up_to=9)
    owner.close(id_, CloseReason.REVOKED)
    owner.credit(id_, Channel.INPUT, ack=4, up_to=10)
    assert sent(owner) == [(id_, 0, Closed(reason=CloseReason.REVOKED))]


def test_waking_too_often_costs_nothing() -> None:
    pair = Pair()
    ring = ReplayRing(100)
    id_, _, _ = open_stream(pair, ring)
    ring.append(b"abc")
    for _ in range(1000):
        pair.acceptor.connection.wake(id_, Channel.OUTPUT)
    pair.acceptor.connection.wake(id_, Channel.ERROR)
    pair.acceptor.connection.wake(999, Channel.OUTPUT)
    assert len(pair.acceptor.connection._ready) == 1
    pair.pump()
    assert pair.dialer.data[id_, 1] == b"abc"


# -------------------------------------------------------------------------- the end of streams


def test_the_exit_follows_the_end_of_every_channel() -> None:
    pair = Pair()
    output, error = ReplayRing(10), ReplayRing(10)
    id_, _, _ = open_stream(pair, output)
    owner, attacher = pair.acceptor.connection, pair.dialer.connection
    owner.open_sender(id_, Channel.ERROR, error, 0, 3)
    attacher.open_receiver(id_, Channel.ERROR, ReceiveWindow(0, 3))
    owner.exit(id_, Exit(code=3))
    output.finished = True
    owner.wake(id_, Channel.OUTPUT)
    error.append(b"12345")
    error.finished = True
    owner.wake(id_, Channel.ERROR)
    pair.pump()
    assert not pair.dialer.messages(Exit)  # two bytes have no credit yet
    attacher.credit(id_, Channel.ERROR, ack=3, up_to=5)
    window = attacher._streams[id_].receivers[Channel.ERROR]
    window.granted = 5
    pair.pump()
    last = [type(event.message) for event in pair.dialer.events][-2:]
    assert last == [Fin, Exit]
    assert pair.dialer.data[id_, 2] == b"12345"


def test_the_exit_does_not_wait_for_a_stopped_channel() -> None:
    pair = Pair()
    id_, _, _ = open_stream(pair, full_ring(100), credit=10)
    pair.acceptor.connection.exit(id_, Exit(signal="KILL"))
    pair.pump()
    assert not pair.dialer.messages(Exit)
    pair.dialer.connection.stop(id_, Channel.OUTPUT)
    pair.pump()
    assert pair.dialer.messages(Exit) == [Exit(signal="KILL")]
    assert not pair.dialer.messages(Fin)


def attached_with_input(pair: Pair, credit: int) -> tuple[int, ReplayRing]:
    id_, _, _ = open_stream(pair, ReplayRing(10))
    ring = ReplayRing(1_000_000)
    pair.acceptor.connection.open_receiver(id_, Channel.INPUT, ReceiveWindow(0, credit))
    pair.dialer.connection.open_sender(id_, Channel.INPUT, ring, 0, credit)
    return id_, ring


def test_detaching_lets_input_go_first() -> None:
    pair = Pair()
    id_, ring = attached_with_input(pair, 500_000)
    ring.append(bytes(1_000_000))
    pair.dialer.connection.wake(id_, Channel.INPUT)
    pair.dialer.connection.detach(id_)
    pair.pump()
    assert len(pair.acceptor.data[id_, 0]) == 500_000
    assert pair.acceptor.messages(Detach)
    assert pair.dialer.connection.statistics().streams == 0
    assert pair.acceptor.connection.statistics().streams == 0


def test_detaching_does_not_wait_for_input_that_nobody_reads() -> None:
    pair = Pair()
    id_, ring = attached_with_input(pair, 500_000)
    ring.append(bytes(400_000))
    pair.dialer.connection.wake(id_, Channel.INPUT)
    pair.dialer.connection.detach(id_)
    pair.acceptor.connection.stop(id_, Channel.INPUT)
    pair.step(pair.acceptor)  # STOP comes before the sender has had its turn
    pair.pump()
    assert pair.acceptor.messages(Detach)
    assert pair.dialer.connection.statistics().streams == 0


def test_detaching_before_the_answer() -> None:
    pair = Pair()
    id_ = pair.dialer.connection.attach(ATTACH)
    pair.step(pair.dialer)
    pair.dialer.connection.detach(id_)
    assert not pair.dialer.connection.is_open(id_)
    pair.acceptor.connection.accept(id_, ANSWER)
    pair.pump()
    assert not pair.dialer.events  # ATTACHED and CLOSED are nobody's business any more
    assert pair.dialer.connection.statistics().streams == 0


def test_what_is_under_way_when_detaching_is_ignored() -> None:
    pair = Pair()
    id_, _, window = open_stream(pair, full_ring(1000))
    unit = b"".join(pair.acceptor.connection.next_send())
    pair.dialer.connection.detach(id_)
    pair.feed(pair.dialer, unit)
    assert window.received == 0
    assert not pair.dialer.data
    with pytest.raises(LocalProtocolError, match="DETACH on a stream that is DETACHING"):
        pair.dialer.connection.detach(id_)


def test_late_frames_are_ignored() -> None:
    pair = Pair()
    id_, _, _ = open_stream(pair, full_ring(1000))
    pair.pump()
    pair.acceptor.connection.close(id_, CloseReason.TAKEN_OVER)
    late = [
        encode_data_header(id_, 0, 0, 3) + b"abc",
        encode(Credit(ack=5, up_to=2), id_, 1),
        encode(Fin(at=0), id_, 0),
        encode(Resize(columns=1, rows=1), id_),
        encode(Signal(number=1, name="INT"), id_),
        encode(Stop(), id_, 1),
        encode(Detach(), id_),
    ]
    assert receive(pair.acceptor.connection, b"".join(late)) == []
    assert [f for _, _, f in sent(pair.acceptor.connection)] == [
        Closed(reason=CloseReason.TAKEN_OVER)
    ]


def test_a_frame_may_become_late_half_way() -> None:
    pair = Pair()
    id_, _, _ = open_stream(pair, full_ring(1000))
    unit = b"".join(pair.acceptor.connection.next_send())
    pair.feed(pair.dialer, unit[:500])
    assert len(pair.dialer.data[id_, 1]) > 400
    before = len(pair.dialer.data[id_, 1])
    pair.dialer.connection.detach(id_)
    pair.feed(pair.dialer, unit[500:])
    assert len(pair.dialer.data[id_, 1]) == before


# -------------------------------------------------------------------------- the link


def test_the_round_trip() -> None:
    pair = Pair()
    pair.pump()
    pair.dialer.connection.ping(pair.now)
    pair.dialer.connection.ping(pair.now)  # one is under way already
    pair.step(pair.dialer)
    pair.now = 0.25
    pair.step(pair.acceptor)
    assert pair.dialer.connection.round_trip == 0.25
    assert not pair.dialer.connection.has_output


def test_a_pong_that_nobody_asked_for() -> None:
    connection = fresh()
    receive(connection, encode(Pong(id=1)), encode(Pong(id=2**62)))
    assert connection.round_trip is None


def test_goaway_reaches_the_owner_of_the_connection() -> None:
    connection = fresh()
    message = GoAway(reason=CloseReason.DRAINING, message="soon", retry_after=2.5)
    assert receive(connection, encode(message)) == [message]


def test_steps_on_what_is_not_open() -> None:
    connection = fresh()
    steps: list[Callable[[], None]] = [
        lambda: connection.accept(1, ANSWER),
        lambda: connection.close(1, CloseReason.EXITED),
        lambda: connection.stop(1, Channel.INPUT),
        lambda: connection.exit(1, Exit(code=0)),
        lambda: connection.detach(1),
    ]
    for step in steps:
        with pytest.raises(LocalProtocolError, match="stream 1, which is not open"):
            step()


def test_statistics_go_back_to_where_they_were() -> None:
    pair = Pair()
    for _ in range(300):
        id_, _, _ = open_stream(pair, full_ring(1000))
        pair.pump()
        pair.dialer.connection.detach(id_)
        pair.pump()
    for end in (pair.dialer, pair.acceptor):
        assert end.connection.statistics().streams == 0
        assert end.connection.statistics().backlog == 0
        assert not end.connection.has_output
    assert pair.acceptor.connection.statistics().data_sent == 300_000
    assert pair.dialer.connection.statistics().data_received == 300_000
