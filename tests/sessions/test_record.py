from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from sessions.placement import Placement
from sessions.record import SessionRecord, rfc3339
from sessions.state import FINAL, State

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_rfc3339_is_utc_with_a_z() -> None:
    assert rfc3339(NOW) == "2026-01-01T00:00:00Z"
    assert rfc3339(NOW + timedelta(microseconds=999_999)) == "2026-01-01T00:00:00Z"
    east = timezone(timedelta(hours=2))
    assert rfc3339(datetime(2026, 1, 1, 1, tzinfo=east)) == "2025-12-31T23:00:00Z"


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        rfc3339(datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


@pytest.mark.parametrize("state", list(State))
def test_ended(state: State) -> None:
    record = SessionRecord(
        "id", "me", "default", state, Placement("r", "n", "fog", ()), NOW, NOW, "fake"
    )
    assert record.ended == (state in FINAL)
