"""What a restart leaves, with a real database file."""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from auth.principal import Principal
from sessions.manager import LOST, CreateRequest, ManagerConfig, open_manager
from sessions.profiles import profiles_from_mapping
from sessions.state import State
from sessions.store import StoreInUse, open_store
from tests.testing.fake_host import FakeHost
from tests.testing.session_records import NOW, make_ended, make_record
from tests.testing.wall_clock import WallClock

ME = Principal("owner")
PROFILES = profiles_from_mapping({})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trunkline.db"


async def test_what_had_not_ended_is_lost_and_says_so(path: Path) -> None:
    clock = WallClock(NOW + timedelta(hours=1))
    async with open_store(path) as store:
        for state in (State.PENDING, State.RUNNING, State.TERMINATING):
            await store.put(make_record(state.value, state=state, reason="old", epoch=3))
        over = make_ended("over", NOW, reason="terminated on request")
        await store.put(over)
    async with (
        open_store(path) as store,
        open_manager(host := FakeHost(), store, PROFILES, clock=clock) as manager,
    ):
        assert set(host.lost) == {"pending", "running", "terminating"}
        for state in (State.PENDING, State.RUNNING, State.TERMINATING):
            record = await manager.get(ME, state.value)
            assert record == make_record(
                state.value, state=State.FAILED, reason=LOST, ended_at=clock.now, epoch=3
            )
            assert manager.find(state.value) is None
            assert await manager.terminate(ME, state.value) == record
            assert await manager.revoke(ME, state.value) == record
        assert await manager.get(ME, "over") == over
        assert len(await manager.list(ME)) == 4
        # What was lost takes no place in the quota.
        assert not manager.statistics().live


async def test_a_whole_life_twice(path: Path) -> None:
    clock = WallClock()
    async with (
        open_store(path) as store,
        open_manager(FakeHost(), store, PROFILES, clock=clock) as manager,
    ):
        request = CreateRequest("default", 60, "eu", "img")
        ended = await manager.create(ME, request)
        drained = await manager.create(ME, request)
        await manager.revoke(ME, drained.session_id)
        ended = await manager.terminate(ME, ended.session_id)
    async with (
        open_store(path) as store,
        open_manager(FakeHost(), store, PROFILES, clock=clock) as manager,
    ):
        assert await manager.get(ME, ended.session_id) == ended
        record = await manager.get(ME, drained.session_id)
        assert (record.state, record.epoch) == (State.TERMINATED, 1)
        assert record.reason == "ended because the server was shut down"
        assert record.placement == drained.placement


async def test_old_records_go_at_the_start(path: Path) -> None:
    async with open_store(path) as store:
        for hours in range(1, 50):
            await store.put(make_ended(f"h{hours}", NOW - timedelta(hours=hours)))
    async with open_store(path) as store:
        async with open_manager(FakeHost(), store, PROFILES, clock=WallClock(NOW)) as manager:
            assert len(await manager.list(ME)) == 24
        config = ManagerConfig(keep_ended_records=5)
        async with open_manager(
            FakeHost(), store, PROFILES, config=config, clock=WallClock(NOW)
        ) as manager:
            assert [record.session_id for record in await manager.list(ME)]
            assert {record.session_id for record in await manager.list(ME)} == {
                f"h{hours}" for hours in range(1, 6)
            }


SERVER = """
import sys
from pathlib import Path
import structlog
import trio
from auth.principal import Principal
from sessions.manager import CreateRequest, open_manager
from sessions.profiles import profiles_from_mapping
from sessions.store import open_store
from tests.testing.fake_host import FakeHost

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    async with open_store(Path(sys.argv[1])) as store:
        async with open_manager(FakeHost(), store, profiles_from_mapping({})) as manager:
            record = await manager.create(Principal("owner"), CreateRequest("default", 0))
            print(record.session_id, flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


async def test_a_server_that_is_killed_leaves_a_usable_file(path: Path) -> None:
    root = Path(__file__).parents[2]
    with trio.fail_after(60):
        async with await trio.open_file(os.devnull, "wb") as null:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-c", SERVER, str(path)],
                stdout=-1,
                stderr=null.fileno(),
                cwd=root,
            )
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            chunk = await process.stdout.receive_some()
            assert chunk, "the server did not start"
            line += chunk
        session_id = line.decode().strip()
        with pytest.raises(StoreInUse, match=f"process {process.pid}"):
            async with open_store(path):
                pytest.fail("two servers had one file")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await process.stdout.aclose()
        async with (
            open_store(path) as store,
            open_manager(FakeHost(), store, PROFILES) as manager,
        ):
            record = await manager.get(ME, session_id)
            assert (record.state, record.reason) == (State.FAILED, LOST)
            assert record.ended_at is not None
