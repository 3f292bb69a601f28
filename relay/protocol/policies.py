"""What happens when one reader of a stream is slow (§ 5)."""

from __future__ import annotations

from enum import StrEnum


class Policy(StrEnum):
    """What to do about a reader that does not keep up."""

    PACE = "pace"
    """The stream waits for it."""
    SKIP = "skip"
    """It gets a GAP and goes on."""
    DROP = "drop"
    """It is closed with `too_far_behind`."""
