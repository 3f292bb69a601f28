"""The tables, every pair of them."""

from __future__ import annotations

import itertools

import pytest

from relay.protocol.errors import LocalProtocolError, RemoteProtocolError
from relay.protocol.frames import FrameType
from relay.protocol.states import TABLES, Side, State, Step, Trigger, after_frame, after_step

F, A, O = FrameType, Side.ATTACHER, Side.OWNER  # noqa: E741 - read as a table
BYTES = (F.DATA, F.FIN, F.CREDIT, F.STOP)
FROM_OWNER = (*BYTES, F.GAP, F.SCREEN, F.EXIT)
FROM_ATTACHER = (*BYTES, F.RESIZE, F.SIGNAL)

LEGAL: dict[tuple[Side, State], dict[Trigger, State]] = {
    (A, State.REQUESTED): {
        F.ATTACHED: State.OPEN,
        F.REFUSED: State.ENDED,
        F.CLOSED: State.ENDED,
        Step.DETACH: State.DETACHING,
    },
    (A, State.OPEN): {
        **dict.fromkeys(FROM_OWNER, State.OPEN),
        F.CLOSED: State.ENDED,
        Step.SEND: State.OPEN,
        Step.DETACH: State.DETACHING,
    },
    (A, State.DETACHING): {
        **dict.fromkeys((*FROM_OWNER, F.ATTACHED), State.DETACHING),
        F.REFUSED: State.ENDED,
        F.CLOSED: State.ENDED,
    },
    (A, State.ENDED): {},
    (O, State.REQUESTED): {
        F.DETACH: State.ENDED,
        Step.ACCEPT: State.OPEN,
        Step.REFUSE: State.ENDED,
        Step.CLOSE: State.ENDED,
    },
    (O, State.OPEN): {
        **dict.fromkeys(FROM_ATTACHER, State.OPEN),
        F.DETACH: State.ENDED,
        Step.SEND: State.OPEN,
        Step.CLOSE: State.ENDED,
    },
    (O, State.DETACHING): {},
    (O, State.ENDED): {},
}
"""§ 2 and § 5 once more, grouped by who sends what."""

EVERY = list(itertools.product(Side, State))


@pytest.mark.parametrize(("side", "state"), EVERY)
@pytest.mark.parametrize("frame", FrameType)
def test_every_frame_in_every_state(side: Side, state: State, frame: FrameType) -> None:
    after = LEGAL[side, state].get(frame)
    if after is not None:
        assert after_frame(side, state, frame) is after
        return
    with pytest.raises(RemoteProtocolError, match=f"{frame.name}.*{state.name}.*{side.name}"):
        after_frame(side, state, frame)


@pytest.mark.parametrize(("side", "state"), EVERY)
@pytest.mark.parametrize("step", Step)
def test_every_step_in_every_state(side: Side, state: State, step: Step) -> None:
    after = LEGAL[side, state].get(step)
    if after is not None:
        assert after_step(side, state, step) is after
        return
    with pytest.raises(LocalProtocolError, match=f"{step.name}.*{state.name}.*{side.name}"):
        after_step(side, state, step)


@pytest.mark.parametrize("side", Side)
def test_the_tables_are_closed(side: Side) -> None:
    """Every state that can be reached is in the table; the end is reached from each, and final."""
    table = TABLES[side]
    reached = {State.REQUESTED} | {after for row in table.values() for after in row.values()}
    assert reached == set(table)
    assert not table[State.ENDED]
    for state in reached - {State.ENDED}:
        assert ends_from(side, state)


def ends_from(side: Side, state: State) -> bool:
    seen, todo = set[State](), [state]
    while todo:
        here = todo.pop()
        if here not in seen:
            seen.add(here)
            todo += TABLES[side][here].values()
    return State.ENDED in seen


def test_what_one_side_may_send_the_other_may_get() -> None:
    """No frame is legal to send and illegal to get in the states that fit together."""
    for frame in FROM_OWNER:
        assert frame in TABLES[A][State.OPEN]
        assert frame in TABLES[A][State.DETACHING]
    for frame in FROM_ATTACHER:
        assert frame in TABLES[O][State.OPEN]
