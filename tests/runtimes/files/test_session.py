"""Operations of a session, in the best way and without what newer kernels can do."""

# ruff: noqa: ASYNC230, ASYNC240, PTH104, PTH106, PTH108, PTH123, PTH211 - these tests speak to the file system as directly as what they test

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from relay.endpoint import Channel, ExitStatus
from runtimes.files import SessionFiles, open_session_files, uploads
from runtimes.files.endpoint import FileEndpoint
from runtimes.files.operations import PIECE_BYTES
from tests.testing.file_operations import file_request, finish
from tests.testing.file_sandbox import FileSandbox, on

UPLOAD = "an-upload-0123456789"
BIG = os.urandom(PIECE_BYTES * 2 + 12345)


async def start(files: SessionFiles, operation: str, path: str, **options: Any) -> FileEndpoint:
    request = file_request(operation, path, **options).file
    assert request is not None
    return await files.start(request)


async def test_a_link_is_written_through(files: SessionFiles, home: Path, top: Path) -> None:
    (top / "etc").mkdir()
    (home / "config").symlink_to("/etc/config")
    assert (await on(files, "write", "config", b"1")).last["created"]
    assert not (await on(files, "write", "config", b"22")).last["created"]
    assert (top / "etc" / "config").read_bytes() == b"22"
    assert (home / "config").is_symlink()
    assert (await on(files, "write", "config", b"3", overwrite=False)).error == "exists"


async def test_a_dangling_link_to_the_outside_makes_nothing_there(
    files: SessionFiles, home: Path, top: Path
) -> None:
    (home / "out").symlink_to(top.parent / "made")
    assert (await on(files, "write", "out", b"x")).error == "not_found"
    assert (await on(files, "mkdir", "out", parents=True)).error == "not_found"
    assert sorted(os.listdir(top.parent)) == ["root"]


async def test_links_are_moved_and_removed_themselves(
    files: SessionFiles, home: Path, top: Path
) -> None:
    (top / "keep").mkdir()
    (top / "keep" / "file").write_text("kept")
    (home / "link").symlink_to("/keep")
    assert (await on(files, "stat", "link")).last["type"] == "directory"
    assert (await on(files, "move", "link", target="moved", overwrite=False)).error is None
    entry = (await on(files, "list", ".", depth=5)).lines
    assert set(entry) == {"moved"}
    assert (entry["moved"]["type"], entry["moved"]["target"]) == ("symlink", "/keep")
    assert (await on(files, "remove", "moved", recursive=True)).error is None
    assert (top / "keep" / "file").read_text() == "kept"


async def test_a_removal_does_not_follow_links(files: SessionFiles, home: Path, top: Path) -> None:
    (top.parent / "outside").mkdir()
    (top.parent / "outside" / "file").write_text("kept")
    (home / "tree").mkdir()
    (home / "tree" / "link").symlink_to(top.parent / "outside")
    (home / "tree" / "dangling").symlink_to("nowhere")
    assert (await on(files, "remove", "tree", recursive=True)).error is None
    assert (top.parent / "outside" / "file").read_text() == "kept"


async def test_a_tree_deeper_than_descriptors_go(files: SessionFiles, home: Path) -> None:
    deep = home / "tree"
    for _ in range(200):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "f").write_text("x")
    (home / "tree" / "d" / "many").mkdir()
    for n in range(1500):
        (home / "tree" / "d" / "many" / str(n)).touch()
    assert (await on(files, "remove", "tree", recursive=True)).error is None
    assert os.listdir(home) == []


async def test_a_removal_races_with_somebody_who_moves_directories_out(
    files: SessionFiles, home: Path, top: Path
) -> None:
    """While it runs, a directory in the tree becomes a link to the outside and back."""
    outside = top.parent / "outside"
    outside.mkdir()
    precious = [outside / str(n) for n in range(50)]
    for file in precious:
        file.touch()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                (home / "tree" / "a").mkdir(parents=True, exist_ok=True)
                (home / "tree" / "a" / "f").touch()
                os.rename(home / "tree" / "a", top / "away")
                os.symlink(outside, home / "tree" / "a")
                os.unlink(home / "tree" / "a")
                os.rename(top / "away", home / "tree" / "b")
            except OSError:
                continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(100):
            await on(files, "remove", "tree", recursive=True)
    finally:
        stop.set()
        thread.join()
    assert all(file.exists() for file in precious)


async def test_a_write_races_with_a_directory_that_becomes_a_link(
    files: SessionFiles, home: Path, top: Path
) -> None:
    outside = top.parent / "outside"
    outside.mkdir()
    (home / "real").mkdir()
    (home / "bait").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(home / "real", home / "box")
            os.rename(home / "box", home / "real")
            os.rename(home / "bait", home / "box")
            os.rename(home / "box", home / "bait")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for n in range(150):
            await on(files, "write", f"box/{n}", b"x")
            await on(files, "mkdir", f"box/d{n}")
            await on(files, "move", f"box/{n}", target=f"box/m{n}")
            listed = await on(files, "list", "box")
            assert listed.error in {None, "not_found"}
    finally:
        stop.set()
        thread.join()
    assert os.listdir(outside) == []


