"""Delays grow, spread, and stay within their bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.backoff import Backoff


def test_it_doubles_up_to_the_maximum() -> None:
    backoff = Backoff(first=0.1, maximum=1.0)
    assert [backoff.next_delay(1.0) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next_delay(1.0) == 0.1


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_it_is_spread_down_by_half_at_most(attempts: int, chance: float) -> None:
    most = Backoff(attempts=attempts).next_delay(1.0)
    assert most / 2 <= Backoff(attempts=attempts).next_delay(chance) <= most <= 10.0
