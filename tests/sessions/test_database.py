# ruff: noqa: ASYNC240 - blocking on small local files harms no test

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio

from sessions.database import SCHEMA_VERSION, exclusive, prepare
from sessions.store import StoreCorrupt, StoreError, StoreInUse, StoreTooNew, open_store
from tests.testing.session_records import NOW, make_ended, make_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trunkline.db"


@pytest.fixture
async def used(path: Path) -> Path:
    """A database with records in it."""
    async with open_store(path) as store:
        for number in range(200):
            await store.put(make_ended(f"s{number}", NOW, reason="x" * 200))
    return path


def alter(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


async def refused(path: Path, error: type[StoreError], match: str) -> None:
    """Opening fails with that error, and the file is as it was."""
    before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(error, match=match) as caught:
        async with open_store(path):
            pytest.fail("it was opened")
    assert str(path) in str(caught.value)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


async def test_a_newer_schema_is_refused_and_not_touched(used: Path) -> None:
    alter(used, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    await refused(used, StoreTooNew, r"newer version \(schema 2; this one knows 1\): upgrade")


async def test_a_newer_schema_that_is_only_in_the_log_is_refused(used: Path) -> None:
    # As after a crash: the log is not yet merged.
    crash = (
        "import os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        f"database.execute('PRAGMA user_version = {SCHEMA_VERSION + 1}')\n"
        "os._exit(0)\n"
    )
    with trio.fail_after(60):
        await trio.run_process([sys.executable, "-c", crash, str(used)])
    assert used.with_name("trunkline.db-wal").stat().st_size
    await refused(used, StoreTooNew, "newer version")


async def test_another_programs_database_is_refused(path: Path) -> None:
    alter(path, "CREATE TABLE bookmarks (url TEXT)")
    path.chmod(0o600)
    await refused(path, StoreCorrupt, "database of another program: move it away")


async def test_garbage_is_refused(path: Path) -> None:
    path.write_bytes(b"this is not a database, " * 100)
    path.chmod(0o600)
    await refused(path, StoreCorrupt, "is damaged .*restore it from a backup, or move it .*away")


async def test_a_damaged_page_is_refused(used: Path) -> None:
    data = bytearray(used.read_bytes())
    data[4096:12288] = os.urandom(8192)
    used.write_bytes(data)
    await refused(used, StoreCorrupt, "is damaged")


async def test_a_truncated_file_is_refused(used: Path) -> None:
    data = used.read_bytes()
    used.write_bytes(data[: len(data) // 2])
    await refused(used, StoreCorrupt, "is damaged")


async def test_a_log_without_its_database_is_refused(path: Path) -> None:
    log = path.with_name("trunkline.db-wal")
    log.write_bytes(b"records")
    with pytest.raises(StoreCorrupt, match="is gone but its log"):
        async with open_store(path):
            pytest.fail("it was opened")
    assert not path.exists()
    assert log.read_bytes() == b"records"


async def test_an_empty_file_is_a_start_that_was_cut_short(path: Path) -> None:
    path.touch(0o600)
    async with open_store(path) as store:
        await store.put(make_record("a"))
    async with open_store(path) as store:
        assert await store.get("a") == make_record("a")


async def test_a_made_but_empty_database_is_a_start_that_was_cut_short(path: Path) -> None:
    alter(path, "PRAGMA journal_mode = WAL")
    assert path.stat().st_size
    async with open_store(path) as store:
        assert await store.get("a") is None


async def test_access_of_others_is_taken_away(used: Path) -> None:
    used.chmod(0o644)
    async with open_store(used):
        assert stat.S_IMODE(used.stat().st_mode) == 0o600


async def test_what_is_no_file_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="is not a plain file"):
        async with open_store(path):
            pytest.fail("it was opened")


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot open .*nowhere.*No such file or directory"):
        async with open_store(tmp_path / "nowhere" / "trunkline.db"):
            pytest.fail("it was opened")


async def test_a_second_server_is_refused_and_the_first_goes_on(path: Path) -> None:
    async with open_store(path) as first:
        with pytest.raises(
            StoreInUse, match=rf"in use by another server \(process {os.getpid()}\)"
        ):
            async with open_store(path):
                pytest.fail("it was opened")
        await first.put(make_record("a"))
    async with open_store(path) as second:
        assert await second.get("a") == make_record("a")


def test_the_lock_goes_with_the_process_that_held_it(path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom sessions.database import exclusive\n"
        "lock = exclusive(Path(sys.argv[1])); lock.__enter__()\n"
        "print('held', flush=True); sys.stdin.read(); os._exit(9)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(StoreInUse, match=f"process {child.pid}"), exclusive(path):
            pytest.fail("it was locked")
        child.communicate(timeout=60)
    with exclusive(path):
        pass


def test_prepare_makes_a_private_file_whatever_the_umask(path: Path) -> None:
    old = os.umask(0)
    try:
        prepare(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_cancelled_opening_frees_the_lock(path: Path) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_store(path):
            pytest.fail("it was opened")
    assert scope.cancelled_caught
    async with open_store(path):
        pass
