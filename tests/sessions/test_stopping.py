"""Sessions that are stopped and started again, seen through the manager that owns them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from auth.principal import Principal
from relay.protocol.reasons import CloseReason
from runtimes.base import SandboxError
from sessions.errors import (
    CannotStop,
    NotOwner,
    NotRunning,
    PolicyDenied,
    SessionFailed,
    ShuttingDown,
)
from sessions.live import Timeouts
from sessions.manager import LOST, CreateRequest, Manager, ManagerConfig
from sessions.profiles import Profile
from sessions.state import State
from sessions.store import StoreError
from tests.testing.fake_host import FakeHost, Faults
from tests.testing.memory_store import MemoryStore
from tests.testing.session_records import make_record
from tests.testing.wall_clock import WallClock

Manage = Callable[..., AbstractAsyncContextManager[Manager]]
KEEPING = CreateRequest("keeping", 0)
NO_ROOM = SandboxError("no room")


@pytest.fixture
def profiles() -> dict[str, Profile]:
    return {
        "keeping": Profile(
            "keeping", default_ttl_seconds=1000, max_sessions=2, keep_home=True, command=("zsh",)
        ),
        "idle": Profile("idle", keep_home=True, idle_timeout_seconds=60),
        "wiping": Profile("wiping"),
    }


class Outcome:
    """What became of a call in another task: a state, or an error."""

    value: State | Exception | None = None


async def attempt(call: Awaitable[object], outcome: Outcome, manager: Manager, sid: str) -> None:
    try:
        await call
    except Exception as error:
        outcome.value = error
    else:
        record = manager.find(sid)
        outcome.value = None if record is None else record.state


async def test_stop_and_start(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    host = FakeHost(Faults(teardown_delay=3))
    async with manage(host) as manager:
        session_id = (await manager.create(me, KEEPING)).session_id
        began = trio.current_time()
        for _ in range(2):
            record = await manager.stop(me, session_id)
            assert (record.state, record.reason) == (State.STOPPED, "stopped on request")
            assert store.records[session_id] == record
        # It returned when nothing was left, and no later.
        assert trio.current_time() - began == pytest.approx(3)
        (first,) = host.hosted
        assert (first.ends, first.closed, first.forced) == (
            [CloseReason.SESSION_STOPPED],
            True,
            False,
        )
        assert host.removed == []
        await manager.revoke(me, session_id)
        for _ in range(2):
            record = await manager.start(me, session_id)
            assert (record.state, record.reason, record.epoch) == (State.RUNNING, None, 1)
            assert store.records[session_id] == record
        second = host.hosted[1]
        assert second.spec == first.spec
        assert second.epochs == [1]
        assert store.states(session_id) == [
            *(State.PENDING, State.RUNNING, State.STOPPING, State.STOPPED, State.STOPPED),
            *(State.STARTING, State.RUNNING),
        ]
        # It goes round and round.
        await manager.stop(me, session_id)
        await manager.start(me, session_id)
        end = await manager.terminate(me, session_id)
        assert (end.state, end.reason) == (State.TERMINATED, "terminated on request")
        assert host.hosted[2].ends == [CloseReason.SESSION_ENDED]
        assert host.removed == []  # it ended while it ran: as ever, a kept home stays
        for change in (manager.stop, manager.start):
            with pytest.raises(NotRunning, match="terminated"):
                await change(me, session_id)


async def test_it_is_refused_where_the_home_would_be_lost(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    host = FakeHost()
    async with manage(host) as manager:
        wiping = (await manager.create(me, CreateRequest("wiping", 0))).session_id
        with pytest.raises(CannotStop, match=r"set keep_home = true in \[profiles\.wiping\]"):
            await manager.stop(me, wiping)
        keeping = (await manager.create(me, KEEPING)).session_id
        with pytest.raises(NotOwner):
            await manager.stop(Principal("other"), keeping)
        with pytest.raises(NotOwner):
            await manager.start(Principal("other"), keeping)
        host.keeping = False
        with pytest.raises(CannotStop, match='set runtime = "bubblewrap" or "container"'):
            await manager.stop(me, keeping)
        for session_id in (wiping, keeping):
            assert (await manager.get(me, session_id)).state is State.RUNNING


async def test_a_paused_one_can_be_stopped_but_not_started(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    async with manage(FakeHost()) as manager:
        session_id = (await manager.create(me, KEEPING)).session_id
        await manager.pause(me, session_id)
        with pytest.raises(NotRunning, match="paused"):
            await manager.start(me, session_id)
        await manager.stop(me, session_id)
        for change in (manager.pause, manager.resume):
            with pytest.raises(NotRunning, match="stopped"):
                await change(me, session_id)
        assert (await manager.start(me, session_id)).state is State.RUNNING


async def test_a_pause_that_ends_in_another_sandbox_does_not_count(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    async with manage(FakeHost()) as manager, trio.open_nursery() as nursery:
        session_id = (await manager.create(me, KEEPING)).session_id
        outcome = Outcome()
        pausing = manager.pause(me, session_id)
        nursery.start_soon(attempt, pausing, outcome, manager, session_id)
        await trio.sleep(0.5)  # pausing takes one second
        await manager.stop(me, session_id)
        await manager.start(me, session_id)
        await trio.sleep(5)
        assert isinstance(outcome.value, NotRunning)
        assert (await manager.get(me, session_id)).state is State.RUNNING


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Faults(open_error=NO_ROOM), "no room"),
        (Faults(open_error=OSError("secret")), "an internal error; the server's log says more"),
        (Faults(open_delay=100), "it did not start within 60 seconds"),
    ],
)
async def test_a_start_that_fails_leaves_it_stopped(
    autojump_clock: MockClock,
    manage: Manage,
    me: Principal,
    store: MemoryStore,
    fault: Faults,
    reason: str,
) -> None:
    async with manage(FakeHost(Faults(), fault)) as manager:
        session_id = (await manager.create(me, KEEPING)).session_id
        await manager.stop(me, session_id)
        with pytest.raises(SessionFailed) as caught:
            await manager.start(me, session_id)
        assert caught.value.reason == reason
        record = await manager.get(me, session_id)
        assert record.state is State.STOPPED
        assert record.reason == f"could not be started again: {reason}"
        assert store.records[session_id] == record
        record = await manager.start(me, session_id)
        assert (record.state, record.reason) == (State.RUNNING, None)


async def test_a_start_that_cannot_be_recorded_leaves_it_stopped(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    host = FakeHost(Faults(), Faults(open_delay=5))
    async with manage(host) as manager, trio.open_nursery() as nursery:
        session_id = (await manager.create(me, KEEPING)).session_id
        await manager.stop(me, session_id)
        outcome = Outcome()
        nursery.start_soon(attempt, manager.start(me, session_id), outcome, manager, session_id)
        await trio.sleep(1)
        store.broken = True
        await trio.sleep(10)
        assert isinstance(outcome.value, SessionFailed)
        assert "could not be written" in outcome.value.reason
        assert (await manager.get(me, session_id)).state is State.STOPPED
        assert host.open == 0
        # Stopping again is how to see whether it is on record; it is told that it is not.
        with pytest.raises(StoreError):
            await manager.stop(me, session_id)
        store.broken = False
        await manager.stop(me, session_id)
        assert store.records[session_id].state is State.STOPPED


async def test_one_that_breaks_after_it_was_started_again_has_failed(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    async with manage(FakeHost(Faults(), Faults(body_error_after=3))) as manager:
        session_id = (await manager.create(me, KEEPING)).session_id
        await manager.stop(me, session_id)
        await manager.start(me, session_id)
        await trio.sleep(5)
        assert (await manager.get(me, session_id)).state is State.FAILED


@pytest.mark.parametrize(
    ("fault", "state", "reason"),
    [
        (
            Faults(teardown_error=ValueError("stuck")),
            State.FAILED,
            "stopped on request, but an internal error; the server's log says more",
        ),
        (
            Faults(teardown_delay=1000),
            State.STOPPED,
            "stopped on request; by force, after 7 seconds",
        ),
    ],
)
async def test_a_stop_that_does_not_go_well(
    autojump_clock: MockClock,
    manage: Manage,
    me: Principal,
    fault: Faults,
    state: State,
    reason: str,
) -> None:
    config = ManagerConfig(timeouts=Timeouts(teardown=7))
    async with manage(FakeHost(fault), config=config) as manager:
        session_id = (await manager.create(me, KEEPING)).session_id
        if state is State.FAILED:
            with pytest.raises(NotRunning, match="failed"):
                await manager.stop(me, session_id)
        else:
            await manager.stop(me, session_id)
        record = await manager.get(me, session_id)
        assert (record.state, record.reason) == (state, reason)
        if state is State.STOPPED:  # force belongs to the stop, not to the end
            end = await manager.terminate(me, session_id)
            assert end.reason == "terminated on request"


# ---------------------------------------------------------------- at the same time


async def test_stop_during_start_gives_the_start_up(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    host = FakeHost(Faults(), Faults(open_delay=30))
    async with manage(host) as manager, trio.open_nursery() as nursery:
        session_id = (await manager.create(me, KEEPING)).session_id
        await manager.stop(me, session_id)
        outcome = Outcome()
        nursery.start_soon(attempt, manager.start(me, session_id), outcome, manager, session_id)
        await trio.sleep(1)
        assert (await manager.get(me, session_id)).state is State.STARTING
        began = trio.current_time()
        record = await manager.stop(me, session_id)
        assert (record.state, record.reason) == (State.STOPPED, "stopped on request")
        assert trio.current_time() - began < 1
        assert host.opening == 0
        await trio.sleep(1)
        assert isinstance(outcome.value, NotRunning)
        assert (await manager.start(me, session_id)).state is State.RUNNING


async def test_stop_during_the_first_start_waits_for_it(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    async with (
        manage(FakeHost(Faults(open_delay=5)), new_id=lambda: "s") as manager,
        trio.open_nursery() as nursery,
    ):
        outcome = Outcome()
        nursery.start_soon(attempt, manager.create(me, KEEPING), outcome, manager, "s")
        await trio.sleep(1)
        assert (await manager.stop(me, "s")).state is State.STOPPED
        assert trio.current_time() >= 5


async def test_start_during_stop_starts_it_afterwards(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    host = FakeHost(Faults(teardown_delay=5))
    async with manage(host) as manager, trio.open_nursery() as nursery:
        session_id = (await manager.create(me, KEEPING)).session_id
        stops = [Outcome(), Outcome()]
        for outcome in stops:
            stopping = manager.stop(me, session_id)
            nursery.start_soon(attempt, stopping, outcome, manager, session_id)
        await trio.sleep(1)
        assert (await manager.get(me, session_id)).state is State.STOPPING
        starts = [Outcome(), Outcome()]
        for outcome in starts:
            starting = manager.start(me, session_id)
            nursery.start_soon(attempt, starting, outcome, manager, session_id)
        await trio.sleep(10)
        assert [outcome.value for outcome in starts] == [State.RUNNING, State.RUNNING]
        assert len(host.hosted) == 2
        # Whoever wanted it stopped was either told so in time, or stopped it once more; never both.
        assert all(not isinstance(outcome.value, Exception) for outcome in stops)


@pytest.mark.parametrize("during", ["stop", "rest", "start"])
@pytest.mark.parametrize("how", ["terminate", "expire"])
async def test_the_end_comes_while_it_rests(
    autojump_clock: MockClock, manage: Manage, me: Principal, during: str, how: str
) -> None:
    host = FakeHost(Faults(teardown_delay=5), Faults(open_delay=30))
    async with manage(host) as manager, trio.open_nursery() as nursery:
        session_id = (await manager.create(me, CreateRequest("keeping", 20))).session_id
        outcome = Outcome()
        if during == "stop":
            await trio.sleep(18)
            stopping = manager.stop(me, session_id)
            nursery.start_soon(attempt, stopping, outcome, manager, session_id)
        else:
            await manager.stop(me, session_id)
        if during == "start":
            starting = manager.start(me, session_id)
            nursery.start_soon(attempt, starting, outcome, manager, session_id)
        await trio.sleep(1)
        if how == "terminate":
            end = await manager.terminate(me, session_id)
            assert (end.state, end.reason) == (State.TERMINATED, "terminated on request")
        else:
            await trio.sleep(25)
            end = await manager.get(me, session_id)
            assert end.state is State.EXPIRED
        assert end.ended_at is not None
        assert manager.find(session_id) is None
        assert host.removed == [session_id]
        assert (host.open, host.opening) == (0, 0)
        await trio.sleep(1)
        assert isinstance(outcome.value, NotRunning) == (during != "rest")


@pytest.mark.parametrize(
    ("error", "delay", "reason"),
    [
        (SandboxError("it is in use"), 0, "it is in use"),
        (OSError("secret"), 0, "an internal error; the server's log says more"),
        (None, 1000, "removing it was broken off"),
    ],
)
async def test_a_home_that_cannot_be_removed_is_said(
    autojump_clock: MockClock,
    manage: Manage,
    me: Principal,
    error: Exception | None,
    delay: float,
    reason: str,
) -> None:
    host = FakeHost()
    host.removal_error, host.removal_delay = error, delay
    async with manage(host) as manager:
        session_id = (await manager.create(me, KEEPING)).session_id
        await manager.stop(me, session_id)
        end = await manager.terminate(me, session_id)
        assert end.state is State.TERMINATED
        assert end.reason == f"terminated on request; its home was left: {reason}"


@pytest.mark.parametrize("what", ["stop", "start"])
async def test_who_waited_went_away(
    autojump_clock: MockClock, manage: Manage, me: Principal, what: str
) -> None:
    host = FakeHost(Faults(teardown_delay=5), Faults(open_delay=5))
    async with manage(host) as manager:
        session_id = (await manager.create(me, KEEPING)).session_id
        if what == "start":
            await manager.stop(me, session_id)
        with trio.move_on_after(1) as scope:
            await (manager.stop if what == "stop" else manager.start)(me, session_id)
        assert scope.cancelled_caught
        await trio.sleep(10)
        expected = State.STOPPED if what == "stop" else State.RUNNING
        assert (await manager.get(me, session_id)).state is expected


# ---------------------------------------------------------------- time, places, restarts


async def test_stopped_is_not_idle_and_takes_a_place(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    async with manage(FakeHost()) as manager:
        idle = (await manager.create(me, CreateRequest("idle", 0))).session_id
        await manager.stop(me, idle)
        await trio.sleep(600)
        assert (await manager.start(me, idle)).state is State.RUNNING
        await trio.sleep(30)
        assert (await manager.get(me, idle)).state is State.RUNNING
        await trio.sleep(60)
        assert (await manager.get(me, idle)).state is State.TERMINATED
        for _ in range(2):
            await manager.stop(me, (await manager.create(me, KEEPING)).session_id)
        with pytest.raises(PolicyDenied):
            await manager.create(me, KEEPING)
        assert manager.statistics().live == {State.STOPPED: 2}


@pytest.mark.parametrize("during", ["stop", "rest", "start", "failing start"])
async def test_it_outlives_the_server(
    autojump_clock: MockClock,
    manage: Manage,
    me: Principal,
    store: MemoryStore,
    clock: WallClock,
    during: str,
) -> None:
    starting = Faults(open_delay=5, open_ignores_cancel=True, open_error=NO_ROOM)
    host = FakeHost(
        Faults(teardown_delay=5),
        Faults(),
        starting if during == "failing start" else Faults(open_delay=30),
    )
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        async with manage(host) as manager:
            session_id = (await manager.create(me, KEEPING)).session_id
            running = (await manager.create(me, KEEPING)).session_id
            if during == "stop":
                stopping = manager.stop(me, session_id)
                nursery.start_soon(attempt, stopping, outcome, manager, session_id)
            else:
                await manager.stop(me, session_id)
            if "start" in during:
                call = manager.start(me, session_id)
                nursery.start_soon(attempt, call, outcome, manager, session_id)
            await trio.sleep(1)
        assert store.records[session_id].state is State.STOPPED
        assert store.records[session_id].ended_at is None
        assert store.records[running].state is State.TERMINATED
        assert host.removed == []
    if "start" in during:
        assert isinstance(outcome.value, ShuttingDown)
    async with manage(host := FakeHost()) as manager:
        assert host.lost == []
        assert manager.statistics().live == {State.STOPPED: 1}
        assert (await manager.get(me, session_id)).state is State.STOPPED
        assert [r.session_id for r in await manager.list(me) if not r.ended] == [session_id]
        assert (await manager.start(me, session_id)).state is State.RUNNING
        spec = host.hosted[0].spec
        assert (spec.session_id, spec.runtime, spec.keep_home) == (session_id, "fake", True)
        assert spec.shell == ("zsh",)


async def test_ending_it_while_the_server_goes_away_is_not_claimed(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    host = FakeHost(Faults(teardown_delay=5), Faults(teardown_delay=5))
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        async with manage(host) as manager:
            session_id = (await manager.create(me, KEEPING)).session_id
            nursery.start_soon(
                attempt, manager.stop(me, session_id), Outcome(), manager, session_id
            )
            await trio.sleep(1)

            async def terminate_late() -> None:
                await trio.sleep(1)
                await attempt(manager.terminate(me, session_id), outcome, manager, session_id)

            nursery.start_soon(terminate_late)
    assert isinstance(outcome.value, ShuttingDown)
    assert store.records[session_id].state is State.STOPPED


@pytest.mark.parametrize("state", [State.STOPPING, State.STOPPED, State.STARTING])
async def test_a_server_that_was_killed(
    autojump_clock: MockClock,
    manage: Manage,
    me: Principal,
    store: MemoryStore,
    clock: WallClock,
    state: State,
) -> None:
    common = {"owner": "me", "profile": "keeping", "expires_at": clock.now + timedelta(seconds=50)}
    await store.put(make_record("s", state=state, **common))
    await store.put(make_record("r", **common))
    async with manage(host := FakeHost()) as manager:
        assert set(host.lost) == ({"r"} if state is State.STOPPED else {"r", "s"})
        assert (await manager.get(me, "r")).reason == LOST
        assert (await manager.get(me, "s")).state is State.STOPPED
        await trio.sleep(49)
        assert (await manager.get(me, "s")).state is State.STOPPED
        await trio.sleep(2)
        assert (await manager.get(me, "s")).state is State.EXPIRED
        assert host.removed == ["s"]


async def test_what_expired_while_there_was_no_server(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore, clock: WallClock
) -> None:
    record = make_record("s", state=State.STOPPED, owner="me", profile="keeping")
    await store.put(replace(record, expires_at=clock.now - timedelta(seconds=1)))
    async with manage(host := FakeHost()) as manager:
        await trio.sleep(1)
        assert (await manager.get(me, "s")).state is State.EXPIRED
        assert (host.hosted, host.removed) == ([], ["s"])


async def test_a_profile_that_is_gone(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    await store.put(make_record("s", state=State.STOPPED, owner="me", profile="removed"))
    async with manage(host := FakeHost()) as manager:
        with pytest.raises(SessionFailed, match="no profile 'removed' any more; put it back"):
            await manager.start(me, "s")
        assert (await manager.get(me, "s")).state is State.STOPPED
        await manager.terminate(me, "s")
        assert host.removed == ["s"]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_nothing_hangs_or_is_left(
    autojump_clock: MockClock, manage: Manage, me: Principal, seed: int
) -> None:
    """Many callers at once on a host that fails in every way; `manage` looks for what is left."""
    import random

    chance = random.Random(seed)
    host = FakeHost(Faults(), seed=seed)
    outcomes: list[Outcome] = []
    async with trio.open_nursery() as nursery:
        async with manage(host) as manager:
            session_id = (await manager.create(me, KEEPING)).session_id
            for _ in range(12):
                act = chance.choice([manager.stop, manager.start, manager.pause, manager.resume])
                outcome = Outcome()
                outcomes.append(outcome)
                nursery.start_soon(attempt, act(me, session_id), outcome, manager, session_id)
                await trio.sleep(chance.choice([0, 0.1, 3, 70]))
            if chance.random() < 0.5:
                await manager.terminate(me, session_id)
    expected = (State, NotRunning, SessionFailed, ShuttingDown, type(None))
    assert [o.value for o in outcomes if not isinstance(o.value, expected)] == []
