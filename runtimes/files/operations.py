"""Operations on files, and the simple ones among them.

An operation blocks and belongs to one endpoint, which calls its methods in worker threads, never two
at once: `begin`, then for what has content `produce` until it is empty or `consume` for what comes,
then `finish`; and at the end, whatever happened, `abandon`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from relay.endpoint import FileRequest
from relay.file_problems import FileProblem
from runtimes.files.beneath import Place, Root, reopen
from runtimes.files.entries import Entry, entry_of, matches
from runtimes.files.errors import FileError, explained
from runtimes.files.kernel import rename_noreplace

PIECE_BYTES = 512 * 1024
"""How much is read or written at a time."""
DIGEST_BYTES = 64 * 1024 * 1024
"""The largest file that `stat` computes a digest of."""

Told = Mapping[str, object]
"""What is told of an operation: one JSON object."""


def telling(entry: Entry) -> dict[str, object]:
    """Return an entry as part of what is told."""
    told: dict[str, object] = msgspec.to_builtins(entry)
    return told


@dataclass(frozen=True, slots=True)
class Site:
    """Where operations take place: the root, and the home, an absolute path beneath it."""

    root: Root
    home: str

    def absolute(self, path: str) -> str:
        """Return `path` as an absolute path beneath the root; relative ones begin at the home."""
        return path if path.startswith("/") else f"{self.home}/{path}"


class Operation(ABC):
    """One request; see the top of this file.  Every method raises `FileError` when it cannot."""

    takes_input = False
    """Whether `consume` is called with what the client sends."""

    def begin(self) -> Told | None:
        """Open what is needed; return what is to be told before any content."""
        return None

    def produce(self) -> bytes:
        """Return the next piece of content; ``b""`` at its end."""
        return b""

    def consume(self, data: bytes | bytearray) -> None:
        """Take a piece of content."""
        raise FileError(FileProblem.INVALID, "this operation takes no content")

    @abstractmethod
    def finish(self) -> Told | None:
        """Do what is left to do; return what is to be told at the end."""

    def interrupt(self) -> None:  # noqa: B027 - most are quick
        """Stop soon, by failing.  Called from another thread than the rest."""

    def abandon(self) -> None:  # noqa: B027 - most have nothing to free
        """Free everything; undo what was not finished.  Idempotent."""


class Stat(Operation):
    """Tells about a file or directory; links are followed."""

    def __init__(self, site: Site, request: FileRequest) -> None:
        self._site = site
        self._request = request

    def finish(self) -> Told:
        """See `Operation`."""
        path = self._request.path
        with explained(path), contextlib.ExitStack() as stack:
            fd = self._site.root.resolve(self._site.absolute(path))
            stack.callback(os.close, fd)
            status = os.fstat(fd)
            if not matches(self._request.if_match, status):
                raise FileError(FileProblem.CHANGED, f"{path!r} has changed")
            told = telling(entry_of(path, status))
            if self._request.digest and stat.S_ISREG(status.st_mode):
                told |= self._digest(fd, status)
            return told

    def _digest(self, fd: int, status: os.stat_result) -> dict[str, object]:
        """Compute the digest of a file that is not too large and does not change meanwhile."""
        if status.st_size > DIGEST_BYTES:
            return {}
        with open(reopen(fd, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            digest = hashlib.sha256()
            size = 0
            while (data := file.read(PIECE_BYTES)) and size <= DIGEST_BYTES:
                digest.update(data)
                size += len(data)
            if size != status.st_size or not matches(entry_of("", status).etag, os.fstat(fd)):
                return {}
        return {"sha256": digest.hexdigest()}


class MakeDirectory(Operation):
    """Makes a directory; with `parents`, one that is there already will do."""

    def __init__(self, site: Site, request: FileRequest) -> None:
        self._site = site
        self._request = request

    def finish(self) -> Told:
        """See `Operation`."""
        request = self._request
        path = self._site.absolute(request.path)
        root = self._site.root
        with explained(request.path), contextlib.ExitStack() as stack:
            if request.parents:
                root.make_directories(path)
            else:
                place = stack.enter_context(root.parent(path))
                os.mkdir(place.name, dir_fd=place.directory)
            fd = root.resolve(path)
            stack.callback(os.close, fd)
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise FileError(FileProblem.NOT_A_DIRECTORY, f"{request.path!r} is a file")
            if request.mode is not None or request.modified is not None:
                directory = reopen(fd, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, directory)
                set_metadata(directory, request.mode, request.modified)
            return telling(entry_of(request.path, os.fstat(fd)))


class Move(Operation):
    """Renames a file or directory; a link is moved itself."""

    def __init__(self, site: Site, request: FileRequest) -> None:
        self._site = site
        self._request = request

    def finish(self) -> Told:
        """See `Operation`."""
        request = self._request
        if request.target is None:
            raise FileError(FileProblem.INVALID, "a move needs a target")
        root = self._site.root
        with contextlib.ExitStack() as stack:
            with explained(request.path):
                source = stack.enter_context(root.parent(self._site.absolute(request.path)))
                status = source.stat()
                if status is None:
                    raise FileNotFoundError(errno.ENOENT, "", request.path)
                if not matches(request.if_match, status):
                    raise FileError(FileProblem.CHANGED, f"{request.path!r} has changed")
            with explained(request.target):
                target = stack.enter_context(root.parent(self._site.absolute(request.target)))
                if request.overwrite:
                    os.rename(
                        source.name,
                        target.name,
                        src_dir_fd=source.directory,
                        dst_dir_fd=target.directory,
                    )
                else:
                    _move_to_nothing(source, target, status)
                moved = target.stat() or status
                return telling(entry_of(request.target, moved))


def _move_to_nothing(source: Place, target: Place, status: os.stat_result) -> None:
    try:
        rename_noreplace(source.directory, source.name, target.directory, target.name)
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EINVAL}:
            raise
        move_without_flag(source, target, status)


def move_without_flag(source: Place, target: Place, status: os.stat_result) -> None:
    """Rename unless something is there, on a file system that cannot do so in one step.

    Each of the first steps fails where something is there.
    """
    directories = {"src_dir_fd": source.directory, "dst_dir_fd": target.directory}
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(target.name, dir_fd=target.directory)
        os.rename(source.name, target.name, **directories)  # noqa: PTH104 - a name in a directory
    else:
        os.link(source.name, target.name, follow_symlinks=False, **directories)
        os.unlink(source.name, dir_fd=source.directory)


def set_metadata(fd: int, mode: int | None, modified: int | None) -> None:
    """Set permission bits and time of modification (ns) of an open file or directory."""
    if mode is not None:
        os.fchmod(fd, mode)
    if modified is not None:
        os.utime(fd, ns=(time.time_ns(), modified))
