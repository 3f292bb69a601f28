"""Content on its way to becoming a file.

A draft lies beside its target, on the same file system.  It has no name there where the file system
knows such files (O_TMPFILE), so that nothing is left of it when the server dies; elsewhere it has a
hidden one.  When all is there it is given its name: linked, where nothing may be replaced, otherwise
linked under a hidden name and renamed over the target, which the kernel does in one step.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import threading
from dataclasses import dataclass
from functools import singledispatch

from relay.file_problems import FileProblem
from runtimes.files.beneath import Place, reopen
from runtimes.files.entries import matches
from runtimes.files.errors import FileError, explained
from runtimes.files.operations import set_metadata

HIDDEN = ".trunkline-"
"""What hidden names begin with."""

_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})
"""How file systems and kernels say that they have no unnamed files."""

_naming = threading.Lock()
"""Held while it is looked what is at a name and the draft put there, so that of two uploads which
both expect the same file (`if_match`) one finds it changed."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a draft becomes a file; `path` is what messages call it.

    `mode` None: as the file it replaces, or as new files are.  `modified` in ns; None: now.
    """

    path: str
    mode: int | None = None
    modified: int | None = None
    overwrite: bool = True
    if_match: str | None = None

    def check(self, status: os.stat_result | None) -> None:
        """Find out whether what is there (None: nothing) may be replaced.

        Raises:
          FileError: no.
        """
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise FileError(FileProblem.IS_A_DIRECTORY, f"{self.path!r} is a directory")
        if status is not None and not self.overwrite:
            raise FileError(FileProblem.EXISTS, f"{self.path!r} exists already")
        if not matches(self.if_match, status):
            raise FileError(FileProblem.CHANGED, f"{self.path!r} has changed")
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise FileError(FileProblem.INVALID, f"{self.path!r} is no regular file")


class Draft:
    """Made with the place it shall have; owns it.  All methods block.

    `unnamed` False: do not even try a file without a name.

    Raises:
      OSError: there can be no file.
    """

    def __init__(self, place: Place, terms: Terms, *, unnamed: bool = True) -> None:
        self._place = place
        self._terms = terms
        self._hidden: str | None = None
        self.size = 0
        self.digest = hashlib.sha256()
        fresh = terms.mode is None and place.stat() is None
        # What replaces a private file must never be readable for others.
        self._fd = self._open(0o666 if fresh else 0o600, unnamed=unnamed)

    def _open(self, mode: int, *, unnamed: bool) -> int:
        directory = self._place.directory
        if unnamed:
            try:
                return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=directory)
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
        self._hidden = f"{HIDDEN}{secrets.token_hex(12)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self._hidden, flags, mode, dir_fd=directory)
        except OSError:
            self._hidden = None
            raise

    def check_room(self, size: int) -> None:
        """Find out early whether a content of `size` bytes can fit at all.

        Raises:
          FileError: the file system has less room left.
        """
        with explained(self._terms.path):
            system = os.fstatvfs(self._fd)
        if size - self.size > system.f_bavail * system.f_frsize:
            raise FileError(
                FileProblem.NO_SPACE, f"{self._terms.path!r} does not fit: the disk has less room"
            )

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes at the end.

        Raises:
          FileError: they cannot be written; nothing of them counts.
        """
        with explained(self._terms.path), memoryview(data) as view:
            done = 0
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], self.size + done)
            self.digest.update(view)
            self.size += len(view)

    def go_back(self, size: int, digest: hashlib._Hash) -> None:
        """Forget what was written after `size`; `digest` is that of what is before it."""
        with explained(self._terms.path):
            os.ftruncate(self._fd, size)
        self.size = size
        self.digest = digest

    def publish(self) -> tuple[os.stat_result, bool]:
        """Let the file appear under its name; the draft is used up.

        Return its status, and whether there was none before.

        Raises:
          FileError: it may not, or cannot; it can be tried again.
        """
        terms, place = self._terms, self._place
        with explained(terms.path):
            # Bytes of a piece that failed half-way lie behind the end.
            os.ftruncate(self._fd, self.size)
            existing = place.stat()
            terms.check(existing)
            mode = terms.mode
            if mode is None and existing is not None:
                mode = stat.S_IMODE(existing.st_mode) & 0o777
                with contextlib.suppress(PermissionError):
                    os.fchown(self._fd, existing.st_uid, existing.st_gid)
            set_metadata(self._fd, mode, terms.modified)
            os.fsync(self._fd)
            with _naming:
                terms.check(place.stat())
                self._name()
            _sync_directory(place.directory)
            return os.fstat(self._fd), existing is None

    def _name(self) -> None:
        directory, name = self._place.directory, self._place.name
        if not self._terms.overwrite:
            # Fails where something is there, a dangling link included.
            self._link(name)
            if self._hidden is not None:
                os.unlink(self._hidden, dir_fd=directory)
                self._hidden = None
            return
        if self._hidden is None:
            hidden = f"{HIDDEN}{secrets.token_hex(12)}"
            self._link(hidden)
            self._hidden = hidden
        os.rename(self._hidden, name, src_dir_fd=directory, dst_dir_fd=directory)
        self._hidden = None

    def _link(self, name: str) -> None:
        directory = self._place.directory
        if self._hidden is not None:
            os.link(
                self._hidden,
                name,
                src_dir_fd=directory,
                dst_dir_fd=directory,
                follow_symlinks=False,
            )
        else:
            os.link(f"/proc/self/fd/{self._fd}", name, dst_dir_fd=directory, follow_symlinks=True)

    def discard(self) -> None:
        """Free everything; the draft is gone unless it was published.  Idempotent."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        if self._hidden is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._hidden, dir_fd=self._place.directory)
        self._place.close()


@singledispatch
def open_draft(place: Place, terms: Terms, *, unnamed: bool = True) -> Draft:
    """Make a draft for `place`, if the terms allow it; where files are not this machine's own,
    their kind of place registers how.

    Raises:
      FileError, OSError: there can be none.
    """
    terms.check(place.stat())
    return Draft(place, terms, unnamed=unnamed)


def _sync_directory(directory: int) -> None:
    """See to it that the new name survives a crash of the machine."""
    try:
        fd = reopen(directory, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # a directory that one may write to but not read
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
