"""Records of sessions to put into stores."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sessions.placement import Placement
from sessions.record import SessionRecord
from sessions.state import State

NOW = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)


def make_record(session_id: str, **changes: object) -> SessionRecord:
    """Return the record of a running session."""
    record = SessionRecord(
        session_id=session_id,
        owner="owner",
        profile="default",
        state=State.RUNNING,
        placement=Placement("local", "local", "fog", ("fog-preferred", "ünïcode")),
        created_at=NOW,
        expires_at=NOW + timedelta(hours=1),
        runtime="fake",
    )
    return replace(record, **changes)  # type: ignore[arg-type]  # any field


def make_ended(session_id: str, at: datetime, **changes: object) -> SessionRecord:
    """Return the record of a terminated session."""
    return make_record(session_id, state=State.TERMINATED, ended_at=at, **changes)
