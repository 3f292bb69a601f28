"""The life of a session as one literal table.  Pure: no clock, no I/O.

    pending ──READY──▶ running ──END──▶ terminating ──ENDED──▶ terminated
       │                 │▲ │                ├──EXPIRED──▶ expired
       │           PAUSE ▼│ RESUME           │
       │                paused ──END──▶      │
       └──────FAIL────────┴───────FAIL───────┴──▶ failed

    running, paused ──STOP──▶ stopping ──HALTED──▶ stopped ──START──▶ starting ──READY──▶ running
                                 ▲                    ▲                │   │
                                 │                    └─────HALTED─────┘   │
                                 └──────────────────STOP───────────────────┘

These three have no sandbox, or soon none, but a home that waits for the next one.  They end and fail
as `running` does; a start that fails is no failure of the session, which is `stopped` again.
`terminating` is entered on the way to all three ends; which one it will be is known to the owner
of the session, who says so with the last event.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a session is in its life."""

    PENDING = "pending"
    """Its sandbox is being made."""
    RUNNING = "running"
    """Its streams can be attached to."""
    PAUSED = "paused"
    """Its processes stand still; nothing can be attached to, what is attached stays so."""
    STOPPING = "stopping"
    """Everything in it is being ended, but its home stays."""
    STOPPED = "stopped"
    """Nothing of it is there but its record and its home; it can be started again."""
    STARTING = "starting"
    """After a stop, another sandbox is being made for its home."""
    TERMINATING = "terminating"
    """Everything in it is being ended; nothing can be attached to."""
    TERMINATED = "terminated"
    """It was ended on request, or with the server."""
    FAILED = "failed"
    """It could not be started, broke, or was lost."""
    EXPIRED = "expired"
    """It reached the end of its time to live."""


class Event(StrEnum):
    """What happens to a session."""

    READY = "ready"
    """The sandbox was made."""
    PAUSE = "pause"
    """Its processes were stopped where they are."""
    RESUME = "resume"
    """Its processes go on."""
    STOP = "stop"
    """Everything in it is to end, but it is to stay."""
    HALTED = "halted"
    """No sandbox of it is left; its home is."""
    START = "start"
    """It is to have a sandbox again."""
    END = "end"
    """It is to end, for whatever reason."""
    ENDED = "ended"
    """Everything in it has ended, as requested."""
    EXPIRED = "expired"
    """Everything in it has ended, because its time was up."""
    FAIL = "fail"
    """It could not be made, it broke, or it was lost with its server."""


class IllegalTransition(Exception):
    """The event cannot happen in this state: a bug of the caller."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"{event!r} cannot happen to a session that is {state!r}")
        self.state = state
        self.event = event


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.PENDING, Event.READY): State.RUNNING,
        (State.PENDING, Event.END): State.TERMINATING,
        (State.PENDING, Event.FAIL): State.FAILED,
        (State.RUNNING, Event.END): State.TERMINATING,
        (State.RUNNING, Event.FAIL): State.FAILED,
        (State.RUNNING, Event.PAUSE): State.PAUSED,
        (State.PAUSED, Event.RESUME): State.RUNNING,
        (State.PAUSED, Event.END): State.TERMINATING,
        (State.PAUSED, Event.FAIL): State.FAILED,
        (State.RUNNING, Event.STOP): State.STOPPING,
        (State.PAUSED, Event.STOP): State.STOPPING,
        (State.STOPPING, Event.HALTED): State.STOPPED,
        (State.STOPPING, Event.END): State.TERMINATING,
        (State.STOPPING, Event.FAIL): State.FAILED,
        (State.STOPPED, Event.START): State.STARTING,
        (State.STOPPED, Event.END): State.TERMINATING,
        (State.STOPPED, Event.FAIL): State.FAILED,
        (State.STARTING, Event.READY): State.RUNNING,
        (State.STARTING, Event.STOP): State.STOPPING,
        (State.STARTING, Event.HALTED): State.STOPPED,
        (State.STARTING, Event.END): State.TERMINATING,
        (State.STARTING, Event.FAIL): State.FAILED,
        (State.TERMINATING, Event.ENDED): State.TERMINATED,
        (State.TERMINATING, Event.EXPIRED): State.EXPIRED,
        (State.TERMINATING, Event.FAIL): State.FAILED,
    }
)
"""Every legal step; a pair that is not here is a bug."""

FINAL: frozenset[State] = frozenset({State.TERMINATED, State.FAILED, State.EXPIRED})
"""The states that are never left."""

RESTING: frozenset[State] = frozenset({State.STOPPING, State.STOPPED, State.STARTING})
"""The states in which all that a session needs is in its record and its home: it outlives the server."""

SEED_STATUS: Mapping[State, str] = MappingProxyType(
    {
        State.PENDING: "pending",
        State.RUNNING: "running",
        State.PAUSED: "running",
        State.STOPPING: "pending",
        State.STOPPED: "pending",
        State.STARTING: "pending",
        State.TERMINATING: "terminated",
        State.TERMINATED: "terminated",
        State.FAILED: "terminated",
        State.EXPIRED: "terminated",
    }
)
"""Our states in the three words of the seed API."""


def next_state(state: State, event: Event) -> State:
    """Return the state after `event`.

    Raises:
      IllegalTransition: `event` cannot happen in `state`.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None


def seed_status(state: State) -> str:
    """Return ``"pending"``, ``"running"`` or ``"terminated"``."""
    return SEED_STATUS[state]
