from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from auth.ledger import Ledger


def add(ledger: Ledger[str], key: str, holder: str = "a", uses: int = 1, now: float = 0) -> None:
    ledger.add(key, f"value of {key}", holder=holder, uses=uses, expires_at=now + 60, now=now)


def test_used_as_often_as_allowed_and_no_more() -> None:
    ledger = Ledger[str](10)
    add(ledger, "k", uses=3)
    for _ in range(3):
        assert ledger.use("k", now=59.9) == "value of k"
    assert ledger.use("k", now=59.9) is None
    assert ledger.statistics().entries == 0


def test_expired_is_gone() -> None:
    ledger = Ledger[str](10)
    add(ledger, "k")
    assert ledger.use("k", now=60) is None
    assert ledger.use("k", now=0) is None


def test_unknown_is_refused() -> None:
    assert Ledger[str](1).use("k", now=0) is None


def test_wrong_use_is_an_error() -> None:
    ledger = Ledger[str](10)
    add(ledger, "k")
    with pytest.raises(ValueError, match="already"):
        add(ledger, "k")
    with pytest.raises(ValueError, match="uses"):
        add(ledger, "x", uses=0)
    with pytest.raises(ValueError, match="capacity"):
        Ledger[str](0)


def test_expired_entries_are_swept() -> None:
    ledger = Ledger[str](1000)
    for number in range(100):
        add(ledger, str(number), holder=str(number))
    assert ledger.statistics().entries == 100
    add(ledger, "later", now=61)
    assert (ledger.statistics().entries, ledger.statistics().holders) == (1, 1)
    # The clock was set back: sweeping goes on.
    add(ledger, "back", now=-1000)
    add(ledger, "soon", now=-900)
    assert ledger.use("back", now=-900) is None
    assert ledger.statistics().given_up == 0


def test_when_full_the_one_with_the_most_gives_up_its_oldest() -> None:
    ledger = Ledger[str](5)
    add(ledger, "mine", holder="me")
    for number in range(50):
        add(ledger, f"k{number}", holder="greedy")
    assert ledger.statistics().entries == 5
    assert ledger.statistics().given_up == 46
    assert ledger.use("mine", now=1) == "value of mine"
    assert [n for n in range(50) if ledger.use(f"k{n}", now=1)] == [46, 47, 48, 49]


class LedgerMachine(RuleBasedStateMachine):
    """A key gives its value at most as often as was said, never later; the bound always holds."""

    keys = st.integers(0, 30).map(str)

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger[str](8)
        self.now = 0.0
        self.left: dict[str, tuple[int, float]] = {}

    @rule(key=keys, holder=st.sampled_from("abc"), uses=st.integers(1, 3), ttl=st.integers(1, 90))
    def add(self, key: str, holder: str, uses: int, ttl: int) -> None:
        try:
            self.ledger.add(
                key, key, holder=holder, uses=uses, expires_at=self.now + ttl, now=self.now
            )
        except ValueError:
            assert key in self.left
        else:
            self.left[key] = (uses, self.now + ttl)

    @rule(key=keys)
    def use(self, key: str) -> None:
        if self.ledger.use(key, now=self.now) is not None:
            uses, expires = self.left[key]
            assert uses > 0
            assert self.now < expires
            self.left[key] = (uses - 1, expires)

    @rule(seconds=st.floats(-50, 100))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def bounded(self) -> None:
        statistics = self.ledger.statistics()
        assert statistics.entries <= statistics.capacity
        assert statistics.holders <= statistics.entries


LedgerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLedger = LedgerMachine.TestCase
