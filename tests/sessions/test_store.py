# ruff: noqa: ASYNC240 - blocking on small local files harms no test

from __future__ import annotations

import stat
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
import trio
import trio.testing

from sessions.state import State
from sessions.store import RecordStore, Store, StoreCorrupt, StoreError, _put, open_store
from tests.testing.memory_store import MemoryStore
from tests.testing.session_records import NOW, make_ended, make_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trunkline.db"


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[RecordStore]:
    """Both stores, so that the double is as good as the real one."""
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            yield await stack.enter_async_context(open_store(path))
        else:
            yield MemoryStore()


async def test_what_is_put_is_got(store: RecordStore) -> None:
    full = make_record(
        "a",
        state=State.EXPIRED,
        reason="why\nnot \U0001f600",
        ended_at=NOW + timedelta(microseconds=1),
        image_ref="ghcr.io/x@sha256:abc",
        epoch=2**40,
    )
    await store.put(full)
    assert await store.get("a") == full
    assert await store.get("b") is None


async def test_put_replaces_until_the_session_has_ended(store: RecordStore) -> None:
    await store.put(make_record("a", state=State.PENDING))
    await store.put(make_record("a", epoch=1))
    assert await store.get("a") == make_record("a", epoch=1)
    end = make_ended("a", NOW, epoch=1)
    await store.put(end)
    await store.put(make_record("a", epoch=2))
    assert await store.get("a") == end


async def test_list_owned_is_newest_first_and_of_that_owner_alone(store: RecordStore) -> None:
    for number in (2, 0, 1):
        await store.put(make_record(f"s{number}", created_at=NOW + timedelta(seconds=number)))
    await store.put(make_record("other", owner="somebody"))
    assert [record.session_id for record in await store.list_owned("owner")] == ["s2", "s1", "s0"]
    assert await store.list_owned("nobody") == []


async def test_mark_lost_fails_what_had_not_ended(store: RecordStore) -> None:
    for state in (State.PENDING, State.RUNNING, State.TERMINATING):
        await store.put(make_record(state.value, state=state))
    over = make_ended("over", NOW)
    await store.put(over)
    later = NOW + timedelta(hours=3)
    assert set(await store.mark_lost(later, "lost")) == {"pending", "running", "terminating"}
    for state in (State.PENDING, State.RUNNING, State.TERMINATING):
        assert await store.get(state.value) == make_record(
            state.value, state=State.FAILED, reason="lost", ended_at=later
        )
    assert await store.get("over") == over
    assert await store.mark_lost(later, "lost") == ()


async def test_purge_by_age_and_by_number_and_never_what_lives(store: RecordStore) -> None:
    await store.put(make_record("live", created_at=NOW - timedelta(days=400)))
    for age in range(10):
        await store.put(make_ended(f"e{age}", NOW - timedelta(hours=age)))
    assert await store.purge(NOW - timedelta(hours=6), keep=100) == 3
    assert await store.purge(NOW - timedelta(hours=6), keep=100) == 0
    assert await store.purge(NOW - timedelta(days=9), keep=2) == 5
    left = {record.session_id for record in await store.list_owned("owner")}
    assert left == {"live", "e0", "e1"}
    assert await store.purge(NOW - timedelta(days=9), keep=0) == 2


async def test_records_survive_and_the_file_is_private(path: Path) -> None:
    async with open_store(path) as store:
        await store.put(make_record("a"))
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert path.with_name("trunkline.db-wal").exists()
    async with open_store(path) as store:
        assert await store.get("a") == make_record("a")


async def test_writes_happen_in_the_order_they_were_asked_for(path: Path) -> None:
    async with open_store(path) as store:
        async with trio.open_nursery() as nursery:
            for epoch in range(200):
                nursery.start_soon(store.put, make_record(f"s{epoch}", epoch=epoch))
                nursery.start_soon(store.put, make_record("same", epoch=epoch))
                await trio.lowlevel.checkpoint()
        last = await store.get("same")
        assert last is not None
        assert last.epoch == 199
        assert len(await store.list_owned("owner")) == 201


async def test_a_call_that_waits_for_its_turn_is_given_up(path: Path) -> None:
    async with open_store(path) as store:
        entered, proceed = threading.Event(), threading.Event()

        def hold(_connection: object) -> None:
            entered.set()
            assert proceed.wait(30)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store._run, hold)
            await trio.to_thread.run_sync(entered.wait, 30)
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_when_blocked, scope)
                await store.put(make_record("a"))
            assert scope.cancelled_caught
            proceed.set()
        assert await store.get("a") is None


async def test_a_call_that_has_begun_is_completed(path: Path) -> None:
    async with open_store(path) as store:
        entered, proceed = threading.Event(), threading.Event()

        def put_slowly(connection: sa.Connection) -> None:
            entered.set()
            assert proceed.wait(30)
            _put(connection, make_record("a"))

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store._run, put_slowly)
                await trio.to_thread.run_sync(entered.wait, 30)
                scope.cancel()
                proceed.set()
        assert await store.get("a") == make_record("a")


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)
    scope.cancel()


async def test_no_thread_and_no_descriptor_is_left(path: Path) -> None:
    async with open_store(path) as store:
        await store.put(make_record("a"))
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(20):
        async with open_store(path) as store:
            await store.get("a")
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert not trio.to_thread.current_default_thread_limiter().borrowed_tokens


async def test_a_row_that_makes_no_sense_is_reported(path: Path) -> None:
    async with open_store(path) as store:
        await store.put(make_record("a"))
        await _execute(store, "UPDATE sessions SET state = 'dancing'")
        with pytest.raises(StoreCorrupt, match=r"trunkline\.db is damaged .*'a' is senseless"):
            await store.get("a")
        await _execute(store, "UPDATE sessions SET state = 'running', reasons = '{'")
        with pytest.raises(StoreCorrupt, match="senseless"):
            await store.list_owned("owner")


async def test_an_error_of_the_database_names_the_file(path: Path) -> None:
    async with open_store(path) as store:
        await _execute(store, "DROP TABLE sessions")
        with pytest.raises(StoreError, match=r"cannot use .*trunkline\.db: no such table"):
            await store.put(make_record("a"))


async def test_a_full_disk_is_an_error_and_passes(path: Path) -> None:
    async with open_store(path) as store:
        await _execute(store, "PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match="database or disk is full"):
            await store.put(make_record("large", reason="x" * 1_000_000))
        await _execute(store, "PRAGMA max_page_count = 100000")
        await store.put(make_record("after"))
        assert await store.get("after") == make_record("after")


async def _execute(store: Store, statement: str) -> None:
    await store._run(lambda connection: connection.exec_driver_sql(statement))


async def test_what_rests_is_not_lost(store: RecordStore) -> None:
    resting = {State.STOPPING, State.STOPPED, State.STARTING}
    records = {state: make_record(state.value, state=state) for state in State}
    for record in records.values():
        await store.put(record)
    assert {record.state for record in await store.resting()} == resting
    lost = await store.mark_lost(NOW, "why")
    assert not set(lost) & {state.value for state in resting}
    for state in resting:
        assert await store.get(state.value) == records[state]
