"""Removing files, and directories with everything in them.

A directory is emptied through descriptors, links are not followed, so what is being moved about
meanwhile cannot lead outside.  No more than `_HELD` directories are open at a time: what lies deeper
is moved up to the top first.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import stat
from collections.abc import Callable

from relay.endpoint import FileRequest
from relay.file_problems import FileProblem
from runtimes.files.beneath import Place, Root
from runtimes.files.entries import entry_of, matches
from runtimes.files.errors import FileError, explained
from runtimes.files.operations import Operation, Site, Told, telling

_HELD = 64
_AT_ONCE = 1024
"""Names taken from a directory at a time."""

Identity = tuple[int, int]
"""Device and inode."""


class Remove(Operation):
    """Removes a file, a link itself, an empty directory, or with `recursive` any directory."""

    def __init__(self, site: Site, request: FileRequest) -> None:
        self._site = site
        self._request = request
        self._abandoned = False

    def finish(self) -> Told:
        """See `Operation`."""
        path = self._request.path
        with explained(path), self._site.root.parent(self._site.absolute(path)) as place:
            status = place.stat()
            if status is None:
                raise FileNotFoundError(errno.ENOENT, "", path)
            if not matches(self._request.if_match, status):
                raise FileError(FileProblem.CHANGED, f"{path!r} has changed")
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(place.name, dir_fd=place.directory)
            elif (status.st_dev, status.st_ino) in _above(self._site.root, self._site.home):
                raise FileError(
                    FileProblem.FORBIDDEN, f"{path!r} is the session's home, or above it"
                )
            elif self._request.recursive:
                remove_tree(place, lambda: self._abandoned)
            else:
                os.rmdir(place.name, dir_fd=place.directory)
            return telling(entry_of(path, status))

    def interrupt(self) -> None:
        """See `Operation`: stop at the next entry."""
        self._abandoned = True


def _above(root: Root, home: str) -> set[Identity]:
    """Return the root, the home and what is between them."""
    found: set[Identity] = set()
    path = home
    while True:
        with contextlib.suppress(OSError):
            fd = root.resolve(path)
            status = os.fstat(fd)
            os.close(fd)
            found.add((status.st_dev, status.st_ino))
        if not path.strip("/"):
            return found
        path = path.rstrip("/").rpartition("/")[0] or "/"


def remove_tree(place: Place, stop: Callable[[], bool]) -> None:
    """Remove a directory and everything in it; at the first error, what is left stays.

    Raises:
      FileError: `stop` says so.
      OSError: something cannot be removed.
    """
    top = _open_directory(place.name, place.directory)
    try:
        _empty(top, stop)
    finally:
        os.close(top)
    os.rmdir(place.name, dir_fd=place.directory)


def _open_directory(name: str, parent: int) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=parent)


def _empty(top: int, stop: Callable[[], bool]) -> None:
    """Remove what is in a directory."""
    held = [(top, "")]
    todo = [_subjects(top)]
    try:
        while held:
            fd, name = held[-1]
            if stop():
                raise FileError(FileProblem.INTERRUPTED, "the removal was broken off")
            if not todo[-1]:
                todo[-1] = _subjects(fd)
            if not todo[-1]:
                held.pop()
                todo.pop()
                if held:
                    os.close(fd)
                    with contextlib.suppress(FileNotFoundError):
                        os.rmdir(name, dir_fd=held[-1][0])
                continue
            child = todo[-1].pop()
            if _is_directory(child, fd):
                if len(held) < _HELD:
                    inner = _open_directory(child, fd)
                    held.append((inner, child))
                    todo.append(_subjects(inner))
                else:
                    up = f".trunkline-{secrets.token_hex(8)}"
                    os.rename(child, up, src_dir_fd=fd, dst_dir_fd=top)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(child, dir_fd=fd)
    finally:
        for fd, _ in held[1:]:
            os.close(fd)


def _subjects(fd: int) -> list[str]:
    """Return some names in a directory; none if it is empty."""
    with os.scandir(fd) as entries:
        return [entry.name for entry in itertools.islice(entries, _AT_ONCE)]


def _is_directory(name: str, parent: int) -> bool:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode)
