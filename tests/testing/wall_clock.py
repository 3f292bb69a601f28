"""A wall clock that a test sets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class WallClock:
    """Stands still until `advance` is called; negative seconds set it back."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
