from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from auth.principal import Principal
from relay.protocol.reasons import CloseReason
from runtimes.base import SandboxError
from sessions.manager import (
    CreateRequest,
    InvalidRequest,
    Manager,
    ManagerConfig,
    NoCapacity,
    NotOwner,
    PolicyDenied,
    SessionError,
    SessionFailed,
    SessionNotFound,
    ShuttingDown,
    UnknownProfile,
)
from sessions.placement import Node
from sessions.state import State
from sessions.store import StoreError
from tests.testing.fake_host import FakeHost, Faults
from tests.testing.memory_store import MemoryStore
from tests.testing.wall_clock import WallClock

Manage = Callable[..., AbstractAsyncContextManager[Manager]]
SMALL = CreateRequest("small", 0)
OTHER = Principal("other")


async def test_create_runs_and_says_everything(
    autojump_clock: MockClock, manage: Manage, store: MemoryStore, clock: WallClock
) -> None:
    host = FakeHost()
    staff = Principal("me", frozenset({"staff"}))
    async with manage(host) as manager:
        record = await manager.create(staff, CreateRequest("staff", 60, "local", "img"))
        assert uuid.UUID(record.session_id).version == 4
        assert record.session_id == str(uuid.UUID(record.session_id))
        assert (record.owner, record.profile, record.state) == ("me", "staff", State.RUNNING)
        assert record.created_at == clock.now
        assert record.expires_at == clock.now + timedelta(seconds=60)
        assert (record.reason, record.ended_at, record.epoch) == (None, None, 0)
        assert (record.runtime, record.image_ref) == ("fake", "img")
        assert store.records[record.session_id] == record
        assert manager.find(record.session_id) == record
        (hosted,) = host.hosted
        spec = hosted.spec
        assert (spec.session_id, spec.image) == (record.session_id, "img")
        assert (spec.shell, dict(spec.environment), spec.directory) == (
            ("zsh",),
            {"A": "B"},
            "/work",
        )
        assert store.states(record.session_id) == [State.PENDING, State.RUNNING]


async def test_ttl_zero_is_the_default_of_the_profile(
    autojump_clock: MockClock, manage: Manage, me: Principal, clock: WallClock
) -> None:
    async with manage(FakeHost()) as manager:
        record = await manager.create(me, SMALL)
        assert record.expires_at - record.created_at == timedelta(seconds=50)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (CreateRequest("nope", 0), UnknownProfile, "there is no profile 'nope'"),
        (CreateRequest("small", -1), InvalidRequest, "ttl_seconds: must not be negative"),
        (CreateRequest("small", 101), PolicyDenied, "ttl_seconds 101 is more than the 100"),
        (CreateRequest("staff", 0), PolicyDenied, "your groups may not use profile 'staff'"),
        (CreateRequest("small", 0, "x" * 257), InvalidRequest, "placement_hint: must be at most"),
        (CreateRequest("small", 0, None, "a\nb"), InvalidRequest, "image_ref: must be at most"),
    ],
)
async def test_bad_wishes_make_nothing(
    autojump_clock: MockClock,
    manage: Manage,
    me: Principal,
    store: MemoryStore,
    request_: CreateRequest,
    error: type[SessionError],
    message: str,
) -> None:
    host = FakeHost()
    async with manage(host) as manager:
        with pytest.raises(error, match=message) as caught:
            await manager.create(me, request_)
        assert manager.statistics().refused == 1
        assert manager.statistics().created == 0
    if isinstance(caught.value, InvalidRequest):
        assert isinstance(caught.value, ValueError)
        assert message.startswith(caught.value.field)
    assert not store.history
    assert not host.hosted


