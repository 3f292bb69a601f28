"""A bounded table of permissions that live for a short time and can be used a few times.

An entry is added when the permission is given out, and goes when it was used up or has expired.
Whoever finds no entry has no permission: forgetting one can only refuse, never allow.  When the
table is full, the oldest entry of the holder who has the most goes, so that nobody can push out
what a stranger holds by asking for much.

Not for several threads; nothing in here waits, so each call is atomic for tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_SWEEP_SECONDS = 30.0
_SWEEP_SECONDS_WHEN_FULL = 1.0
"""A sweep looks at every entry, so a full table is not swept for each newcomer."""


@dataclass(frozen=True, slots=True)
class LedgerStatistics:
    """A snapshot: `entries` of at most `capacity`, by `holders`; `given_up` were pushed out."""

    entries: int
    capacity: int
    holders: int
    given_up: int


@dataclass(slots=True)
class _Entry(Generic[T]):
    value: T
    expires_at: float
    uses_left: int


class Ledger(Generic[T]):
    """The table; `capacity` is in entries.  Times are in seconds since the epoch."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("capacity must be positive")
        self._capacity = capacity
        self._holder_of: dict[str, str] = {}
        self._by_holder: dict[str, dict[str, _Entry[T]]] = {}
        self._swept_at = float("-inf")
        self._given_up = 0

    def add(
        self, key: str, value: T, *, holder: str, uses: int, expires_at: float, now: float
    ) -> None:
        """Enter a permission that can be used `uses` times until `expires_at`.

        Raises:
          ValueError: `key` is already there, or `uses` is not positive.
        """
        if key in self._holder_of:
            raise ValueError("the key is already in the table")
        if uses < 1:
            raise ValueError("uses must be positive")
        full = len(self._holder_of) >= self._capacity
        # The wall clock may have been set back: then sweep too.
        if not 0 <= now - self._swept_at < (_SWEEP_SECONDS_WHEN_FULL if full else _SWEEP_SECONDS):
            self._sweep(now)
        if len(self._holder_of) >= self._capacity:
            self._give_up_one()
        self._holder_of[key] = holder
        self._by_holder.setdefault(holder, {})[key] = _Entry(value, expires_at, uses)

    def use(self, key: str, *, now: float) -> T | None:
        """Count a use and return the value; None where there is no such permission (any more)."""
        holder = self._holder_of.get(key)
        if holder is None:
            return None
        entry = self._by_holder[holder][key]
        if now >= entry.expires_at:
            self._remove(key)
            return None
        entry.uses_left -= 1
        if entry.uses_left == 0:
            self._remove(key)
        return entry.value

    def statistics(self) -> LedgerStatistics:
        """Return a snapshot; entries that have expired count until the next sweep."""
        return LedgerStatistics(
            entries=len(self._holder_of),
            capacity=self._capacity,
            holders=len(self._by_holder),
            given_up=self._given_up,
        )

    def _remove(self, key: str) -> None:
        holder = self._holder_of.pop(key)
        entries = self._by_holder[holder]
        del entries[key]
        if not entries:
            del self._by_holder[holder]

    def _sweep(self, now: float) -> None:
        self._swept_at = now
        expired = [
            key
            for entries in self._by_holder.values()
            for key, entry in entries.items()
            if now >= entry.expires_at
        ]
        for key in expired:
            self._remove(key)

    def _give_up_one(self) -> None:
        largest = max(self._by_holder.values(), key=len)
        self._remove(next(iter(largest)))
        self._given_up += 1
