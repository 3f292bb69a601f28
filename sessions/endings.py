"""Why a session ends or stops, what follows from it, and how long it may take: literal tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from relay.protocol.reasons import CloseReason
from sessions.state import Event


class Cause(StrEnum):
    """Why a session is to end."""

    TERMINATED = "terminated"
    EXPIRED = "expired"
    ABANDONED = "abandoned"
    SHUTDOWN = "shutdown"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Ending:
    """What follows from a cause: what clients are told, the last event, and the record's words."""

    close_reason: CloseReason
    event: Event
    reason: str


ENDINGS: Mapping[Cause, Ending] = MappingProxyType(
    {
        Cause.TERMINATED: Ending(CloseReason.SESSION_ENDED, Event.ENDED, "terminated on request"),
        Cause.EXPIRED: Ending(
            CloseReason.EXPIRED, Event.EXPIRED, "reached the end of its time to live"
        ),
        Cause.ABANDONED: Ending(
            CloseReason.SESSION_ENDED, Event.ENDED, "whoever asked for it went away meanwhile"
        ),
        Cause.IDLE: Ending(
            CloseReason.SESSION_ENDED,
            Event.ENDED,
            "ended because nobody used it: no input and no output for as long as its profile allows",
        ),
        Cause.SHUTDOWN: Ending(
            CloseReason.DRAINING, Event.ENDED, "ended because the server was shut down"
        ),
    }
)


STOPPED = Ending(CloseReason.SESSION_STOPPED, Event.HALTED, "stopped on request")
"""What follows from a stop, which is no end of the session."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the phases of a session may take, in seconds."""

    start: float = 60.0
    """Making the sandbox."""
    teardown: float = 15.0
    """Ending everything in it politely, before the host is told to use force."""