async def test_devices_pipes_and_sockets_are_no_files(files: SessionFiles, home: Path) -> None:
    os.mkfifo(home / "pipe")
    assert (await on(files, "read", "pipe")).error == "invalid"
    assert (await on(files, "write", "pipe", b"x")).error == "invalid"
    assert (await on(files, "stat", "pipe")).last["type"] == "other"
    assert (await on(files, "list", ".")).lines["pipe"]["type"] == "other"
    assert stat.S_ISFIFO((home / "pipe").stat().st_mode)


async def test_names_that_are_not_utf_8_are_told_apart(files: SessionFiles, home: Path) -> None:
    directory = os.fsencode(home)
    for name in (b"caf\xe9", b"caf\xe8"):
        with open(directory + b"/" + name, "wb"):
            pass
    done = await on(files, "list", ".")
    entries = [json.loads(line) for line in done.content.splitlines()]
    assert {e["name_base64"] for e in entries} == {"Y2Fm6Q==", "Y2Fm6A=="}
    assert {e["path"] for e in entries} == {"caf\ufffd"}


async def test_a_directory_that_may_not_be_read_is_told(files: SessionFiles, home: Path) -> None:
    (home / "closed" / "in").mkdir(parents=True)
    (home / "closed").chmod(0)
    try:
        entry = (await on(files, "list", ".", depth=3)).lines["closed"]
        if os.geteuid() != 0:
            assert entry["error"] == "forbidden"
    finally:
        (home / "closed").chmod(0o700)


async def test_a_large_directory_comes_in_pieces(files: SessionFiles, home: Path) -> None:
    for n in range(3000):
        (home / f"file-{n}").touch()
    done = await on(files, "list", ".")
    assert len(done.lines) == 3000
    assert done.last == {"entries": 3000}
    endpoint = await start(files, "list", ".")
    await endpoint.receive(Channel.OUTPUT, 1)
    await endpoint.aclose()


async def test_a_file_that_shrinks_while_it_is_read(files: SessionFiles, home: Path) -> None:
    (home / "f").write_bytes(BIG)
    endpoint = await start(files, "read", "f")
    await endpoint.receive(Channel.OUTPUT, 1)
    os.truncate(home / "f", 10)
    done = await finish(endpoint)
    assert done.error == "changed"


async def test_a_file_that_grows_is_cut_where_it_ended(files: SessionFiles, home: Path) -> None:
    (home / "f").write_bytes(BIG)
    endpoint = await start(files, "read", "f")
    await endpoint.receive(Channel.OUTPUT, 1)
    with (home / "f").open("ab") as file:
        file.write(b"more")
    done = await finish(endpoint)
    assert done.error is None
    assert done.last["sent"] == len(BIG)
    assert done.last["etag"] != done.told[0]["etag"]


async def test_files_whose_size_nobody_knows() -> None:
    async with open_session_files("/", "/", trio.CapacityLimiter(2)) as everything:
        done = await on(everything, "read", "/proc/version", digest=True)
        assert done.content == Path("/proc/version").read_bytes()
        assert done.told[0]["size"] is None
        part = await on(everything, "read", "/proc/version", offset=3, length=5)
        assert part.content == done.content[3:8]


async def test_a_digest_of_a_file(files: SessionFiles, home: Path) -> None:
    (home / "f").write_bytes(BIG)
    told = (await on(files, "stat", "f", digest=True)).last
    assert told["sha256"] == hashlib.sha256(BIG).hexdigest()
    assert "sha256" not in (await on(files, "stat", ".", digest=True)).last


async def test_two_who_expect_the_same_file(files: SessionFiles, home: Path) -> None:
    etag = (await on(files, "write", "f", b"old")).last["etag"]
    both = [await start(files, "write", "f", if_match=etag) for _ in range(2)]
    results: list[str | None] = []

    async def end(endpoint: FileEndpoint, data: bytes) -> None:
        results.append((await finish(endpoint, data)).error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end, both[0], b"one")
        nursery.start_soon(end, both[1], b"two")
    assert len(results) == 2
    assert set(results) == {None, "changed"}


async def test_two_who_want_to_be_first(files: SessionFiles, home: Path) -> None:
    both = [await start(files, "write", "f", overwrite=False) for _ in range(2)]
    assert (await finish(both[0], b"one")).error is None
    assert (await finish(both[1], b"two")).error == "exists"
    assert (home / "f").read_bytes() == b"one"


async def test_a_directory_that_vanishes_under_a_write(files: SessionFiles, home: Path) -> None:
    (home / "d").mkdir()
    endpoint = await start(files, "write", "d/f")
    await endpoint.send(b"x")
    for name in os.listdir(home / "d"):
        os.unlink(home / "d" / name)
    os.rmdir(home / "d")
    assert (await finish(endpoint, b"y")).error in {"not_found", "failed"}


