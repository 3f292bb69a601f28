"""Reading a file, or a range of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat

from relay.endpoint import FileRequest
from relay.file_problems import FileProblem
from runtimes.files.beneath import reopen
from runtimes.files.entries import entry_of, etag_of, matches
from runtimes.files.errors import FileError, explained
from runtimes.files.operations import PIECE_BYTES, Operation, Site, Told, telling


class Read(Operation):
    """Tells about the file, gives its content, then says that it was all of it.

    What is given is the range as the file was when it was opened: a file that grows meanwhile is
    cut there, one that shrinks is an error.  Files whose size the system does not know (those of
    ``/proc`` say 0) are read to their end.
    """

    def __init__(self, site: Site, request: FileRequest) -> None:
        self._site = site
        self._request = request
        self._fd = -1
        self._position = request.offset
        self._end: int | None = 0
        self._first = b""
        self._size_known = True
        self._sent = 0
        self._digest = hashlib.sha256() if request.digest else None

    def begin(self) -> Told:
        """See `Operation`."""
        request = self._request
        path = request.path
        with explained(path), contextlib.ExitStack() as stack:
            fd = self._site.root.resolve(self._site.absolute(path))
            stack.callback(os.close, fd)
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                raise FileError(FileProblem.IS_A_DIRECTORY, f"{path!r} is a directory")
            if not stat.S_ISREG(status.st_mode):
                raise FileError(FileProblem.INVALID, f"{path!r} is no regular file")
            if not matches(request.if_match, status):
                raise FileError(FileProblem.CHANGED, f"{path!r} has changed")
            self._fd = reopen(fd, os.O_RDONLY | os.O_NONBLOCK)
            size = self._size(status)
        entry = entry_of(path, status)
        entry.size = size
        return telling(entry)

    def _size(self, status: os.stat_result) -> int | None:
        """Return the size; find out where the range ends."""
        request = self._request
        size: int | None = status.st_size
        if not size:
            self._first = os.pread(self._fd, PIECE_BYTES, request.offset)
            size = None if self._first else 0
        self._size_known = size is not None
        if size is not None and request.offset > size:
            raise FileError(
                FileProblem.RANGE, f"{request.path!r} has {size} bytes, none at {request.offset}"
            )
        wanted = None if request.length is None else request.offset + request.length
        if size is None or wanted is None:
            self._end = size if wanted is None else wanted
        else:
            self._end = min(size, wanted)
        return size

    def produce(self) -> bytes:
        """See `Operation`."""
        room = PIECE_BYTES if self._end is None else min(PIECE_BYTES, self._end - self._position)
        if room <= 0:
            return b""
        with explained(self._request.path):
            data = self._first[:room] or os.pread(self._fd, room, self._position)
            self._first = b""
        if not data and self._size_known:
            raise FileError(
                FileProblem.CHANGED, f"{self._request.path!r} has shrunk while it was read"
            )
        self._position += len(data)
        self._sent += len(data)
        if self._digest is not None:
            self._digest.update(data)
        return data

    def finish(self) -> Told:
        """See `Operation`."""
        with explained(self._request.path):
            told: dict[str, object] = {"sent": self._sent, "etag": etag_of(os.fstat(self._fd))}
        if self._digest is not None:
            told["sha256"] = self._digest.hexdigest()
        return told

    def abandon(self) -> None:
        """See `Operation`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
