"""Listing a directory, or the tree beneath it, as it is read: nothing is held but the way down."""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from relay.endpoint import FileRequest
from relay.file_problems import FileProblem
from runtimes.files.beneath import reopen
from runtimes.files.entries import Entry, entry_of, printable
from runtimes.files.errors import FileError, explained, of_os_error
from runtimes.files.operations import Operation, Site, Told, telling

_PIECE_BYTES = 64 * 1024
_PIECE_SECONDS = 0.1
"""A piece is handed on after so many bytes, or so much time."""

_encoder = msgspec.json.Encoder()


@dataclass(slots=True)
class _Level:
    """A directory on the way down; owns both."""

    fd: int
    prefix: str
    entries: Iterator[os.DirEntry[str]]

    def close(self) -> None:
        self.entries.close()  # type: ignore[attr-defined]  # os.scandir's own iterator
        os.close(self.fd)


class List(Operation):
    """Gives one line of JSON for each entry, a directory before what is in it."""

    def __init__(self, site: Site, request: FileRequest) -> None:
        self._site = site
        self._request = request
        self._levels: list[_Level] = []
        self._count = 0

    def begin(self) -> Told:
        """See `Operation`."""
        path = self._request.path
        with explained(path), contextlib.ExitStack() as stack:
            fd = self._site.root.resolve(self._site.absolute(path))
            stack.callback(os.close, fd)
            status = os.fstat(fd)
            if not stat.S_ISDIR(status.st_mode):
                raise FileError(FileProblem.NOT_A_DIRECTORY, f"{path!r} is not a directory")
            self._descend(reopen(fd, os.O_RDONLY | os.O_DIRECTORY), "")
        return telling(entry_of(path, status))

    def _descend(self, fd: int, prefix: str) -> None:
        try:
            self._levels.append(_Level(fd, prefix, os.scandir(fd)))
        except OSError:
            os.close(fd)
            raise

    def produce(self) -> bytes:
        """See `Operation`."""
        lines = bytearray()
        until = time.monotonic() + _PIECE_SECONDS
        with explained(self._request.path):
            while self._levels and len(lines) < _PIECE_BYTES:
                found = next(self._levels[-1].entries, None)
                if found is None:
                    self._levels.pop().close()
                    continue
                entry = self._entry(found)
                if entry is not None:
                    lines += _encoder.encode(entry) + b"\n"
                    self._count += 1
                if lines and time.monotonic() > until:
                    break
        return bytes(lines)

    def _entry(self, found: os.DirEntry[str]) -> Entry | None:
        """Return what is told of an entry; None if it is gone already.  Go down if it is deep."""
        level = self._levels[-1]
        try:
            status = found.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        name = printable(found.name)
        entry = entry_of(level.prefix + name, status)
        if name != found.name:
            entry.name_base64 = base64.b64encode(os.fsencode(found.name)).decode()
        if stat.S_ISLNK(status.st_mode):
            with contextlib.suppress(OSError):
                entry.target = printable(os.readlink(found.name, dir_fd=level.fd))
        elif stat.S_ISDIR(status.st_mode) and len(self._levels) < self._request.depth:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                self._descend(os.open(found.name, flags, dir_fd=level.fd), f"{entry.path}/")
            except OSError as error:
                entry.error = of_os_error(error, entry.path).problem
        return entry

    def finish(self) -> Told:
        """See `Operation`."""
        return {"entries": self._count}

    def abandon(self) -> None:
        """See `Operation`."""
        while self._levels:
            self._levels.pop().close()
