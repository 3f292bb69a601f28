"""Times of files as the API tells them.  Pure."""

from __future__ import annotations

from datetime import UTC, datetime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def format_time(nanoseconds: int) -> str:
    """Return a time as RFC 3339 with nanoseconds, in UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{moment_of(seconds):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def moment_of(seconds: int) -> datetime:
    """Return a time of the file system; the nearest one where it is beyond our calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(microsecond=0, tzinfo=UTC) if seconds > 0 else EPOCH
