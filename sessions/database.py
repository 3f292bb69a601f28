"""The database file: taken for one server, checked before it is touched, and never replaced.

Everything here blocks on the disk.  The file is opened in this order: lock, look, make.  A file
that is damaged, foreign or of a newer version is refused as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

SCHEMA_VERSION = 1
"""Kept in the file's ``user_version``."""

APPLICATION_ID = 0x54524E4B
"""Kept in the file's ``application_id``: "TRNK"."""

_BUSY_SECONDS = 5.0


class StoreError(Exception):
    """The records cannot be read or written; the message names the file and says what to do."""


class StoreInUse(StoreError):
    """Another server has the file."""


class StoreTooNew(StoreError):
    """The file was written by a newer version."""


class StoreCorrupt(StoreError):
    """The file is damaged, or is no database of ours."""


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the database `path` for this process alone, by a lock on ``<path>.lock``.

    The kernel frees the lock when the process dies, however it dies; the file stays.

    Raises:
      StoreInUse: another process holds it.
      StoreError: the lock file cannot be made.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreError(f"cannot open {lock}: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise StoreInUse(
                f"{path} is in use by another server (process {holder}): stop it, or give this one "
                "another data directory"
            ) from None
        except OSError as exc:
            raise StoreError(f"cannot lock {lock}: {exc.strerror}") from exc
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)


def prepare(path: Path) -> None:
    """Check the database `path`, or make an empty one (mode 0600, the schema not yet in it).

    Raises:
      StoreTooNew, StoreCorrupt, StoreError: it cannot be used; it was left as it is.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        _create(path)
        return
    except OSError as exc:
        raise StoreError(f"cannot look at {path}: {exc.strerror}") from exc
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path} is not a plain file: move it away and start again")
    if status.st_uid == os.geteuid() and status.st_mode & 0o077:
        path.chmod(0o600)
    if status.st_size or _log_of(path).exists():
        _check(path)


def _create(path: Path) -> None:
    if _log_of(path).exists():
        raise StoreCorrupt(
            f"{path} is gone but its log {_log_of(path)} is there: restore both from a backup, or "
            "move the log away to start with no records"
        )
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreError(f"cannot create {path}: {exc.strerror}") from exc
    os.close(descriptor)


def _check(path: Path) -> None:
    # Read-only, so that not even the log of a file we shall refuse is merged into it.
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as database:
            application = _pragma(database, "application_id")
            version = _pragma(database, "user_version")
            tables = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as exc:
        if type(exc) is sqlite3.DatabaseError:  # its subclasses are about other things
            raise corrupt(path, str(exc)) from exc
        raise StoreError(f"cannot read {path}: {exc}") from exc
    if application == 0 and version == 0 and tables == 0:
        return  # made, but the process died before it held anything
    if application != APPLICATION_ID:
        raise StoreCorrupt(
            f"{path} is the database of another program: move it away, or choose another data "
            "directory"
        )
    if version > SCHEMA_VERSION:
        raise StoreTooNew(
            f"{path} was written by a newer version (schema {version}; this one knows "
            f"{SCHEMA_VERSION}): upgrade, or choose another data directory; the file was not "
            "touched"
        )
    if verdict != "ok":
        raise corrupt(path, verdict)


def corrupt(path: Path, problem: str) -> StoreCorrupt:
    """Return the error for a damaged database."""
    return StoreCorrupt(
        f"{path} is damaged ({problem}): restore it from a backup, or move it and the files "
        f"{path.name}-wal and {path.name}-shm away to start with no records; it was not replaced"
    )


def _pragma(database: sqlite3.Connection, name: str) -> int:
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
