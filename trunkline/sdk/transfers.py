"""Copies of whole files that survive more than a connection does.

Theory of operation
-------------------
A cut of a few seconds shows to nobody: the stream goes on.  When it lasted too long the server has
given the stream up, and what is left is asked for again.

*Up*: the content goes to a named upload, which the session keeps; after a loss it tells how much it
has.  All but the last bytes go first, and then those together with the SHA-256 of the whole, so the
server checks it before the file appears although nobody knew it at the beginning.

*Down*: the file is read in segments, each of which is checked by its SHA-256; after a loss the
current segment is read again.  All segments are of one version of the file: if it changes, the copy
starts over.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

from relay.client import Trunk
from relay.endpoint import FileOperation
from relay.errors import AttachRefused, InputUncertain, RelayError
from relay.file_problems import FileProblem
from relay.file_stream import FileFailed, Told, open_file_stream
from relay.protocol.messages import FileStart
from relay.protocol.reasons import Refusal

PIECE_BYTES = 512 * 1024
"""What is read from or written to the local disk at a time."""
LAST_BYTES = 256 * 1024
"""What goes together with the checksum of the whole; smaller files go at once."""
SEGMENT_BYTES = 64 * 1024 * 1024
"""What is checked at a time on the way down."""
ATTEMPTS = 8
"""How often something is tried without getting any further."""
FAREWELL = 1.0
"""Seconds for telling the server that an upload is given up."""


def is_passing(error: Exception) -> bool:
    """Tell whether an operation that failed like this can go on in another stream."""
    match error:
        case AttachRefused(code=code):
            return code is Refusal.GONE
        case FileFailed(problem=problem):
            return problem is FileProblem.INTERRUPTED
        case _:
            return isinstance(error, InputUncertain)


class _Patience:
    """Counts attempts that brought nothing."""

    def __init__(self) -> None:
        self._left = ATTEMPTS
        self._best = -1

    def bear(self, error: Exception, position: int) -> None:
        """Raise `error` if it has come too often at the same `position`."""
        if position > self._best:
            self._best = position
            self._left = ATTEMPTS
        self._left -= 1
        if self._left <= 0:
            raise error


class Upload:
    """One file on its way up.  `start` says where to."""

    def __init__(
        self, trunk: Trunk, source: Path, start: FileStart, progress: Callable[[int], None] | None
    ) -> None:
        self._trunk = trunk
        self._source = source
        self._start = msgspec.structs.replace(start, upload=secrets.token_urlsafe(18))
        self._progress = progress or (lambda _: None)
        self._digest = hashlib.sha256()
        self._hashed = 0
        self._fd = -1
        self._size = 0

    async def run(self) -> Told:
        """Copy it; return what is told of the file."""
        self._fd = await trio.to_thread.run_sync(_open_source, self._source)
        complete = False
        try:
            status = os.fstat(self._fd)
            self._size = status.st_size
            mode = stat.S_IMODE(status.st_mode) if self._start.mode is None else self._start.mode
            modified = self._start.modified
            self._start = msgspec.structs.replace(
                self._start,
                size=self._size,
                mode=mode,
                modified=max(status.st_mtime_ns, 0) if modified is None else modified,
            )
            told = await self._repeat()
            complete = True
            return told
        finally:
            os.close(self._fd)
            if not complete:
                await self._give_up()

    async def _repeat(self) -> Told:
        offset = 0
        patience = _Patience()
        while True:
            try:
                if offset < 0:
                    told = await self._ask()
                    if told["complete"]:
                        return told
                    offset = told["offset"]
                return await self._send(offset)
            except FileFailed as error:
                if error.problem is FileProblem.RANGE and error.offset is not None:
                    offset = error.offset
                elif error.problem is FileProblem.NOT_FOUND and offset < 0:
                    offset = 0
                elif is_passing(error):
                    offset = -1
                else:
                    raise
                patience.bear(error, self._hashed)
            except (AttachRefused, InputUncertain) as error:
                if not is_passing(error):
                    raise
                patience.bear(error, self._hashed)
                offset = -1

    async def _send(self, offset: int) -> Told:
        """Send what is missing from `offset` on."""
        self._progress(offset)
        last = max(self._size - LAST_BYTES, 0)
        if offset < last:
            await self._write(msgspec.structs.replace(self._start, offset=offset), offset, last)
            offset = last
        rest = await self._read(offset, self._size - offset)
        final = msgspec.structs.replace(self._start, offset=offset, sha256=self._digest.hexdigest())
        async with open_file_stream(self._trunk, final) as stream:
            await stream.send(rest)
            told = await stream.finish()
        self._progress(self._size)
        return told

    async def _write(self, start: FileStart, offset: int, end: int) -> None:
        async with open_file_stream(self._trunk, start) as stream:
            while offset < end:
                data = await self._read(offset, min(PIECE_BYTES, end - offset))
                await stream.send(data)
                offset += len(data)
                self._progress(offset)
            told = await stream.finish()
        if told["offset"] != end:
            raise FileFailed(FileProblem.RANGE, "bytes were lost on the way", told["offset"])

    async def _read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes of the local file, and see that each is hashed once, in order."""
        data = await trio.to_thread.run_sync(self._read_and_hash, offset, size)
        if len(data) != size:
            raise FileFailed(FileProblem.CHANGED, f"{self._source} has shrunk while it was read")
        return data

    def _read_and_hash(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if offset <= self._hashed < offset + len(data):
            with memoryview(data) as view:
                self._digest.update(view[self._hashed - offset :])
            self._hashed = offset + len(data)
        return data

    async def _ask(self) -> Told:
        """Ask how far the upload is."""
        return await _perform(
            self._trunk,
            FileStart(operation=FileOperation.STAT, path=".", upload=self._start.upload),
        )

    async def _give_up(self) -> None:
        start = FileStart(operation=FileOperation.REMOVE, path=".", upload=self._start.upload)
        with trio.move_on_after(FAREWELL, shield=True), suppress(RelayError):
            await _perform(self._trunk, start)


async def _perform(trunk: Trunk, start: FileStart) -> Told:
    async with open_file_stream(trunk, start) as stream:
        return await stream.result()


def _open_source(source: Path) -> int:
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(source))
    return fd


