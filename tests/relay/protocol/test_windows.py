"""Windows: never more than allowed, renewed in time, grown only where it helps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.budget import Budget, BudgetStatistics
from relay.protocol.errors import LocalProtocolError, RemoteProtocolError
from relay.protocol.windows import (
    INITIAL_WINDOW,
    MAX_WINDOW,
    RENEW_BYTES,
    ReceiveWindow,
    SendWindow,
    WindowStatistics,
)


def test_sending_within_the_limit() -> None:
    window = SendWindow(10, 15)
    assert window.available == 5
    window.advance(5)
    assert (window.sent, window.available) == (15, 0)
    with pytest.raises(LocalProtocolError, match="credit of 0"):
        window.advance(1)
    window.credited(12)  # old news
    assert window.limit == 15
    window.credited(20)
    assert window.available == 5


def test_a_gap_may_pass_the_limit() -> None:
    window = SendWindow(0, 5)
    window.skip_to(100)
    assert window.available == 0
    window.credited(101)
    assert window.available == 1


def test_acknowledging() -> None:
    window = SendWindow(0, 10)
    window.advance(8)
    window.acknowledged(5)
    window.acknowledged(3)  # old news
    assert window.acked == 5
    with pytest.raises(RemoteProtocolError, match="9 acknowledged, 8 sent"):
        window.acknowledged(9)


def test_receiving_in_order_and_within_the_grant() -> None:
    window = ReceiveWindow(100, 10)
    window.check(100, 4)
    for offset in (100, 103, 105):
        with pytest.raises(RemoteProtocolError, match="expected 104"):
            window.check(offset, 1)
    with pytest.raises(RemoteProtocolError, match="credit given up to 110"):
        window.check(104, 7)
    window.check(104, 6)
    assert window.statistics() == WindowStatistics(110, 100, 110, 10)


def test_consuming_only_what_came_and_only_forward() -> None:
    window = ReceiveWindow(0, 10)
    window.check(0, 5)
    window.consume(3)
    for offset in (2, 6):
        with pytest.raises(LocalProtocolError, match=r"3\.\.5"):
            window.consume(offset)


def test_a_gap_needs_credit_for_its_first_byte_only() -> None:
    window = ReceiveWindow(0, 10)
    window.skip(0, 1000)
    assert window.received == 1000
    with pytest.raises(RemoteProtocolError, match="credit given up to 10"):
        window.skip(1000, 2000)
    window.consume(1000)
    assert window.renewal(0.0, None) == 1010


@pytest.mark.parametrize(("start", "to"), [(4, 8), (6, 8), (5, 5), (5, 4)])
def test_a_gap_goes_forward_from_where_we_are(start: int, to: int) -> None:
    window = ReceiveWindow(0, 10)
    window.check(0, 5)
    with pytest.raises(RemoteProtocolError, match="gap"):
        window.skip(start, to)


def take(window: ReceiveWindow, size: int) -> None:
    window.check(window.received, size)
    window.consume(window.received)


def test_renewal_at_half_a_window() -> None:
    window = ReceiveWindow(0, 1000)
    take(window, 499)
    assert window.renewal(0.0, None) is None
    take(window, 1)
    assert window.renewal(0.0, None) == 1500
    assert window.renewal(0.0, None) is None


def test_a_large_window_is_renewed_as_often_as_a_ring_needs() -> None:
    window = ReceiveWindow(0, MAX_WINDOW)
    take(window, RENEW_BYTES - 1)
    assert window.renewal(0.0, None) is None
    take(window, 1)
    assert window.renewal(0.0, None) == MAX_WINDOW + RENEW_BYTES


def test_a_window_of_one_byte() -> None:
    window = ReceiveWindow(0, 1)
    for offset in range(5):
        take(window, 1)
        assert window.renewal(0.0, None) == offset + 2


def run(window: ReceiveWindow, rate: float, round_trip: float | None, seconds: float) -> None:
    """Consume `rate` bytes per second, as far as the window lets a sender send."""
    step = 0.001
    for tick in range(int(seconds / step)):
        size = min(int(rate * step), window.granted - window.received)
        if size:
            take(window, size)
        window.renewal(tick * step, round_trip)


def test_it_grows_where_it_is_too_small_for_the_path() -> None:
    window = ReceiveWindow(0, INITIAL_WINDOW, MAX_WINDOW)
    run(window, rate=100e6, round_trip=0.1, seconds=1.0)
    assert window.window == MAX_WINDOW


@pytest.mark.parametrize(("rate", "round_trip"), [(1e6, 0.1), (100e6, 0.001), (100e6, None)])
def test_it_does_not_grow_where_it_is_enough(rate: float, round_trip: float | None) -> None:
    window = ReceiveWindow(0, INITIAL_WINDOW, MAX_WINDOW)
    run(window, rate, round_trip, seconds=1.0)
    assert window.window == INITIAL_WINDOW


def test_it_grows_no_further_than_what_the_rate_needs() -> None:
    window = ReceiveWindow(0, INITIAL_WINDOW, MAX_WINDOW)
    run(window, rate=5e6, round_trip=0.1, seconds=5.0)  # 500 kB under way at a time
    assert INITIAL_WINDOW < window.window <= 2 * 1024 * 1024


def test_windows_grow_together_no_further_than_their_connection_allows() -> None:
    growth = Budget(MAX_WINDOW)
    windows = [ReceiveWindow(0, INITIAL_WINDOW, MAX_WINDOW, growth=growth) for _ in range(3)]
    for window in windows:
        run(window, rate=100e6, round_trip=0.1, seconds=1.0)
    sizes = [window.window for window in windows]
    assert sizes == [MAX_WINDOW, 2 * INITIAL_WINDOW, INITIAL_WINDOW]  # who comes first
    assert growth.available == 0
    windows[0].shrink()
    assert windows[0].window == INITIAL_WINDOW
    run(windows[2], rate=100e6, round_trip=0.1, seconds=1.0)
    assert windows[2].window == MAX_WINDOW
    for window in windows:
        window.shrink()
        window.shrink()  # nothing more to give back
    assert growth.statistics() == BudgetStatistics(MAX_WINDOW, taken=0, peak=MAX_WINDOW)


def test_credit_is_not_taken_back_when_a_window_shrinks() -> None:
    window = ReceiveWindow(0, 1000, 4000, growth=Budget(10_000))
    run(window, rate=1e6, round_trip=0.1, seconds=1.0)
    granted = window.granted
    window.shrink()
    assert window.window == 1000
    window.check(window.received, granted - window.received)
    window.consume(granted)
    assert window.renewal(2.0, 0.1) == granted + 1000


@given(
    st.integers(1, 2000),
    st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), max_size=50),
)
def test_the_two_sides_agree(size: int, moves: list[tuple[int, int]]) -> None:
    """A sender that keeps to its credit is never refused, and is never stuck for good."""
    sender, receiver = SendWindow(0, size), ReceiveWindow(0, size)
    for send, consume in moves:
        count = min(send, sender.available)
        if count:
            receiver.check(sender.sent, count)
            sender.advance(count)
        receiver.consume(min(receiver.received, receiver.consumed + consume))
        up_to = receiver.renewal(0.0, 1.0)
        if up_to is not None:
            sender.acknowledged(receiver.consumed)
            sender.credited(up_to)
        assert receiver.consumed <= receiver.received <= receiver.granted
        assert sender.limit <= receiver.granted
    receiver.consume(receiver.received)
    up_to = receiver.renewal(0.0, 1.0)
    if up_to is not None:
        sender.credited(up_to)
    assert sender.available > 0
