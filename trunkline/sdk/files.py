"""Files of a session.

    async with session.files() as files:
        await files.upload("model.bin", "models/model.bin", parents=True)
        async with files.read("log.txt") as content:
            async for piece in content:
                ...

Paths are relative to the session's home, or absolute in the sandbox.  A connection that is cut makes
itself again, and every operation goes on where it was.  What is read and written is checked by its
SHA-256 at the other end; a file that is written appears when all of it is there and right.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from relay.carrier import Buffer
from relay.client import Trunk
from relay.endpoint import FileOperation
from relay.file_problems import FileProblem
from relay.file_stream import FileFailed, FileStream, Told, open_file_stream
from relay.protocol.messages import FileStart
from trunkline.sdk.transfers import Download, Upload

MAX_DEPTH = 64
"""Levels of directories that one listing shows."""

Progress = Callable[[int], None]
"""Told how many bytes are there by now; may go back."""


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A file or directory.

    `type` is ``file``, ``directory``, ``symlink`` or ``other``.  `size` is in bytes (None: the system
    does not know), `mode` has the permission bits, `modified` is in nanoseconds since the epoch.
    `target` is where a symbolic link points.  `name_base64` is there if the name is not UTF-8: `path`
    is not exact then.  `error` tells why a directory could not be looked into.
    """

    path: str
    type: str
    size: int | None
    mode: int
    modified: int
    etag: str
    target: str | None = None
    name_base64: str | None = None
    error: str | None = None
    sha256: str | None = None

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.type == "directory"


class FileReader:
    """The content of a file; iterate over it once."""

    def __init__(self, stream: FileStream, info: FileInfo) -> None:
        self.info = info
        self._stream = stream
        self._digest = hashlib.sha256()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if piece := await self._stream.receive():
            self._digest.update(piece)
            return piece
        told = await self._stream.result()
        if told.get("sha256") != self._digest.hexdigest():
            raise FileFailed(FileProblem.MISMATCH, f"{self.info.path!r} was damaged on its way")
        raise StopAsyncIteration


class Listing:
    """The entries of a directory; iterate over it once."""

    def __init__(self, stream: FileStream) -> None:
        self._stream = stream
        self._lines: deque[bytes] = deque()
        self._rest = b""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FileInfo:
        while not self._lines:
            piece = await self._stream.receive()
            if not piece:
                await self._stream.result()
                raise StopAsyncIteration
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self._lines.extend(lines)
        return info_of(msgspec.json.decode(self._lines.popleft()))


class FileWriter:
    """A file that is being written; `info` is there when the block was left in order."""

    def __init__(self, stream: FileStream) -> None:
        self.info: FileInfo | None = None
        self._stream = stream
        self._digest = hashlib.sha256()

    async def send(self, data: Buffer) -> None:
        """Add to the file; waits while too much is under way.

        Raises:
          FileFailed: it cannot be written.
        """
        self._digest.update(data)
        await self._stream.send(data)

    async def finish(self) -> FileInfo:
        """Let the file appear (leaving the block does that).

        Raises:
          FileFailed: it cannot.
        """
        told = await self._stream.finish()
        if told.get("sha256") != self._digest.hexdigest():
            raise FileFailed(FileProblem.MISMATCH, "the file was damaged on its way")
        self.info = info_of(told)
        return self.info


def info_of(told: Told) -> FileInfo:
    """Return what is told of a file.

    Raises:
      FileFailed: it is not understood.
    """
    try:
        return msgspec.convert(told, FileInfo)
    except msgspec.ValidationError as error:
        message = f"what the server tells of a file is not understood: {error}"
        raise FileFailed(FileProblem.FAILED, message) from error