class Download:
    """One file on its way down."""

    def __init__(
        self,
        trunk: Trunk,
        path: str,
        target: Path,
        progress: Callable[[int], None] | None,
        *,
        overwrite: bool,
    ) -> None:
        self._trunk = trunk
        self._path = path
        self._target = target
        self._overwrite = overwrite
        self._progress = progress or (lambda _: None)
        self._fd = -1
        self._info: Told | None = None

    async def run(self) -> Told:
        """Copy it; return what is told of the file."""
        # The copy is made next to where it shall be, so that it can be put there in one step.
        partial = self._target.with_name(f".{self._target.name[:64]}.{secrets.token_hex(6)}.part")
        self._fd = await trio.to_thread.run_sync(self._open, partial)
        try:
            told = await self._repeat()
            await trio.to_thread.run_sync(self._publish, partial, told)
            return told
        finally:
            os.close(self._fd)
            partial.unlink(missing_ok=True)

    async def _repeat(self) -> Told:
        position = 0
        patience = _Patience()
        while True:
            try:
                end = await self._read_segment(position)
            except FileFailed as error:
                if error.problem is FileProblem.CHANGED:
                    position, self._info = 0, None
                elif not is_passing(error):
                    raise
                patience.bear(error, position)
            except (AttachRefused, InputUncertain) as error:
                if not is_passing(error):
                    raise
                patience.bear(error, position)
            else:
                if end - position < SEGMENT_BYTES:
                    await trio.to_thread.run_sync(os.ftruncate, self._fd, end)
                    return self._info or {}
                position = end

    async def _read_segment(self, position: int) -> int:
        """Copy the next segment; return where it ends."""
        self._progress(position)
        start = FileStart(
            operation=FileOperation.READ,
            path=self._path,
            offset=position,
            length=SEGMENT_BYTES,
            if_match=self._info["etag"] if self._info else None,
            digest=True,
        )
        digest = hashlib.sha256()
        gathered = bytearray()
        async with open_file_stream(self._trunk, start) as stream:
            self._info = await stream.head()
            while piece := await stream.receive():
                gathered += piece
                if len(gathered) >= PIECE_BYTES:
                    position = await self._write(gathered, position, digest.update)
                    gathered = bytearray()
            position = await self._write(gathered, position, digest.update)
            told = await stream.result()
        if told.get("sha256") != digest.hexdigest():
            raise FileFailed(FileProblem.MISMATCH, f"{self._path!r} was damaged on its way")
        if told["etag"] != self._info["etag"]:
            raise FileFailed(FileProblem.CHANGED, f"{self._path!r} changed while it was read")
        return position

    async def _write(
        self, data: bytearray, position: int, hash_it: Callable[[bytearray], None]
    ) -> int:
        def write() -> None:
            hash_it(data)
            done = 0
            with memoryview(data) as view:
                while done < len(view):
                    done += os.pwrite(self._fd, view[done:], position + done)

        await trio.to_thread.run_sync(write)
        self._progress(position + len(data))
        return position + len(data)

    def _open(self, partial: Path) -> int:
        if not self._overwrite and os.path.lexists(self._target):
            raise FileExistsError(errno.EEXIST, "exists already", str(self._target))
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(partial, flags, 0o600)

    def _publish(self, partial: Path, told: Told) -> None:
        # What a stranger's file may have set is not for this machine: no set-user-id.
        os.fchmod(self._fd, told["mode"] & 0o777)
        os.utime(self._fd, ns=(told["modified"], told["modified"]))
        os.fsync(self._fd)
        if self._overwrite:
            partial.replace(self._target)
        else:
            os.link(partial, self._target)
