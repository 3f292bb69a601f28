"""The budget, and rings that share one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.budget import Budget, BudgetStatistics
from relay.protocol.errors import LocalProtocolError
from relay.protocol.ring import ReplayRing


def test_counts_up_and_down() -> None:
    budget = Budget(100)
    budget.take(60)
    assert budget.available == 40
    budget.give_back(50)
    assert budget.statistics() == BudgetStatistics(total=100, taken=10, peak=60)


def test_misuse_is_a_bug_of_the_caller() -> None:
    budget = Budget(10)
    with pytest.raises(LocalProtocolError, match="11 bytes taken, 10 available"):
        budget.take(11)
    with pytest.raises(LocalProtocolError, match="1 bytes given back, 0 taken"):
        budget.give_back(1)
    with pytest.raises(ValueError, match="not negative"):
        Budget(-1)


def test_a_ring_without_budget_stays_small_and_says_so() -> None:
    budget = Budget(20_000)
    greedy = ReplayRing(1 << 20, budget=budget, guaranteed=10_000)
    starved = ReplayRing(1 << 20, budget=budget, guaranteed=10_000)
    assert greedy.room(0) == starved.room(0) == 10_000
    starved.append(bytes(9_000))
    assert starved.room(0) == 1_000
    starved.append(b"x" * 3_000)
    assert (starved.start, starved.end) == (2_000, 12_000)
    assert starved.read(9_000, 5_000) == b"x" * 3_000
    greedy.release()
    assert starved.room(starved.start) == 10_000
    starved.release()
    assert budget.statistics().taken == 0


@given(
    total=st.integers(0, 100_000),
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.one_of(st.just(None), st.binary(max_size=9_000)))
    ),
)
def test_rings_never_take_more_than_there_is(
    total: int, steps: list[tuple[int, bytes | None]]
) -> None:
    budget = Budget(total)
    guaranteed = total // 4
    rings = [
        ReplayRing(50_000, budget=budget, guaranteed=guaranteed) if guaranteed else None
        for _ in range(4)
    ]
    for index, data in steps:
        ring = rings[index]
        if ring is None:
            continue
        if data is None:
            ring.release()
            rings[index] = None
            continue
        floor = ring.start
        room = ring.room(floor)
        kept = data[:room]
        ring.append(kept)
        assert ring.start == floor, "what was promised room dropped nothing"
        assert ring.read(ring.end - len(kept), len(kept)) == kept
        statistics = budget.statistics()
        assert 0 <= statistics.taken <= total
    for ring in rings:
        if ring is not None:
            ring.release()
            ring.release()
    assert budget.statistics().taken == 0
