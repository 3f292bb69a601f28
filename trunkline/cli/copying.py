"""Copying files and trees between this machine and a session.

A tree travels as single files.  What the session says about names is not believed: a name that would
lead out of the target is not copied.  Nothing here makes a link, so nothing is written through one
that came from the session.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from relay.file_problems import FileProblem
from relay.file_stream import FileFailed
from trunkline.cli.progress import Meter
from trunkline.cli.terminal import Descriptor
from trunkline.sdk.errors import TrunklineError
from trunkline.sdk.files import MAX_DEPTH, FileInfo, Files

WORKERS = 4
"""Files under way at the same time: most are small, and would wait for the round trip."""


class CopyFailed(TrunklineError):
    """A copy cannot be made, for a reason on this side; the message is for the user."""


@dataclass(slots=True)
class Report:
    """What became of a copy; `skipped` tells what was not copied, and why."""

    files: int = 0
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Something in a local directory; `relative` is its path below the top, with ``/``."""

    path: Path
    relative: str
    status: os.stat_result


_Job = Callable[[], Awaitable[None]]


class Copier:
    """Copies over one connection."""

    def __init__(self, files: Files, meter: Meter, *, recursive: bool, overwrite: bool) -> None:
        self._files = files
        self._meter = meter
        self._recursive = recursive
        self._overwrite = overwrite
        self.report = Report()

    # ---------------------------------------------------------------- streams

    async def to_standard_output(self, path: str) -> None:
        """Write a file to standard output.

        Raises:
          FileFailed: at the end, too: what was written is not all, or not right.
        """
        stdout = Descriptor(1)
        async with self._files.read(path) as content:
            async for piece in content:
                await stdout.write_all(piece)

    async def from_standard_input(self, path: str) -> None:
        """Write what comes from standard input to a file."""
        stdin = Descriptor(0)
        async with self._files.write(path, overwrite=self._overwrite) as writer:
            while data := await stdin.read():
                await writer.send(data)
                self._meter.expect(len(data))
                self._meter.advance(len(data))

    # ---------------------------------------------------------------- out of the session

    async def down(self, path: str, target: Path, spelled: str) -> None:
        """Copy a file or directory to `target`, or into it if it is a directory.

        `spelled` is the target as the user wrote it: with a slash at its end it is a directory.
        """
        info = await self._files.stat(path)
        if await trio.Path(target).is_dir():
            target = target / _last_name(path)
        elif spelled.endswith("/") and not info.is_directory:
            raise CopyFailed(f"{spelled} is not a directory")
        if not info.is_directory:
            await self._file_down(path, target, info)
            return
        if not self._recursive:
            raise CopyFailed(f"{path} is a directory; add -r to copy it with all that is in it")
        await self._tree_down(path, target, info)

    async def _tree_down(self, path: str, target: Path, top: FileInfo) -> None:
        directories = [(target, top)]
        with _local(target):
            await trio.Path(target).mkdir(exist_ok=True)
        async with _open_workers() as work:
            await self._level_down(path, target, work, directories)
        # Last, because what is put into a directory changes its time, and it may be read-only.
        for directory, info in reversed(directories):
            with _local(directory):
                await trio.to_thread.run_sync(_set_metadata, directory, info)

    async def _level_down(
        self,
        path: str,
        target: Path,
        work: trio.MemorySendChannel[_Job],
        directories: list[tuple[Path, FileInfo]],
    ) -> None:
        deeper: list[str] = []
        async with self._files.list(path, MAX_DEPTH) as entries:
            async for info in entries:
                problem = why_not(info)
                if problem is not None:
                    self._skip(f"{path}/{info.path}", problem)
                    continue
                local = target.joinpath(*info.path.split("/"))
                if info.is_directory:
                    with _local(local):
                        await trio.Path(local).mkdir(exist_ok=True)
                    directories.append((local, info))
                    if info.path.count("/") == MAX_DEPTH - 1:
                        deeper.append(info.path)
                else:
                    await work.send(partial(self._file_down, f"{path}/{info.path}", local, info))
        for below in deeper:
            await self._level_down(
                f"{path}/{below}", target.joinpath(*below.split("/")), work, directories
            )

    async def _file_down(self, path: str, target: Path, info: FileInfo) -> None:
        count = _Count(self._meter, path, info.size or 0)
        with _local(target):
            try:
                await self._files.download(
                    path, target, overwrite=self._overwrite, progress=count.reached
                )
            except FileFailed as error:
                if error.problem is not FileProblem.NOT_FOUND or not self._recursive:
                    raise
                self._skip(path, "it is gone")
                return
        self.report.files += 1

    # ---------------------------------------------------------------- into the session

    async def up(self, source: Path, path: str) -> None:
        """Copy a local file or directory to `path`, or into it if it is a directory."""
        with _local(source):
            status = await trio.Path(source).stat()
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory and not self._recursive:
            raise CopyFailed(f"{source} is a directory; add -r to copy it with all that is in it")
        if await self._is_directory(path):
            absolute = await trio.Path(source).absolute()
            path = f"{path.rstrip('/')}/{_last_name(str(absolute))}"
        elif path.endswith("/") and not is_directory:
            raise CopyFailed(f"{path} is not a directory")
        if is_directory:
            await self._tree_up(source, path.rstrip("/"), status)
        else:
            await self._file_up(source, path, status.st_size)

    async def _is_directory(self, path: str) -> bool:
        try:
            return (await self._files.stat(path)).is_directory
        except FileFailed as error:
            if error.problem is FileProblem.NOT_FOUND:
                return False
            raise

    async def _tree_up(self, source: Path, path: str, top: os.stat_result) -> None:
        directories = [(path, top)]
        await self._files.make_directory(path, parents=True)
        async with _open_workers() as work:
            todo = [_Entry(source, "", top)]
            while todo:
                directory = todo.pop()
                with _local(directory.path):
                    found = await trio.to_thread.run_sync(_entries, directory)
                for entry in found:
                    mode = entry.status.st_mode
                    there = f"{path}/{entry.relative}"
                    if stat.S_ISDIR(mode):
                        await self._files.make_directory(there, parents=True)
                        directories.append((there, entry.status))
                        todo.append(entry)
                    elif stat.S_ISREG(mode):
                        job = partial(self._file_up, entry.path, there, entry.status.st_size)
                        await work.send(job)
                    else:
                        self._skip(str(entry.path), _kind(mode))
        for directory_path, status in reversed(directories):
            await self._files.make_directory(
                directory_path,
                parents=True,
                mode=stat.S_IMODE(status.st_mode),
                modified=max(status.st_mtime_ns, 0),
            )

    async def _file_up(self, source: Path, path: str, size: int) -> None:
        count = _Count(self._meter, str(source), size)
        with _local(source):
            await self._files.upload(
                source, path, overwrite=self._overwrite, progress=count.reached
            )
        self.report.files += 1

    def _skip(self, path: str, why: str) -> None:
        shown = "".join(c if c.isprintable() else "?" for c in path)
        self.report.skipped.append(f"{shown}: {why}")


