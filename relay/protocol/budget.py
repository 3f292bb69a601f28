"""One bound on what all replay rings of a server hold together."""

from __future__ import annotations

from dataclasses import dataclass

from relay.protocol.errors import LocalProtocolError


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """Bytes: the bound, what is taken now, and the most that ever was."""

    total: int
    taken: int
    peak: int


class Budget:
    """Counts bytes against a bound.

    A ring that cannot grow for want of budget stays as small as it is: it holds its process back,
    or drops its oldest bytes, sooner.
    """

    def __init__(self, total: int) -> None:
        if total < 0:
            raise ValueError("a budget is not negative")
        self._total = total
        self._taken = 0
        self._peak = 0

    @property
    def available(self) -> int:
        """How many bytes can be taken now."""
        return self._total - self._taken

    def take(self, count: int) -> None:
        """Count bytes as taken; there must be as many available."""
        if count > self.available:
            raise LocalProtocolError(f"{count} bytes taken, {self.available} available")
        self._taken += count
        self._peak = max(self._peak, self._taken)

    def give_back(self, count: int) -> None:
        """Count bytes as free again."""
        if count > self._taken:
            raise LocalProtocolError(f"{count} bytes given back, {self._taken} taken")
        self._taken -= count

    def statistics(self) -> BudgetStatistics:
        """Return a snapshot."""
        return BudgetStatistics(self._total, self._taken, self._peak)
