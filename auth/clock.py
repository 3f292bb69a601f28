"""Where the time of credentials comes from, so that a test can say what time it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the time now, aware and in UTC."""

Entropy = Callable[[int], bytes]
"""Returns that many unpredictable bytes, as `secrets.token_bytes` does."""


def system_clock() -> datetime:
    """Return the wall-clock time in UTC."""
    return datetime.now(UTC)
