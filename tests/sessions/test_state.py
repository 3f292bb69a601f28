from __future__ import annotations

import itertools

import pytest

from sessions.state import (
    FINAL,
    SEED_STATUS,
    TRANSITIONS,
    Event,
    IllegalTransition,
    State,
    next_state,
    seed_status,
)

P, R, T = State.PENDING, State.RUNNING, State.TERMINATING
STILL = State.PAUSED
HALTING, HALTED, STARTING = State.STOPPING, State.STOPPED, State.STARTING
EXPECTED = {
    (P, Event.READY): R,
    (P, Event.END): T,
    (P, Event.FAIL): State.FAILED,
    (R, Event.END): T,
    (R, Event.FAIL): State.FAILED,
    (R, Event.PAUSE): STILL,
    (STILL, Event.RESUME): R,
    (STILL, Event.END): T,
    (STILL, Event.FAIL): State.FAILED,
    (R, Event.STOP): HALTING,
    (STILL, Event.STOP): HALTING,
    (HALTING, Event.HALTED): HALTED,
    (HALTING, Event.END): T,
    (HALTING, Event.FAIL): State.FAILED,
    (HALTED, Event.START): STARTING,
    (HALTED, Event.END): T,
    (HALTED, Event.FAIL): State.FAILED,
    (STARTING, Event.READY): R,
    (STARTING, Event.STOP): HALTING,
    (STARTING, Event.HALTED): HALTED,
    (STARTING, Event.END): T,
    (STARTING, Event.FAIL): State.FAILED,
    (T, Event.ENDED): State.TERMINATED,
    (T, Event.EXPIRED): State.EXPIRED,
    (T, Event.FAIL): State.FAILED,
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_state_with_every_event(state: State, event: Event) -> None:
    expected = EXPECTED.get((state, event))
    if expected is None:
        with pytest.raises(IllegalTransition, match=f"{event}.*{state}") as caught:
            next_state(state, event)
        assert (caught.value.state, caught.value.event) == (state, event)
    else:
        assert next_state(state, event) is expected


def test_final_states_are_exactly_those_without_a_way_out() -> None:
    assert frozenset(State) - {state for state, _ in TRANSITIONS} == FINAL


def test_every_state_is_reachable_and_can_fail_until_it_ends() -> None:
    assert set(TRANSITIONS.values()) | {State.PENDING} == set(State)
    for state in set(State) - FINAL:
        assert next_state(state, Event.FAIL) is State.FAILED


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.PENDING, "pending"),
        (State.RUNNING, "running"),
        (State.PAUSED, "running"),
        (State.STOPPING, "pending"),
        (State.STOPPED, "pending"),
        (State.STARTING, "pending"),
        (State.TERMINATING, "terminated"),
        (State.TERMINATED, "terminated"),
        (State.FAILED, "terminated"),
        (State.EXPIRED, "terminated"),
    ],
)
def test_the_words_of_the_seed_api(state: State, status: str) -> None:
    assert seed_status(state) == status
    assert set(SEED_STATUS) == set(State)
