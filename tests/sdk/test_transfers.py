"""Copies that outlive their streams: the server has given up waiting, and it goes on."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from relay.file_problems import FileProblem
from relay.file_stream import FileFailed
from tests.testing.cut_trunk import CutTrunk, open_cut_trunk
from trunkline.sdk import transfers
from trunkline.sdk.files import Files

BIG = os.urandom(3_000_000)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CutTrunk]:
    async with open_cut_trunk(tmp_path) as opened:
        yield opened


@pytest.fixture
def files(world: CutTrunk) -> Files:
    return Files(world.trunk)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    directory = tmp_path / "local"
    directory.mkdir()
    return directory


class Cutter:
    """Cuts when a copy has come so far, for so long that its stream is given up."""

    def __init__(self, world: CutTrunk, *positions: int) -> None:
        self._world = world
        self._positions = list(positions)
        self._wanted = trio.Event()
        self.cuts = 0

    def progress(self, position: int) -> None:
        if self._positions and position >= self._positions[0]:
            self._positions.pop(0)
            self._wanted.set()

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            self.cuts += 1
            await self._world.cut_until_given_up()


@pytest.mark.parametrize("size", [0, 1, transfers.LAST_BYTES, transfers.LAST_BYTES + 1, len(BIG)])
async def test_up_and_down(files: Files, world: CutTrunk, local: Path, size: int) -> None:
    source = local / "source"
    source.write_bytes(BIG[:size])
    source.chmod(0o640)
    os.utime(source, ns=(10**18 + 7, 10**18 + 7))
    seen: list[int] = []
    info = await files.upload(source, "f", progress=seen.append)
    assert info.sha256 == hashlib.sha256(BIG[:size]).hexdigest()
    there = world.home / "f"
    assert there.read_bytes() == BIG[:size]
    assert (stat.S_IMODE(there.stat().st_mode), there.stat().st_mtime_ns) == (0o640, 10**18 + 7)
    assert seen[-1] == size
    seen.clear()
    await files.download("f", local / "back", progress=seen.append)
    back = local / "back"
    assert back.read_bytes() == BIG[:size]
    assert (stat.S_IMODE(back.stat().st_mode), back.stat().st_mtime_ns) == (0o640, 10**18 + 7)
    assert seen[-1] == size
    assert sorted(os.listdir(local)) == ["back", "source"]


async def test_an_upload_goes_on_when_its_stream_was_given_up(
    files: Files, world: CutTrunk, local: Path
) -> None:
    (local / "source").write_bytes(BIG)
    cutter = Cutter(world, 400_000, 1_500_000, 2_600_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cutter.run)
        info = await files.upload(local / "source", "f", progress=cutter.progress)
        nursery.cancel_scope.cancel()
    assert info.sha256 == hashlib.sha256(BIG).hexdigest()
    assert (world.home / "f").read_bytes() == BIG
    assert cutter.cuts >= 2
    assert os.listdir(world.home) == ["f"]


async def test_a_download_goes_on_when_its_stream_was_given_up(
    files: Files, world: CutTrunk, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "SEGMENT_BYTES", 1_000_000)
    monkeypatch.setattr(transfers, "PIECE_BYTES", 100_000)
    (world.home / "f").write_bytes(BIG)
    cutter = Cutter(world, 300_000, 1_700_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cutter.run)
        await files.download("f", local / "f", progress=cutter.progress)
        nursery.cancel_scope.cancel()
    assert (local / "f").read_bytes() == BIG
    assert os.listdir(local) == ["f"]


async def test_a_download_of_a_file_that_changes_starts_over(
    files: Files, world: CutTrunk, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "SEGMENT_BYTES", 1_000_000)
    (world.home / "f").write_bytes(BIG)
    changed = False

    def progress(position: int) -> None:
        nonlocal changed
        if position >= 1_000_000 and not changed:
            changed = True
            (world.home / "f").write_bytes(BIG[::-1])

    await files.download("f", local / "f", progress=progress)
    assert changed
    assert (local / "f").read_bytes() == BIG[::-1]


async def test_a_download_of_a_file_that_always_changes_fails(
    files: Files, world: CutTrunk, local: Path
) -> None:
    (world.home / "f").write_bytes(BIG)

    def progress(position: int) -> None:
        with (world.home / "f").open("ab") as file:
            file.write(b"more")

    with pytest.raises(FileFailed) as caught:
        await files.download("f", local / "f", progress=progress)
    assert caught.value.problem is FileProblem.CHANGED
    assert os.listdir(local) == []


async def test_what_is_damaged_on_the_way_is_not_kept(
    files: Files, world: CutTrunk, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.home / "f").write_bytes(BIG)

    class Wrong:
        """A digest that never fits."""

        def update(self, data: bytes) -> None:
            pass

        def hexdigest(self) -> str:
            return "0" * 64

    monkeypatch.setattr(transfers, "hashlib", SimpleNamespace(sha256=Wrong))
    with pytest.raises(FileFailed) as caught:
        await files.download("f", local / "f")
    assert caught.value.problem is FileProblem.MISMATCH
    (local / "source").write_bytes(BIG)
    with pytest.raises(FileFailed) as caught:
        await files.upload(local / "source", "g")
    assert caught.value.problem is FileProblem.MISMATCH
    monkeypatch.undo()
    assert os.listdir(local) == ["source"]
    assert os.listdir(world.home) == ["f"]


async def test_a_source_that_shrinks(files: Files, world: CutTrunk, local: Path) -> None:
    (local / "source").write_bytes(BIG)

    def progress(position: int) -> None:
        os.truncate(local / "source", 10)

    with pytest.raises(FileFailed) as caught:
        await files.upload(local / "source", "f", progress=progress)
    assert caught.value.problem is FileProblem.CHANGED
    assert os.listdir(world.home) == []


async def test_local_trouble(files: Files, world: CutTrunk, local: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await files.upload(local / "nothing", "f")
    os.mkfifo(local / "pipe")
    with pytest.raises(OSError, match="regular"):
        await files.upload(local / "pipe", "f")
    (world.home / "f").write_bytes(b"1")
    with pytest.raises(FileNotFoundError):
        await files.download("f", local / "no" / "f")
    (local / "f").write_text("mine")
    with pytest.raises(FileExistsError):
        await files.download("f", local / "f", overwrite=False)
    assert (local / "f").read_text() == "mine"
    with pytest.raises(FileFailed):
        await files.download("nothing", local / "g")
    assert sorted(os.listdir(local)) == ["f", "pipe"]
    (world.home / "f").chmod(0o4755)
    await files.download("f", local / "g")
    assert stat.S_IMODE((local / "g").stat().st_mode) == 0o755


async def test_an_upload_that_is_given_up_leaves_nothing(
    files: Files, world: CutTrunk, local: Path
) -> None:
    (local / "source").write_bytes(BIG)
    begun = trio.Event()

    def progress(position: int) -> None:
        if position > 1_000_000:
            begun.set()

    async with trio.open_nursery() as nursery:

        async def upload() -> None:
            await files.upload(local / "source", "f", progress=progress)

        nursery.start_soon(upload)
        await begun.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(10):
        while world.agent.streams("the-session"):
            await trio.sleep(0.01)
    assert os.listdir(world.home) == []
    with pytest.raises(FileFailed, match="exists"):
        (world.home / "f").touch()
        await files.upload(local / "source", "f", overwrite=False)
