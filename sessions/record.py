"""What is known about a session, and kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sessions.placement import Placement
from sessions.state import FINAL, State


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A snapshot of one session.

    All times are aware and in UTC.  `reason` says why the session ended (or is ending), for a
    human.  `epoch` counts revocations: a ticket of an older epoch is worth nothing.  `runtime` is
    the name of the runtime that makes the sandbox.
    """

    session_id: str
    owner: str
    profile: str
    state: State
    placement: Placement
    created_at: datetime
    expires_at: datetime
    runtime: str
    reason: str | None = None
    ended_at: datetime | None = None
    image_ref: str | None = None
    epoch: int = 0

    @property
    def ended(self) -> bool:
        """Whether the session is over: nothing in it runs any more."""
        return self.state in FINAL


def rfc3339(moment: datetime) -> str:
    """Return `moment` as RFC 3339 in UTC with a ``Z``, to the second, as the seed API shows it.

    Raises:
      ValueError: `moment` is naive.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a zone cannot be shown")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