async def test_private_files_stay_private_while_they_are_replaced(
    files: SessionFiles, home: Path
) -> None:
    (home / "key").write_text("secret")
    (home / "key").chmod(0o600)
    endpoint = await start(files, "write", "key")
    await endpoint.send(BIG)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in home.iterdir()]
    assert set(modes) == {0o600}
    assert (await finish(endpoint, b"")).error is None
    assert stat.S_IMODE((home / "key").stat().st_mode) == 0o600


async def test_new_files_follow_the_umask(files: SessionFiles, home: Path) -> None:
    before = os.umask(0o027)
    try:
        await on(files, "write", "f", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((home / "f").stat().st_mode) == 0o640


async def test_cancelling_a_caller_loses_nothing(files: SessionFiles, home: Path) -> None:
    (home / "f").write_bytes(BIG)
    endpoint = await start(files, "read", "f", digest=True)
    content = bytearray()
    cancelled = 0
    while True:
        with trio.CancelScope() as scope:
            if cancelled % 2:
                scope.cancel()
            cancelled += 1
            piece = await endpoint.receive(Channel.OUTPUT, 100_000)
            if not piece:
                break
            content += piece
    assert content == BIG
    assert cancelled > 10
    assert (await finish(endpoint)).error is None


async def test_cancelling_at_any_moment_leaves_nothing(files: SessionFiles, home: Path) -> None:
    async def write() -> None:
        endpoint = await start(files, "write", "f")
        try:
            for at in range(0, len(BIG), 65536):
                await endpoint.send(BIG[at : at + 65536])
            await endpoint.send_eof()
        finally:
            await endpoint.aclose()

    for steps in range(40):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert set(os.listdir(home)) <= {"f"}
        if "f" in os.listdir(home):
            assert (home / "f").read_bytes() == BIG
    assert files.open_count == 0


async def test_the_end_of_a_session_throws_uploads_away(top: Path, home: Path) -> None:
    for unnamed in (True, False):
        limiter = trio.CapacityLimiter(2)
        async with open_session_files(str(top), "/home", limiter, unnamed=unnamed) as opened:
            await on(opened, "write", "f", b"part", upload=UPLOAD, size=100)
            busy = await start(opened, "write", "g", upload=UPLOAD + "2", size=100)
            await busy.send(b"x")
            assert len(os.listdir(home)) == (0 if unnamed else 2)
        assert os.listdir(home) == []
        assert await busy.wait() == ExitStatus(signal="KILL")


async def test_uploads_are_bounded(
    files: SessionFiles, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_UNFINISHED", 2)
    monkeypatch.setattr(uploads, "MAX_FINISHED", 1)
    for n in range(2):
        await on(files, "write", f"f{n}", b"1", upload=f"{UPLOAD}{n}", size=2)
    third = {"upload": f"{UPLOAD}2", "size": 2}
    assert (await on(files, "write", "f2", b"1", **third)).error == "limit"
    for n in range(2):
        await on(files, "write", ".", b"2", upload=f"{UPLOAD}{n}", offset=1)
    assert (await on(files, "stat", ".", upload=f"{UPLOAD}0")).error == "not_found"
    assert (await on(files, "stat", ".", upload=f"{UPLOAD}1")).last["complete"]
    assert (await on(files, "write", "f2", b"1", **third)).error is None
    monkeypatch.setattr(uploads, "IDLE_SECONDS", -1.0)
    await on(files, "write", "f3", b"1", upload=f"{UPLOAD}3", size=2)
    assert (await on(files, "write", "f4", b"1", upload=f"{UPLOAD}4", size=2)).error is None
    assert (await on(files, "stat", ".", upload=f"{UPLOAD}2")).error == "not_found"


async def test_input_goes_in_large_pieces_and_waits_for_the_disk(
    files: SessionFiles, home: Path
) -> None:
    """At most one thread works for a write, and no more than a piece waits."""
    endpoint = await start(files, "write", "f")
    await endpoint.send(BIG[:1000])
    sizes = [p.stat().st_size for p in home.iterdir()]
    assert sizes in ([], [0])
    await endpoint.send(BIG[1000 : PIECE_BYTES + 1000])
    assert (await finish(endpoint, BIG[PIECE_BYTES + 1000 :])).error is None
    assert (home / "f").read_bytes() == BIG


async def test_a_reader_that_does_not_come_back_holds_one_piece(
    files: SessionFiles, home: Path
) -> None:
    (home / "f").write_bytes(BIG)
    sandbox = FileSandbox(files)
    endpoint = await sandbox.start(file_request("read", "f"))
    await endpoint.receive(Channel.OUTPUT, 1)
    await wait_all_tasks_blocked()
    assert sandbox.statistics().endpoints_open == 1
    await endpoint.aclose()


async def test_where_linking_fails_nothing_is_left(
    files: SessionFiles, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    def rename(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "rename", rename)
    assert (await on(files, "write", "f", b"x")).error == "no_space"
    assert (await on(files, "write", "f", b"x", overwrite=False)).error == "no_space"
    monkeypatch.undo()
    assert os.listdir(home) == []
