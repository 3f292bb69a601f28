"""How one session lives and ends, seen through the manager that owns it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress

import pytest
import trio
from trio.testing import MockClock

from auth.principal import Principal
from relay.attachment import AttachmentStatistics
from relay.endpoint import Kind
from relay.grant import Mode
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason
from relay.protocol.sender import SenderStatistics
from relay.stream import StreamState, StreamStatistics
from runtimes.base import SandboxError, SandboxSpec
from sessions.errors import CannotPause, NotOwner, NotRunning
from sessions.live import ENDINGS, Cause, LiveSession, Timeouts
from sessions.manager import CreateRequest, Manager, ManagerConfig, SessionFailed
from sessions.state import State, next_state
from tests.testing.fake_host import FakeHost, Faults
from tests.testing.memory_store import MemoryStore
from tests.testing.session_records import make_record
from tests.testing.wall_clock import WallClock

Manage = Callable[..., AbstractAsyncContextManager[Manager]]
SMALL = CreateRequest("small", 0)


def test_every_cause_has_an_ending_that_the_state_table_allows() -> None:
    assert set(ENDINGS) == set(Cause)
    for ending in ENDINGS.values():
        next_state(State.TERMINATING, ending.event)
    assert [ENDINGS[cause].close_reason for cause in Cause] == [
        CloseReason.SESSION_ENDED,
        CloseReason.EXPIRED,
        CloseReason.SESSION_ENDED,
        CloseReason.DRAINING,
        CloseReason.SESSION_ENDED,
    ]


async def test_it_expires_on_time(autojump_clock: MockClock, manage: Manage, me: Principal) -> None:
    host = FakeHost(Faults(open_delay=10))
    async with manage(host) as manager:
        began = trio.current_time()
        record = await manager.create(me, SMALL)
        # The time to live counts from the request.
        await trio.sleep_until(began + 49.9)
        assert manager.find(record.session_id) is not None
        await trio.sleep_until(began + 50.1)
        end = await manager.get(me, record.session_id)
        assert (end.state, end.reason) == (State.EXPIRED, "reached the end of its time to live")
        assert host.hosted[0].ends == [CloseReason.EXPIRED]
        assert manager.find(record.session_id) is None


async def test_setting_the_wall_clock_changes_no_time_to_live(
    autojump_clock: MockClock, manage: Manage, me: Principal, clock: WallClock
) -> None:
    async with manage(FakeHost()) as manager:
        record = await manager.create(me, SMALL)
        clock.advance(10 * 24 * 3600)
        await trio.sleep(40)
        assert manager.find(record.session_id) is not None
        clock.advance(-20 * 24 * 3600)
        await trio.sleep(11)
        end = await manager.get(me, record.session_id)
        assert end.state is State.EXPIRED
        # Testimony, not arithmetic.
        assert end.ended_at == clock.now


async def test_terminated_first_and_expired_later_is_terminated(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    host = FakeHost(Faults(teardown_delay=10))
    async with manage(host) as manager:
        record = await manager.create(me, CreateRequest("small", 5))
        await trio.sleep(4)
        end = await manager.terminate(me, record.session_id)
        assert end.state is State.TERMINATED
        assert host.hosted[0].ends == [CloseReason.SESSION_ENDED]


async def test_it_can_expire_before_it_runs(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    async with manage(FakeHost(Faults(open_delay=10))) as manager:
        with pytest.raises(SessionFailed, match="reached the end of its time to live"):
            await manager.create(me, CreateRequest("small", 5))
        (record,) = await manager.list(me)
        assert record.state is State.EXPIRED


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SandboxError("no bwrap: install bubblewrap"), "no bwrap: install bubblewrap"),
        (ExceptionGroup("", [ExceptionGroup("", [SandboxError("deep")])]), "deep"),
        (OSError("secret path"), "an internal error; the server's log says more"),
    ],
)
async def test_a_sandbox_that_cannot_be_made(
    autojump_clock: MockClock,
    manage: Manage,
    me: Principal,
    store: MemoryStore,
    error: Exception,
    reason: str,
) -> None:
    async with manage(FakeHost(Faults(open_error=error))) as manager:
        with pytest.raises(SessionFailed) as caught:
            await manager.create(me, SMALL)
        assert caught.value.reason == reason
        (record,) = await manager.list(me)
        assert (record.state, record.reason) == (State.FAILED, reason)
        assert store.states(record.session_id) == [State.PENDING, State.FAILED]


async def test_a_sandbox_that_takes_too_long(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    config = ManagerConfig(timeouts=Timeouts(start=20))
    async with manage(FakeHost(Faults(open_delay=30)), config=config) as manager:
        began = trio.current_time()
        with pytest.raises(SessionFailed, match="it did not start within 20 seconds"):
            await manager.create(me, SMALL)
        assert trio.current_time() - began == pytest.approx(20)
        (record,) = await manager.list(me)
        assert record.state is State.FAILED


async def test_the_start_time_limit_does_not_outlive_the_start(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    config = ManagerConfig(timeouts=Timeouts(start=20))
    async with manage(FakeHost(Faults(open_delay=19)), config=config) as manager:
        record = await manager.create(me, SMALL)
        await trio.sleep(30)
        assert manager.find(record.session_id) is not None


@pytest.mark.parametrize("after", [0, 3])
async def test_a_host_that_breaks_fails_that_session_alone(
    autojump_clock: MockClock, manage: Manage, me: Principal, after: float
) -> None:
    host = FakeHost(Faults(), Faults(body_error_after=after))
    async with manage(host) as manager:
        healthy = await manager.create(me, SMALL)
        # One that breaks at once may have run already when `create` looks.
        with suppress(SessionFailed) if after == 0 else nullcontext():
            await manager.create(me, SMALL)
        await trio.sleep(5)
        broken, still = await manager.list(me)
        if broken.session_id == healthy.session_id:
            broken, still = still, broken
        assert (broken.state, broken.reason) == (
            State.FAILED,
            "an internal error; the server's log says more",
        )
        assert still == healthy
        assert (await manager.create(me, SMALL)).state is State.RUNNING


async def test_a_teardown_that_fails_is_said(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    async with manage(FakeHost(Faults(teardown_error=ValueError("stuck")))) as manager:
        record = await manager.create(me, SMALL)
        end = await manager.terminate(me, record.session_id)
        assert end.state is State.FAILED
        assert end.reason == (
            "terminated on request, but an internal error; the server's log says more"
        )


async def test_a_teardown_that_takes_too_long_is_forced(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    host = FakeHost(Faults(teardown_delay=1000))
    config = ManagerConfig(timeouts=Timeouts(teardown=7))
    async with manage(host, config=config) as manager:
        record = await manager.create(me, SMALL)
        began = trio.current_time()
        end = await manager.terminate(me, record.session_id)
        assert trio.current_time() - began == pytest.approx(7)
        assert host.hosted[0].forced
        assert end.state is State.TERMINATED
        assert end.reason == "terminated on request; by force, after 7 seconds"


async def test_a_store_that_never_answers_does_not_hold_the_end(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    async with manage(FakeHost()) as manager:
        record = await manager.create(me, SMALL)
        store.put_delay = 1e6
        began = trio.current_time()
        end = await manager.terminate(me, record.session_id)
        assert end.ended
        assert trio.current_time() - began <= 26
        assert manager.statistics().unsaved == 1
        assert await manager.get(me, record.session_id) == end
        store.put_delay = 0


@pytest.mark.parametrize("open_delay", [0, 10])
async def test_cancelled_from_outside_it_says_that_the_server_went_away(
    autojump_clock: MockClock, store: MemoryStore, clock: WallClock, open_delay: float
) -> None:
    """Without its manager having said anything."""
    host = FakeHost(Faults(open_delay=open_delay, teardown_delay=5))
    session = LiveSession(
        make_record("s", state=State.PENDING),
        SandboxSpec("s"),
        host=host,
        store=store,
        clock=clock,
        timeouts=Timeouts(),
        deadline=trio.current_time() + 100,
    )
    with trio.move_on_after(1) as scope:
        await session.run()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(1)
    assert (host.open, host.opening) == (0, 0)
    assert [hosted.ends for hosted in host.hosted] == [[CloseReason.DRAINING]] * (open_delay == 0)
    assert session.record == store.records["s"]
    assert session.record.state is State.TERMINATED
    assert session.record.reason == "ended because the server was shut down"
    assert session.record.ended_at == clock.now
    assert session.saved
    assert session.started.is_set()
    assert session.finished.is_set()
    # Nothing can happen to it any more.
    session.end(Cause.EXPIRED)
    assert session.record == store.records["s"]


def stream_with(accepted: int, sent: int) -> StreamStatistics:
    """Return a stream with one attachment that has taken and got so many bytes."""
    sender = SenderStatistics(sent, 0, 0, 0, 0, finished=False)
    attachment = AttachmentStatistics(
        "a", "me", Mode.CONTROL, Policy.PACE, bound=True, accepted=accepted, senders={1: sender}
    )
    return StreamStatistics(
        "s", "main", Kind.PTY, StreamState.RUNNING, (), 1, 0.0, None, {}, 0, (attachment,)
    )


async def test_a_session_that_nobody_uses_ends(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    host = FakeHost()
    async with manage(host) as manager:
        record = await manager.create(me, CreateRequest("unused", 0))
        assert (record.runtime, host.hosted[0].spec.runtime) == ("other", "other")
        began = trio.current_time()
        # Input, then output, each within the time, keep it alive.
        for when, traffic in ((50, (1, 0)), (100, (1, 5)), (150, (2, 5))):
            await trio.sleep_until(began + when)
            host.traffic[record.session_id] = (stream_with(*traffic),)
        await trio.sleep_until(began + 150 + 59)
        assert manager.find(record.session_id) is not None
        await trio.sleep_until(began + 150 + 60 + 7)
        end = await manager.get(me, record.session_id)
        assert end.state is State.TERMINATED
        assert "nobody used it" in str(end.reason)
        assert host.hosted[0].ends == [CloseReason.SESSION_ENDED]


async def test_pausing(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    host = FakeHost()
    async with manage(host) as manager:
        session_id = (await manager.create(me, CreateRequest("unused", 0))).session_id
        (hosted,) = host.hosted
        for _ in range(2):
            record = await manager.pause(me, session_id)
            assert (record.state, hosted.paused) == (State.PAUSED, True)
            assert store.records[session_id].state is State.PAUSED
        await trio.sleep(1000)  # nobody can use it now, so that does not count
        for _ in range(2):
            record = await manager.resume(me, session_id)
            assert (record.state, hosted.paused) == (State.RUNNING, False)
        hosted.refusal = "the freezer is warm"
        with pytest.raises(CannotPause, match="the freezer is warm"):
            await manager.pause(me, session_id)
        assert (await manager.get(me, session_id)).state is State.RUNNING
        with pytest.raises(NotOwner):
            await manager.pause(Principal("other"), session_id)
        await manager.terminate(me, session_id)
        for change in (manager.pause, manager.resume):
            with pytest.raises(NotRunning, match="terminated"):
                await change(me, session_id)


async def test_ending_while_it_is_being_paused(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    async with manage(FakeHost()) as manager, trio.open_nursery() as nursery:
        session_id = (await manager.create(me, SMALL)).session_id

        async def pause() -> None:
            with pytest.raises(NotRunning):
                await manager.pause(me, session_id)

        nursery.start_soon(pause)
        await trio.sleep(0.5)
        assert (await manager.terminate(me, session_id)).state is State.TERMINATED
