"""Statistics of a run.  Pure.

Machines are noisy, so no figure is compared with one from another moment: what is compared was measured
in the same round, one right after the other, and the median is of those *paired* ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def median(values: Sequence[float]) -> float | None:
    """Return the median, None of nothing."""
    return statistics.median(values) if values else None


def paired(values: Sequence[float | None], others: Sequence[float | None]) -> list[float]:
    """Return `value / other` for each round in which both were measured."""
    return [
        value / other
        for value, other in zip(values, others, strict=False)
        if value is not None and other is not None and other > 0
    ]


def paired_ratio(values: Sequence[float | None], others: Sequence[float | None]) -> float | None:
    """Return the median of the paired ratios."""
    return median(paired(values, others))


def spread(values: Sequence[float]) -> float:
    """Return the distance of the quartiles, relative to the median; 0 of fewer than 4 values."""
    if len(values) < 4:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle if middle else 0.0


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0..1) of the sorted, non-empty values are."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index: 1 where all got the same, 1/n where one got all.

    R. Jain, D. Chiu, W. Hawe: A Quantitative Measure of Fairness (DEC-TR-301, 1984).
    """
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0
