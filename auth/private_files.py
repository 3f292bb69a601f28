"""Files that hold secrets: made so that nobody else can read them, refused when somebody could.

All functions block on the disk; they are for the start of a program.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600


class PrivateFileError(Exception):
    """A secret file cannot be used; the message names the file and says what to do."""


def ensure_private_directory(path: Path) -> None:
    """Make the directory `path` (mode 0700, parents as the umask says) unless it is there.

    Raises:
      PrivateFileError: it cannot be made, or others can enter it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=_DIRECTORY_MODE)
        status = path.lstat()
    except OSError as exc:
        raise PrivateFileError(f"cannot make the directory {path}: {exc.strerror}") from exc
    if not stat.S_ISDIR(status.st_mode):
        raise PrivateFileError(f"{path} is not a directory: move it away and start again")
    _check_access(path, status, "700")


def create_private_file(path: Path, data: bytes) -> None:
    """Write `data` to a new file `path` of mode 0600, and to the disk.

    A file that is already there is left as it is.  A failed write leaves no file.

    Raises:
      FileExistsError: there is something at `path`.
      PrivateFileError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, _FILE_MODE)
    except FileExistsError:
        raise
    except OSError as exc:
        raise PrivateFileError(f"cannot create {path}: {exc.strerror}") from exc
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), _FILE_MODE)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        path.unlink(missing_ok=True)
        raise PrivateFileError(f"cannot write {path}: {exc.strerror}") from exc


def read_private_file(path: Path, *, max_bytes: int) -> bytes:
    """Return the content of `path`.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      PrivateFileError: it is not a plain file of ours, others can read it, it is empty, or it is
        larger than `max_bytes`.
    """
    # O_NONBLOCK: a FIFO put in its place must not stop the start.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise PrivateFileError(f"cannot open {path}: {exc.strerror}") from exc
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PrivateFileError(f"{path} is not a plain file: move it away and start again")
        _check_access(path, status, "600")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as exc:
        raise PrivateFileError(f"cannot read {path}: {exc.strerror}") from exc
    finally:
        os.close(descriptor)
    if not data:
        raise PrivateFileError(f"{path} is empty: delete it, and a new one is made at the start")
    if len(data) > max_bytes:
        raise PrivateFileError(f"{path} is larger than {max_bytes} bytes: it is not a file of ours")
    return data


def _check_access(path: Path, status: os.stat_result, wanted: str) -> None:
    if status.st_uid not in (os.geteuid(), 0):
        raise PrivateFileError(f"{path} belongs to another user (uid {status.st_uid})")
    if status.st_mode & 0o077:
        raise PrivateFileError(
            f"others can read {path} (mode {stat.S_IMODE(status.st_mode):04o}): delete it to have "
            f"a new one made at the start, or, if nobody can have read it, run 'chmod {wanted} "
            f"{path}'"
        )
