"""The SDK's files, against a real agent and a real file system."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.file_problems import FileProblem
from relay.file_stream import FileFailed
from tests.testing.cut_trunk import CutTrunk, open_cut_trunk
from trunkline.sdk.files import FileInfo, Files, info_of

BIG = os.urandom(1_500_000)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CutTrunk]:
    async with open_cut_trunk(tmp_path, linger=30) as opened:
        yield opened


@pytest.fixture
def files(world: CutTrunk) -> Files:
    return Files(world.trunk)


async def test_bytes_there_and_back(files: Files, world: CutTrunk) -> None:
    info = await files.write_bytes("d/f", BIG, parents=True, mode=0o600, modified=10**18)
    assert (info.size, info.mode, info.modified) == (len(BIG), 0o600, 10**18)
    assert info.sha256 == hashlib.sha256(BIG).hexdigest()
    assert await files.read_bytes("d/f") == BIG
    assert (await files.stat("d/f")).etag == info.etag
    with pytest.raises(ValueError, match="more than 10 bytes"):
        await files.read_bytes("d/f", limit=10)
    async with files.read("d/f", offset=5, length=10) as reader:
        assert reader.info.size == len(BIG)
        assert b"".join([piece async for piece in reader]) == BIG[5:15]


async def test_writing_bit_by_bit(files: Files, world: CutTrunk) -> None:
    async with files.write("f") as writer:
        for n in range(100):
            await writer.send(b"%d\n" % n)
        assert not (world.home / "f").exists()
    assert isinstance(writer.info, FileInfo)
    assert (world.home / "f").read_bytes() == b"".join(b"%d\n" % n for n in range(100))


async def test_leaving_the_block_by_an_exception_writes_nothing(
    files: Files, world: CutTrunk
) -> None:
    async def fail() -> None:
        async with files.write("f") as writer:
            await writer.send(BIG)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert os.listdir(world.home) == []


async def test_failures_say_why(files: Files) -> None:
    await files.write_bytes("f", b"1")
    for problem, operation in (
        (FileProblem.NOT_FOUND, files.stat("nothing")),
        (FileProblem.EXISTS, files.write_bytes("f", b"2", overwrite=False)),
        (FileProblem.CHANGED, files.write_bytes("f", b"2", if_match="other")),
        (FileProblem.MISMATCH, files.write_bytes("f", b"2", sha256="0" * 64)),
        (FileProblem.NOT_FOUND, files.write_bytes("x/f", BIG)),
        (FileProblem.EXISTS, files.make_directory("f")),
        (FileProblem.EXISTS, files.move("f", "f", overwrite=False)),
        (FileProblem.NOT_FOUND, files.remove("nothing")),
    ):
        with pytest.raises(FileFailed) as caught:
            await operation
        assert caught.value.problem is problem
        assert str(caught.value)
    assert await files.read_bytes("f") == b"1"


async def test_directories(files: Files, world: CutTrunk) -> None:
    assert (await files.make_directory("a/b", parents=True, mode=0o700)).is_directory
    await files.write_bytes("a/b/f", b"12")
    async with files.list("a", depth=2) as entries:
        found = {entry.path: entry async for entry in entries}
    assert set(found) == {"b", "b/f"}
    assert found["b/f"].size == 2
    assert (await files.move("a/b/f", "g")).path == "g"
    await files.remove("a", recursive=True)
    assert os.listdir(world.home) == ["g"]


async def test_a_list_of_many(files: Files, world: CutTrunk) -> None:
    for n in range(2000):
        (world.home / f"file-{n}").touch()
    async with files.list() as entries:
        assert len({entry.path async for entry in entries}) == 2000
    async with files.list() as entries:
        assert (await anext(entries)).type == "file"
    assert len(world.agent.streams("the-session")) <= 1


async def test_a_cut_shows_to_nobody(files: Files, world: CutTrunk) -> None:
    async with files.write("f") as writer:
        for n in range(10):
            await writer.send(BIG[n * 150_000 : (n + 1) * 150_000])
            await world.cut()
    async with files.read("f") as reader:
        pieces = []
        async for piece in reader:
            pieces.append(piece)
            if len(pieces) % 5 == 0:
                await world.cut()
    assert b"".join(pieces) == BIG
    assert world.links > 5


def test_answers_that_make_no_sense() -> None:
    with pytest.raises(FileFailed, match="not understood"):
        info_of({"path": 1})
