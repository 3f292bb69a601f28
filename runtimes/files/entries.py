"""What is told about a file."""

from __future__ import annotations

import os
import stat
from enum import StrEnum

import msgspec


class FileType(StrEnum):
    """What something is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"
    """A device, a pipe, a socket."""


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A file or directory.

    `path` is as it was asked for, in a list relative to the directory.  `size` is in bytes (None:
    the system does not know, as in ``/proc``), `modified` in nanoseconds since the epoch, `mode`
    has the permission bits.  `target` is where a symbolic link points.  `name_base64` has the name
    where it is not UTF-8; `path` then has substitutes in it.  `error`: it cannot be looked into.
    """

    path: str
    type: FileType
    size: int | None
    mode: int
    modified: int
    etag: str
    target: str | None = None
    name_base64: str | None = None
    error: str | None = None


def type_of(mode: int) -> FileType:
    """Return what an ``st_mode`` stands for."""
    if stat.S_ISREG(mode):
        return FileType.FILE
    if stat.S_ISDIR(mode):
        return FileType.DIRECTORY
    if stat.S_ISLNK(mode):
        return FileType.SYMLINK
    return FileType.OTHER


def etag_of(status: os.stat_result) -> str:
    """Return what names this very content: it is another one after any change.

    A write within the clock tick of the one before (some milliseconds, on older kernels) that
    leaves the size alone is not told apart.
    """
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"


def matches(if_match: str | None, status: os.stat_result | None) -> bool:
    """Tell whether a file fulfils ``if_match``: one of some etags, or ``*`` for any that exists."""
    if if_match is None:
        return True
    if status is None:
        return False
    wanted = [etag.strip() for etag in if_match.split(",")]
    return "*" in wanted or etag_of(status) in wanted


def entry_of(path: str, status: os.stat_result) -> Entry:
    """Return what is told about a file with this status."""
    return Entry(
        path=printable(path),
        type=type_of(status.st_mode),
        size=status.st_size,
        mode=stat.S_IMODE(status.st_mode),
        modified=status.st_mtime_ns,
        etag=etag_of(status),
    )


def printable(name: str) -> str:
    """Return `name` as UTF-8 can carry it."""
    return os.fsencode(name).decode("utf-8", "replace")
