from __future__ import annotations

import pytest

from bench.ratios import jain, median, paired, paired_ratio, percentile, spread


def test_ratios_are_paired_by_round() -> None:
    """The machine was twice as fast in the second round; that is no matter."""
    assert paired([10, 20, 9], [5, 10, 3]) == [2, 2, 3]
    assert paired_ratio([10, 20, 9], [5, 10, 3]) == 2


def test_rounds_that_failed_are_left_out() -> None:
    assert paired([10, None, 9, 4], [5, 10, None, 0]) == [2]
    assert paired_ratio([None], [1]) is None
    assert median([]) is None


def test_percentiles() -> None:
    ordered = list(range(100))
    assert percentile(ordered, 0.5) == 50
    assert percentile(ordered, 0.99) == 99
    assert percentile([7], 1.0) == 7


def test_fairness() -> None:
    assert jain([3, 3, 3]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([0, 0]) == 0


def test_spread() -> None:
    assert spread([1, 2]) == 0
    assert spread([4, 4, 4, 4]) == 0
    assert spread([1, 2, 3, 4, 5]) == pytest.approx(1)
    assert spread([0, 0, 0, 0]) == 0
