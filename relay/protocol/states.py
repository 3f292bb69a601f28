"""The life of one stream id on a link, as two literal tables (§ 3, § 5).

Everything that decides which frame is legal when is in this file.  A pair that is not in a table is
a protocol error: of the peer when the trigger is a frame, of ours when it is a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from relay.protocol.errors import LocalProtocolError, RemoteProtocolError
from relay.protocol.frames import FrameType


class Side(Enum):
    """Which end of an attachment this is."""

    ATTACHER = auto()
    OWNER = auto()


class State(Enum):
    """Where a stream id is in its life."""

    REQUESTED = auto()
    """ATTACH is out, the answer is not."""
    OPEN = auto()
    """Bytes flow."""
    DETACHING = auto()
    """The attacher sent DETACH; what still comes is ignored until CLOSED or REFUSED."""
    ENDED = auto()
    """Nothing more is sent; what still comes is late and ignored."""


class Step(Enum):
    """What this side does."""

    ACCEPT = auto()
    REFUSE = auto()
    SEND = auto()
    """Any frame of an open stream: DATA, GAP, SCREEN, FIN, EXIT, CREDIT, STOP, RESIZE, SIGNAL."""
    DETACH = auto()
    CLOSE = auto()


Trigger = FrameType | Step

_F = FrameType

ATTACHER: Mapping[State, Mapping[Trigger, State]] = {
    State.REQUESTED: {
        _F.ATTACHED: State.OPEN,
        _F.REFUSED: State.ENDED,
        _F.CLOSED: State.ENDED,
        Step.DETACH: State.DETACHING,
    },
    State.OPEN: {
        _F.DATA: State.OPEN,
        _F.GAP: State.OPEN,
        _F.FIN: State.OPEN,
        _F.EXIT: State.OPEN,
        _F.CREDIT: State.OPEN,
        _F.STOP: State.OPEN,
        _F.SCREEN: State.OPEN,
        _F.CLOSED: State.ENDED,
        Step.SEND: State.OPEN,
        Step.DETACH: State.DETACHING,
    },
    State.DETACHING: {
        _F.ATTACHED: State.DETACHING,
        _F.DATA: State.DETACHING,
        _F.GAP: State.DETACHING,
        _F.FIN: State.DETACHING,
        _F.EXIT: State.DETACHING,
        _F.CREDIT: State.DETACHING,
        _F.STOP: State.DETACHING,
        _F.SCREEN: State.DETACHING,
        _F.REFUSED: State.ENDED,
        _F.CLOSED: State.ENDED,
    },
    State.ENDED: {},
}

OWNER: Mapping[State, Mapping[Trigger, State]] = {
    State.REQUESTED: {
        _F.DETACH: State.ENDED,
        Step.ACCEPT: State.OPEN,
        Step.REFUSE: State.ENDED,
        Step.CLOSE: State.ENDED,
    },
    State.OPEN: {
        _F.DATA: State.OPEN,
        _F.FIN: State.OPEN,
        _F.CREDIT: State.OPEN,
        _F.STOP: State.OPEN,
        _F.RESIZE: State.OPEN,
        _F.SIGNAL: State.OPEN,
        _F.DETACH: State.ENDED,
        Step.SEND: State.OPEN,
        Step.CLOSE: State.ENDED,
    },
    State.ENDED: {},
}

TABLES: Mapping[Side, Mapping[State, Mapping[Trigger, State]]] = {
    Side.ATTACHER: ATTACHER,
    Side.OWNER: OWNER,
}


def after_frame(side: Side, state: State, frame: FrameType) -> State:
    """Return the state after `frame` came.

    Raises:
      RemoteProtocolError: it is not allowed in this state.
    """
    try:
        return TABLES[side][state][frame]
    except KeyError:
        raise RemoteProtocolError(
            f"{frame.name} for a stream that is {state.name} at its {side.name}"
        ) from None


def after_step(side: Side, state: State, step: Step) -> State:
    """Return the state after this side did `step`.

    Raises:
      LocalProtocolError: it is not allowed in this state.
    """
    try:
        return TABLES[side][state][step]
    except KeyError:
        raise LocalProtocolError(
            f"{step.name} on a stream that is {state.name} at its {side.name}"
        ) from None