@pytest.mark.parametrize(
    ("runtime", "isolated", "hint", "image", "reasons"),
    [
        ("fake", True, "", "img", ["image-ignored-by-fake-runtime"]),
        ("local", False, "mars", "img", ["hint-not-matched", "image-ignored-by-local-runtime"]),
        ("local", False, None, None, []),
        ("container", True, None, "img", []),
    ],
)
async def test_what_could_not_be_honoured_is_said(
    autojump_clock: MockClock,
    manage: Manage,
    me: Principal,
    runtime: str,
    isolated: bool,
    hint: str | None,
    image: str | None,
    reasons: list[str],
) -> None:
    async with manage(FakeHost(runtime_name=runtime, isolated=isolated)) as manager:
        record = await manager.create(me, CreateRequest("small", 0, hint, image))
        assert list(record.placement.reasons) == [
            "fog-preferred",
            "healthy",
            "capacity-ok",
            *reasons,
        ]


async def test_fifty_at_once_get_exactly_the_quota(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    host = FakeHost(*[Faults(open_delay=number % 7) for number in range(50)])
    outcomes: list[object] = []

    async def try_one(manager: Manager) -> None:
        try:
            outcomes.append(await manager.create(me, SMALL))
        except PolicyDenied as exc:
            outcomes.append(exc)

    async with manage(host) as manager:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(try_one, manager)
        denied = [outcome for outcome in outcomes if isinstance(outcome, PolicyDenied)]
        assert len(outcomes) == 50
        assert len(denied) == 47
        assert "you have 3 of at most 3 sessions under profile 'small'" in denied[0].reason
        assert manager.statistics().live == {State.RUNNING: 3}
        # The quota is per owner and profile.
        await manager.create(OTHER, SMALL)
        await manager.create(me, CreateRequest("default", 0))


async def test_a_place_is_given_back_only_when_everything_has_ended(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    host = FakeHost(Faults(teardown_delay=5))
    async with manage(host) as manager:
        first = await manager.create(me, SMALL)
        for _ in range(2):
            await manager.create(me, SMALL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.terminate, me, first.session_id)
            await trio.sleep(1)
            assert manager.find(first.session_id) is not None
            with pytest.raises(PolicyDenied):
                await manager.create(me, SMALL)
        await manager.create(me, SMALL)


async def test_a_failed_start_gives_its_place_back(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    host = FakeHost(*[Faults(open_error=SandboxError("no")) for _ in range(20)])
    async with manage(host) as manager:
        for _ in range(20):
            with pytest.raises(SessionFailed, match=r"^no$"):
                await manager.create(me, SMALL)
        assert not manager.statistics().live
        assert manager.statistics().ended == {State.FAILED: 20}
        await manager.create(me, SMALL)


async def test_the_server_has_a_bound_of_its_own(autojump_clock: MockClock, manage: Manage) -> None:
    async with manage(FakeHost(), config=ManagerConfig(max_live_sessions=5)) as manager:
        for number in range(5):
            await manager.create(Principal(f"p{number}"), SMALL)
        with pytest.raises(NoCapacity, match="the server has its 5 sessions"):
            await manager.create(OTHER, SMALL)


async def test_no_node_is_no_capacity(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    sick = Node("a", "eu", healthy=False)
    async with manage(FakeHost(), nodes=[sick]) as manager:
        with pytest.raises(NoCapacity, match="no-healthy-node"):
            await manager.create(me, SMALL)


async def test_get_and_list_and_whose_they_are(
    autojump_clock: MockClock, manage: Manage, me: Principal, clock: WallClock
) -> None:
    async with manage(FakeHost()) as manager:
        first = await manager.create(me, SMALL)
        clock.advance(1)
        second = await manager.create(me, SMALL)
        await manager.create(OTHER, SMALL)
        assert await manager.get(me, first.session_id) == first
        assert await manager.list(me) == [second, first]
        gone = await manager.terminate(me, first.session_id)
        assert await manager.get(me, first.session_id) == gone
        assert await manager.list(me) == [second, gone]
        assert manager.find(first.session_id) is None
        for action in (manager.get, manager.terminate, manager.revoke):
            for session_id in (first.session_id, second.session_id):
                with pytest.raises(NotOwner):
                    await action(OTHER, session_id)
            for unknown in (str(uuid.uuid4()), "", "\udcff", "x" * 10_000, "../etc"):
                with pytest.raises(SessionNotFound):
                    await action(me, unknown)
        assert manager.find("nope") is None
        assert await manager.get(me, second.session_id) == second


async def test_terminate_tells_clients_and_can_be_repeated(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore, clock: WallClock
) -> None:
    host = FakeHost(Faults(teardown_delay=5))
    async with manage(host) as manager:
        record = await manager.create(me, SMALL)
        clock.advance(7)
        results = []

        async def terminate() -> None:
            results.append(await manager.terminate(me, record.session_id))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(terminate)
        results.append(await manager.terminate(me, record.session_id))
        assert results == [results[0]] * 4
        end = results[0]
        assert (end.state, end.reason) == (State.TERMINATED, "terminated on request")
        assert end.ended_at == record.created_at + timedelta(seconds=7)
        (hosted,) = host.hosted
        assert hosted.ends == [CloseReason.SESSION_ENDED]
        assert hosted.closed
        assert not hosted.forced
        assert store.states(record.session_id) == [
            State.PENDING,
            State.RUNNING,
            State.TERMINATING,
            State.TERMINATED,
        ]


async def test_a_cancelled_terminate_still_ends_the_session(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    async with manage(FakeHost(Faults(teardown_delay=5))) as manager:
        record = await manager.create(me, SMALL)
        with trio.move_on_after(1) as scope:
            await manager.terminate(me, record.session_id)
        assert scope.cancelled_caught
        await trio.sleep(5)
        assert (await manager.get(me, record.session_id)).state is State.TERMINATED


async def test_revoke_raises_the_epoch_for_good(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    host = FakeHost()
    async with manage(host) as manager:
        record = await manager.create(me, SMALL)
        assert (await manager.revoke(me, record.session_id)).epoch == 1
        assert (await manager.revoke(me, record.session_id)).epoch == 2
        assert host.hosted[0].epochs == [1, 2]
        found = manager.find(record.session_id)
        assert found is not None
        assert found.epoch == 2
        assert store.records[record.session_id].epoch == 2
        end = await manager.terminate(me, record.session_id)
        assert end.epoch == 2
        assert await manager.revoke(me, record.session_id) == end
        assert host.hosted[0].epochs == [1, 2]


async def test_revoke_takes_effect_even_when_it_cannot_be_recorded(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    host = FakeHost()
    async with manage(host) as manager:
        record = await manager.create(me, SMALL)
        store.broken = True
        with pytest.raises(StoreError):
            await manager.revoke(me, record.session_id)
        assert host.hosted[0].epochs == [1]
        found = manager.find(record.session_id)
        assert found is not None
        assert found.epoch == 1
        store.broken = False


async def test_a_cancelled_create_leaves_nothing(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    host = FakeHost(Faults(open_delay=10))
    async with manage(host) as manager:
        with trio.move_on_after(1) as scope:
            await manager.create(me, SMALL)
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert not manager.statistics().live
        assert host.opening == 0
        (record,) = await manager.list(me)
        assert record.state is State.TERMINATED
        assert record.reason == "whoever asked for it went away meanwhile"
        for _ in range(3):
            await manager.create(me, SMALL)


async def test_create_cancelled_at_every_moment(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    """Whenever the cancellation comes, either there is a running session or there is none."""
    store.put_delay = 1
    outcomes = set()
    for tenth in range(0, 80, 5):
        host = FakeHost(Faults(open_delay=2))
        record = None
        async with manage(host) as manager:
            with trio.move_on_after(tenth / 10):
                record = await manager.create(me, SMALL)
            outcomes.add(record is None)
            if record is None:
                await trio.sleep(20)
                assert not manager.statistics().live
                assert host.open == 0
            else:
                assert manager.statistics().live == {State.RUNNING: 1}
    assert outcomes == {True, False}
    assert all(record.ended for record in store.records.values())


async def test_terminated_while_it_starts(
    autojump_clock: MockClock, manage: Manage, me: Principal
) -> None:
    host = FakeHost(Faults(open_delay=10), Faults(open_delay=10, open_ignores_cancel=True))
    async with manage(host) as manager:
        for _ in range(2):

            async def create() -> None:
                with pytest.raises(SessionFailed, match="terminated on request"):
                    await manager.create(me, SMALL)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(create)
                await trio.sleep(1)
                (pending,) = [r for r in await manager.list(me) if not r.ended]
                assert pending.state is State.PENDING
                end = await manager.terminate(me, pending.session_id)
                assert end.state is State.TERMINATED
                assert end.reason == "terminated on request"


async def test_shutdown_drains_and_says_so(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    host = FakeHost(Faults(teardown_delay=1), Faults(), Faults(open_delay=100))

    async def create() -> None:
        with pytest.raises(ShuttingDown):
            await manager.create(me, SMALL)

    async with trio.open_nursery() as nursery:
        async with manage(host) as manager:
            for _ in range(2):
                await manager.create(me, SMALL)
            nursery.start_soon(create)
            await wait_all_tasks_blocked()
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(1)
    with pytest.raises(ShuttingDown, match="the server is shutting down"):
        await manager.create(me, SMALL)
    assert [hosted.ends for hosted in host.hosted] == [[CloseReason.DRAINING]] * 2
    assert not any(hosted.forced for hosted in host.hosted)
    for record in store.records.values():
        assert record.state is State.TERMINATED
        assert record.reason == "ended because the server was shut down"
        assert record.ended_at is not None


async def test_a_cancelled_server_ends_by_force_and_honestly(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    host = FakeHost(Faults(teardown_delay=5), Faults(open_delay=100))
    with trio.CancelScope() as scope:
        async with manage(host) as manager:
            await manager.create(me, SMALL)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(manager.create, me, SMALL)
                await wait_all_tasks_blocked()
                began = trio.current_time()
                scope.cancel()
    assert trio.current_time() == began
    (hosted,) = host.hosted
    assert hosted.ends == [CloseReason.DRAINING]
    assert (host.open, host.opening) == (0, 0)
    assert [record.state for record in store.records.values()] == [State.TERMINATED] * 2
    assert all(record.ended_at for record in store.records.values())


async def test_an_error_in_the_block_ends_everything_and_comes_out(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    host = FakeHost()

    async def fail() -> None:
        async with manage(host) as manager:
            await manager.create(me, SMALL)
            raise KeyError("bug")

    with pytest.raises(ExceptionGroup) as caught:
        await fail()
    assert caught.group_contains(KeyError)
    assert host.open == 0
    assert all(record.ended for record in store.records.values())


async def test_a_record_that_cannot_be_written_stops_a_start(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    host = FakeHost()
    async with manage(host) as manager:
        store.broken = True
        with pytest.raises(SessionFailed, match="its record could not be written"):
            await manager.create(me, SMALL)
        assert not host.hosted
        assert manager.statistics().unsaved == 1
        store.broken = False


async def test_a_last_record_that_cannot_be_written_is_kept_and_written_later(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    async with manage(FakeHost()) as manager:
        record = await manager.create(me, SMALL)
        store.broken = True
        end = await manager.terminate(me, record.session_id)
        assert end.state is State.TERMINATED
        assert store.records[record.session_id].state is State.RUNNING
        assert await manager.get(me, record.session_id) == end
        assert await manager.list(me) == [end]
        assert manager.statistics().unsaved == 1
        await trio.sleep(61)
        assert manager.statistics().unsaved == 1
        store.broken = False
        await trio.sleep(60)
        assert manager.statistics().unsaved == 0
        assert store.records[record.session_id] == end


async def test_what_could_not_be_written_is_kept_in_bounded_number(
    autojump_clock: MockClock, manage: Manage, me: Principal, store: MemoryStore
) -> None:
    async with manage(FakeHost()) as manager:
        store.broken = True
        for _ in range(1030):
            with pytest.raises(SessionFailed):
                await manager.create(me, SMALL)
        assert manager.statistics().unsaved == 1024
        store.broken = False
        await trio.sleep(61)
        assert manager.statistics().unsaved == 0
        assert len(await manager.list(me)) == 1024


async def test_ended_records_are_purged_by_age_and_number(
    autojump_clock: MockClock, manage: Manage, me: Principal, clock: WallClock
) -> None:
    config = ManagerConfig(keep_ended_seconds=3600, keep_ended_records=4)
    async with manage(FakeHost(), config=config) as manager:
        keep = await manager.create(me, CreateRequest("default", 0))
        for _ in range(6):
            record = await manager.create(me, SMALL)
            clock.advance(1)
            await manager.terminate(me, record.session_id)
        await trio.sleep(61)
        assert len(await manager.list(me)) == 5
        clock.advance(3601)
        await trio.sleep(60)
        assert await manager.list(me) == [keep]


async def test_a_session_that_ends_while_the_store_is_read_is_listed_as_ended(
    autojump_clock: MockClock,
    manage: Manage,
    me: Principal,
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with manage(FakeHost()) as manager:
        record = await manager.create(me, SMALL)
        read = store.list_owned

        async def slow(owner: str) -> list[object]:
            stale = await read(owner)
            await manager.terminate(me, record.session_id)
            return list(stale)

        monkeypatch.setattr(store, "list_owned", slow)
        (listed,) = await manager.list(me)
        assert listed.state is State.TERMINATED


async def test_statistics(autojump_clock: MockClock, manage: Manage, me: Principal) -> None:
    host = FakeHost(Faults(), Faults(), Faults(open_error=SandboxError("no")))
    async with manage(host) as manager:
        first = await manager.create(me, SMALL)
        await manager.create(me, SMALL)
        with pytest.raises(SessionFailed):
            await manager.create(me, SMALL)
        with pytest.raises(UnknownProfile):
            await manager.create(me, CreateRequest("nope", 0))
        await manager.terminate(me, first.session_id)
        statistics = manager.statistics()
    assert statistics.live == {State.RUNNING: 1}
    assert statistics.ended == {State.FAILED: 1, State.TERMINATED: 1}
    assert (statistics.created, statistics.refused, statistics.unsaved) == (3, 1, 0)


@pytest.mark.parametrize("seed", range(8))
async def test_seeded_chaos_leaves_nothing_and_lies_to_nobody(
    autojump_clock: MockClock, manage: Manage, store: MemoryStore, seed: int
) -> None:
    """Sessions fail in every phase, requests are cancelled: the quota holds and all is freed."""
    host = FakeHost(seed=seed)
    peak = 0

    async def user(manager: Manager, number: int) -> None:
        nonlocal peak
        principal = Principal(f"user{number % 3}")
        for turn in range(4):
            with trio.move_on_after((number * 7 + turn * 3) % 11):
                try:
                    record = await manager.create(principal, SMALL)
                    peak = max(peak, sum(manager.statistics().live.values()))
                    assert record.state is State.RUNNING
                    await manager.revoke(principal, record.session_id)
                    await manager.terminate(principal, record.session_id)
                except (SessionFailed, PolicyDenied):
                    await trio.sleep(1)

    async with manage(host) as manager:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(user, manager, number)
        await trio.sleep(200)
        assert not manager.statistics().live
        assert manager.statistics().created == len(store.records)
        assert sum(manager.statistics().ended.values()) == len(store.records)
    assert 1 <= peak <= 9
    for record in store.records.values():
        assert record.ended
        assert record.ended_at is not None
        assert record.reason