class _Count:
    """Turns the position in one file into what the meter wants to know."""

    def __init__(self, meter: Meter, name: str, size: int) -> None:
        self._meter = meter
        self._position = 0
        meter.expect(size)
        meter.name(name)

    def reached(self, position: int) -> None:
        self._meter.advance(position - self._position)
        self._position = position


def why_not(info: FileInfo) -> str | None:
    """Say why something in a listing is not copied; None if it is."""
    if info.name_base64 is not None:
        return "its name is not UTF-8"
    if any(part in {"", ".", ".."} or "\0" in part for part in info.path.split("/")):
        return "its name leads elsewhere"
    if info.type not in {"file", "directory"}:
        return "it is a link" if info.type == "symlink" else "it is neither file nor directory"
    if info.error is not None:
        return f"it cannot be looked into ({info.error})"
    return None


def _kind(mode: int) -> str:
    return "it is a link" if stat.S_ISLNK(mode) else "it is neither file nor directory"


def _last_name(path: str) -> str:
    """Return the last component of `path`, which names what is copied."""
    name = path.rstrip("/").rpartition("/")[2]
    return "" if name in {".", ".."} else name


def _entries(directory: _Entry) -> list[_Entry]:
    prefix = f"{directory.relative}/" if directory.relative else ""
    with os.scandir(directory.path) as found:
        return [
            _Entry(Path(entry.path), prefix + entry.name, entry.stat(follow_symlinks=False))
            for entry in found
        ]


def _set_metadata(directory: Path, info: FileInfo) -> None:
    os.utime(directory, ns=(info.modified, info.modified))
    directory.chmod(info.mode & 0o777)


@contextmanager
def _local(path: Path) -> Iterator[None]:
    """Turn errors of this machine into `CopyFailed`."""
    try:
        yield
    except OSError as error:
        raise CopyFailed(f"{error.filename or path}: {error.strerror}") from error


@asynccontextmanager
async def _open_workers() -> AsyncIterator[trio.MemorySendChannel[_Job]]:
    """Have a few tasks do what is sent; leaving the block waits for all of it."""
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[_Job](0)
        async with receive:
            for _ in range(WORKERS):
                nursery.start_soon(_work, receive.clone())
        async with send:
            yield send


async def _work(jobs: trio.MemoryReceiveChannel[_Job]) -> None:
    async with jobs:
        async for job in jobs:
            await job()
