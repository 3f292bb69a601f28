"""Finding things beneath a root, which nothing leads out of.

Theory of operation
-------------------
A path is resolved once, from the descriptor of the root, to a descriptor of what it names, opened
with O_PATH: that neither reads nor writes, and has no side effects on devices and pipes.  From then
on the descriptor is used, never the path again, so it does not matter what becomes of the path.

The rules are those of chroot(2): absolute symbolic links begin at the root, ``..`` at the root stays
there.  The kernel enforces them, races included, where it has openat2(2) with RESOLVE_IN_ROOT.
Elsewhere (and where openat2 gives up, because something is being renamed all the time) the path is
walked here, one component at a time: each is opened with O_NOFOLLOW from the descriptor of the one
before it, a link is read through its own descriptor, and ``..`` goes back to the descriptor where
one came from rather than asking the file system for a parent.

What is opened for reading later is opened through ``/proc/self/fd``, which leads to the very file
that the descriptor stands for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from relay.file_problems import FileProblem
from runtimes.files.errors import FileError
from runtimes.files.kernel import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

MAX_LINKS = 40
"""Symbolic links on one path, as in the kernel."""
_ATTEMPTS = 8
"""How often openat2 is asked again when something was renamed meanwhile."""

Resolver = Callable[[int, str, bool], int]
"""Opens a path beneath the directory of a descriptor with O_PATH; the flag: follow a last link."""


class Place:
    """A name in a directory; there may or may not be something.  Owns the descriptor."""

    def __init__(self, directory: int, name: str) -> None:
        self.directory = directory
        self.name = name

    def stat(self) -> os.stat_result | None:
        """Return what is there, links not followed; None if nothing is."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Close the directory's descriptor.  Idempotent."""
        if self.directory >= 0:
            os.close(self.directory)
            self.directory = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Root:
    """A directory, and what is beneath it.  All methods block; any thread may call them.

    `directory` is a path of the server's own.  `resolver` None takes the best there is.

    Raises:
      OSError: `directory` cannot be opened.
    """

    def __init__(self, directory: str, *, resolver: Resolver | None = None) -> None:
        self._fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._resolver = resolver or best_resolver()

    def close(self) -> None:
        """Close the root's descriptor.  Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def resolve(self, path: str, *, follow: bool = True) -> int:
        """Return a descriptor (O_PATH) of what is at `path`; the caller closes it.

        Raises:
          OSError: there is nothing, or it may not be looked at.
        """
        return self._resolver(self._fd, path, follow)

    def parent(self, path: str) -> Place:
        """Return the place that `path` names; a link there is taken for itself.

        Raises:
          FileError: the path ends in ``..`` or names the root.
          OSError: the directory is not there.
        """
        components = split(path)
        if not components:
            raise FileError(FileProblem.FORBIDDEN, f"{path!r} is the root directory")
        if components[-1] == "..":
            raise FileError(FileProblem.INVALID, f"{path!r} ends in '..'; name it directly")
        directory = self.resolve("/".join(components[:-1]) or ".")
        if not stat.S_ISDIR(os.fstat(directory).st_mode):
            os.close(directory)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return Place(directory, components[-1])

    def target(self, path: str) -> Place:
        """Return the place that `path` leads to: where links end, if the last component is one.

        Raises:
          FileError, OSError: as `parent`.
        """
        for _ in range(MAX_LINKS):
            place = self.parent(path)
            try:
                link = os.readlink(place.name, dir_fd=place.directory)
            except OSError as error:
                if error.errno in {errno.EINVAL, errno.ENOENT}:  # no link; nothing at all
                    return place
                place.close()
                raise
            place.close()
            above = "/".join(split(path)[:-1])
            path = link if link.startswith("/") else f"{above}/{link}"
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def make_directories(self, path: str, mode: int = 0o777) -> None:
        """Make the directory `path` and those above it, as far as they are missing.

        Raises:
          FileError, OSError: one of them cannot be made.
        """
        missing: list[str] = []
        components = split(path)
        while True:
            try:
                os.close(self.resolve("/".join(components) or "."))
                break
            except FileNotFoundError:
                if not components:
                    raise
                missing.append("/".join(components))
                components.pop()
        for directory in reversed(missing):
            # Somebody else may be faster; the next step finds out what that is.
            with self.target(directory) as place, contextlib.suppress(FileExistsError):
                os.mkdir(place.name, mode, dir_fd=place.directory)


def split(path: str) -> list[str]:
    """Return the components of `path` that mean something."""
    return [component for component in path.split("/") if component not in {"", "."}]


def _ends_in_directory(path: str) -> bool:
    return path.endswith(("/", "/."))


def reopen(fd: int, flags: int) -> int:
    """Open what the O_PATH descriptor `fd` stands for; O_DIRECTORY where it is a directory."""
    if flags & os.O_DIRECTORY:
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=fd)
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)


def best_resolver() -> Resolver:
    """Return the kernel's resolver, or ours where it has none."""
    try:
        os.close(openat2(-100, "/", os.O_PATH, RESOLVE_IN_ROOT))  # AT_FDCWD
    except OSError:
        return walk
    return ask_kernel


def ask_kernel(root: int, path: str, follow: bool) -> int:
    """Resolve with openat2(2)."""
    flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
    for _ in range(_ATTEMPTS):
        try:
            return openat2(root, path or ".", flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except BlockingIOError:
            pass
    return walk(root, path, follow)


def walk(root: int, path: str, follow: bool) -> int:
    """Resolve one component at a time."""
    todo = deque(split(path))
    must_be_directory = _ends_in_directory(path)
    held = [os.dup(root)]  # the root, and each directory on the way
    links = 0
    try:
        while todo:
            name = todo.popleft()
            if name == "..":
                if len(held) > 1:
                    os.close(held.pop())
                continue
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held[-1])
            held.append(fd)
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode) and (todo or follow or must_be_directory):
                links += 1
                link = os.readlink("", dir_fd=fd)
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                keep = 1 if link.startswith("/") else len(held) - 1
                while len(held) > keep:
                    os.close(held.pop())
                must_be_directory = must_be_directory or (not todo and _ends_in_directory(link))
                todo.extendleft(reversed(split(link)))
            elif not stat.S_ISDIR(mode) and (todo or must_be_directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return held.pop()
    finally:
        for fd in held:
            os.close(fd)