class Files:
    """The files of one session.  Made by `trunkline.sdk.client.Session.files`.

    Every method raises:
      FileFailed: it was not done, and why.
      AttachRefused, AttachmentClosed: the session or the connection is over.
    """

    def __init__(self, trunk: Trunk) -> None:
        self._trunk = trunk

    async def stat(self, path: str) -> FileInfo:
        """Tell about a file or directory; links are followed."""
        return info_of(await self._perform(FileOperation.STAT, path))

    @asynccontextmanager
    async def list(self, path: str = ".", depth: int = 1) -> AsyncIterator[Listing]:
        """Give what is in a directory, `depth` levels (1..64) deep, a directory before its content.

        The paths are relative to the directory.
        """
        start = FileStart(operation=FileOperation.LIST, path=path, depth=depth)
        async with open_file_stream(self._trunk, start) as stream:
            await stream.head()
            yield Listing(stream)

    @asynccontextmanager
    async def read(
        self, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[FileReader]:
        """Read a file, or a range of it."""
        start = FileStart(
            operation=FileOperation.READ, path=path, offset=offset, length=length, digest=True
        )
        async with open_file_stream(self._trunk, start) as stream:
            yield FileReader(stream, info_of(await stream.head()))

    async def read_bytes(self, path: str, *, limit: int = 16 * 1024 * 1024) -> bytes:
        """Return the content of a file of at most `limit` bytes.

        Raises:
          ValueError: it has more.
        """
        content = bytearray()
        async with self.read(path) as reader:
            async for piece in reader:
                content += piece
                if len(content) > limit:
                    raise ValueError(f"{path!r} has more than {limit} bytes")
        return bytes(content)

    @asynccontextmanager
    async def write(
        self,
        path: str,
        *,
        size: int | None = None,
        sha256: str | None = None,
        mode: int | None = None,
        modified: int | None = None,
        parents: bool = False,
        overwrite: bool = True,
        if_match: str | None = None,
    ) -> AsyncIterator[FileWriter]:
        """Write a file: it appears when the block is left, unless by an exception.

        `size` and `sha256` (hexadecimal) are checked before it does.  `parents` makes missing
        directories.  `if_match` is an etag: only that very file is replaced.
        """
        start = FileStart(
            operation=FileOperation.WRITE,
            path=path,
            size=size,
            sha256=sha256,
            mode=mode,
            modified=modified,
            parents=parents,
            overwrite=overwrite,
            if_match=if_match,
        )
        async with open_file_stream(self._trunk, start) as stream:
            writer = FileWriter(stream)
            yield writer
            if writer.info is None:
                await writer.finish()

    async def write_bytes(self, path: str, data: bytes, **options: Any) -> FileInfo:
        """Write a file; `options` are those of `write`."""
        options.setdefault("sha256", hashlib.sha256(data).hexdigest())
        async with self.write(path, size=len(data), **options) as writer:
            await writer.send(data)
            return await writer.finish()

    async def make_directory(
        self,
        path: str,
        *,
        parents: bool = False,
        mode: int | None = None,
        modified: int | None = None,
    ) -> FileInfo:
        """Make a directory; with `parents`, those above it too, and one that is there will do."""
        return info_of(
            await self._perform(
                FileOperation.MAKE_DIRECTORY, path, parents=parents, mode=mode, modified=modified
            )
        )

    async def move(self, path: str, target: str, *, overwrite: bool = True) -> FileInfo:
        """Move a file or directory to the path `target`, in one step."""
        return info_of(
            await self._perform(FileOperation.MOVE, path, target=target, overwrite=overwrite)
        )

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or an empty directory; `recursive`: with everything in it."""
        await self._perform(FileOperation.REMOVE, path, recursive=recursive)

    async def upload(
        self,
        source: str | Path,
        path: str,
        *,
        mode: int | None = None,
        modified: int | None = None,
        parents: bool = False,
        overwrite: bool = True,
        progress: Progress | None = None,
    ) -> FileInfo:
        """Copy the local file `source` to `path`.  Mode and time are kept unless given.

        It goes on after any cut, as long as the session lives.

        Raises:
          OSError: the local file cannot be read.
          FileFailed: besides the usual reasons, the local file changed meanwhile.

        Cancellation: nothing appears.
        """
        start = FileStart(
            operation=FileOperation.WRITE,
            path=path,
            mode=mode,
            modified=modified,
            parents=parents,
            overwrite=overwrite,
        )
        return info_of(await Upload(self._trunk, Path(source), start, progress).run())

    async def download(
        self,
        path: str,
        target: str | Path,
        *,
        overwrite: bool = True,
        progress: Progress | None = None,
    ) -> FileInfo:
        """Copy the file at `path` to the local path `target`, with its mode and time.

        The local file appears, or is replaced, when all of it is there.  It goes on after any cut,
        as long as the session lives.

        Raises:
          OSError: the local file cannot be written; FileExistsError: it may not be replaced.
          FileFailed: besides the usual reasons, the file keeps changing.

        Cancellation: nothing appears.
        """
        download = Download(self._trunk, path, Path(target), progress, overwrite=overwrite)
        return info_of(await download.run())

    async def _perform(self, operation: FileOperation, path: str, **options: Any) -> Told:
        start = FileStart(operation=operation, path=path, **options)
        async with open_file_stream(self._trunk, start) as stream:
            return await stream.result()
