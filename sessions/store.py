"""Where session records are kept: SQLite, in worker threads, one transaction at a time.

Calls are carried out in the order in which they are made.  Cancellation: a call that still waits
for its turn is given up and has no effect; one that has begun is completed, and only then is the
cancellation delivered.
"""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import trio
from sqlalchemy.dialects import sqlite

from sessions.database import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    StoreCorrupt,
    StoreError,
    StoreInUse,
    StoreTooNew,
    corrupt,
    exclusive,
    prepare,
)
from sessions.placement import Placement
from sessions.record import SessionRecord
from sessions.state import FINAL, RESTING, State

__all__ = [
    "RecordStore",
    "Store",
    "StoreCorrupt",
    "StoreError",
    "StoreInUse",
    "StoreTooNew",
    "open_store",
]

T = TypeVar("T")

_METADATA = sa.MetaData()

_SESSIONS = sa.Table(
    "sessions",
    _METADATA,
    sa.Column("session_id", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("region", sa.Text, nullable=False),
    sa.Column("node_id", sa.Text, nullable=False),
    sa.Column("tier", sa.Text, nullable=False),
    sa.Column("reasons", sa.Text, nullable=False),  # a JSON list of strings
    # Times are microseconds since the epoch, UTC: exact, and they sort.
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger, index=True),
    sa.Column("image_ref", sa.Text),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("runtime", sa.Text, nullable=False),
    sa.Index("ix_sessions_owner_created", "owner", "created_at"),
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class RecordStore(ABC):
    """What the manager needs of a store."""

    @abstractmethod
    async def put(self, record: SessionRecord) -> None:
        """Insert or replace the record.  One that has ended is never replaced.

        Raises:
          StoreError: it cannot be written.
        """

    @abstractmethod
    async def get(self, session_id: str) -> SessionRecord | None:
        """Return the record, or None where there is none.

        Raises:
          StoreError: it cannot be read.
        """

    @abstractmethod
    async def list_owned(self, owner: str) -> list[SessionRecord]:
        """Return the records of `owner`, newest first.

        Raises:
          StoreError: they cannot be read.
        """

    @abstractmethod
    async def resting(self) -> list[SessionRecord]:
        """Return the records of the sessions that are stopped, or were being stopped or started.

        Raises:
          StoreError: they cannot be read.
        """

    @abstractmethod
    async def mark_lost(self, now: datetime, reason: str) -> tuple[str, ...]:
        """Make every record that neither has ended nor rests `failed`, ended `now`.

        Returns the sessions' ids.

        Raises:
          StoreError: they cannot be written.
        """

    @abstractmethod
    async def purge(self, ended_before: datetime, keep: int) -> int:
        """Forget the records that ended before that time, and all but the `keep` latest ended.

        Returns how many were forgotten.

        Raises:
          StoreError: they cannot be written.
        """


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator[Store]:
    """Open the database file `path`, or make it (mode 0600), and hold it alone until the end.

    The directory must exist.

    Raises:
      StoreInUse: another server has it.
      StoreTooNew: a newer version wrote it; it is not touched.
      StoreCorrupt: it is damaged or not ours; it is never replaced.
      StoreError: it cannot be opened for another reason.
    """
    limiter = trio.CapacityLimiter(1)
    lock = exclusive(path)
    # `abandon_on_cancel` is False throughout: no thread outlives the call that started it.
    await trio.to_thread.run_sync(lock.__enter__, limiter=limiter)
    try:
        engine = await trio.to_thread.run_sync(_open_engine, path, limiter=limiter)
        try:
            yield Store(path, engine, limiter)
        finally:
            # No statement runs any more, so this is quick; it merges the log into the file.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await trio.to_thread.run_sync(engine.dispose, limiter=limiter)
    finally:
        lock.__exit__(None, None, None)


class Store(RecordStore):
    """Records in SQLite.  Made by `open_store`."""

    def __init__(self, path: Path, engine: sa.Engine, limiter: trio.CapacityLimiter) -> None:
        self._path = path
        self._engine = engine
        self._limiter = limiter

    async def put(self, record: SessionRecord) -> None:
        """See `RecordStore.put`."""
        await self._run(_put, record)

    async def get(self, session_id: str) -> SessionRecord | None:
        """See `RecordStore.get`."""
        return await self._run(_get, session_id)

    async def list_owned(self, owner: str) -> list[SessionRecord]:
        """See `RecordStore.list_owned`."""
        return await self._run(_list_owned, owner)

    async def resting(self) -> list[SessionRecord]:
        """See `RecordStore.resting`."""
        return await self._run(_resting)

    async def mark_lost(self, now: datetime, reason: str) -> tuple[str, ...]:
        """See `RecordStore.mark_lost`."""
        return await self._run(_mark_lost, now, reason)

    async def purge(self, ended_before: datetime, keep: int) -> int:
        """See `RecordStore.purge`."""
        return await self._run(_purge, ended_before, keep)

    async def _run(self, work: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(
            partial(self._transaction, work, *args), limiter=self._limiter
        )

    def _transaction(self, work: Callable[..., T], *args: object) -> T:
        try:
            with self._engine.begin() as connection:
                return work(connection, *args)
        except (sa.exc.DBAPIError, _BadRowError) as exc:
            raise _translate(self._path, exc) from exc


class _BadRowError(Exception):
    """A row holds what we never write."""


def _open_engine(path: Path) -> sa.Engine:
    prepare(path)
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        # One connection, handed from thread to thread; the limiter keeps them apart.
        pool_size=1,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 5.0},
    )
    sa.event.listen(engine, "connect", _configure)
    try:
        with engine.begin() as connection:
            _METADATA.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except sa.exc.DBAPIError as exc:
        engine.dispose()
        raise _translate(path, exc) from exc
    except BaseException:
        engine.dispose()
        raise
    return engine


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode = WAL")
        # In WAL mode a power cut may lose the last transactions but cannot damage the file.
        cursor.execute("PRAGMA synchronous = NORMAL")


def _translate(path: Path, exc: sa.exc.DBAPIError | _BadRowError) -> StoreError:
    if isinstance(exc, _BadRowError):
        return corrupt(path, str(exc))
    if type(exc.orig) is sqlite3.DatabaseError:  # its subclasses are about other things
        return corrupt(path, str(exc.orig))
    return StoreError(f"cannot use {path}: {exc.orig}")


def _upsert() -> sqlite.Insert:
    insert = sqlite.insert(_SESSIONS)
    changing = [column.name for column in _SESSIONS.columns if not column.primary_key]
    return insert.on_conflict_do_update(
        index_elements=["session_id"],
        set_={name: insert.excluded[name] for name in changing},
        where=_SESSIONS.c.ended_at.is_(None),
    )


_UPSERT = _upsert()
"""Built once: building it takes longer than carrying it out."""


def _put(connection: sa.Connection, record: SessionRecord) -> None:
    connection.execute(_UPSERT, _row(record))


def _get(connection: sa.Connection, session_id: str) -> SessionRecord | None:
    query = sa.select(_SESSIONS).where(_SESSIONS.c.session_id == session_id)
    row = connection.execute(query).mappings().first()
    return None if row is None else _record(row)


def _list_owned(connection: sa.Connection, owner: str) -> list[SessionRecord]:
    query = (
        sa.select(_SESSIONS)
        .where(_SESSIONS.c.owner == owner)
        .order_by(_SESSIONS.c.created_at.desc(), _SESSIONS.c.session_id)
    )
    return [_record(row) for row in connection.execute(query).mappings()]


def _resting(connection: sa.Connection) -> list[SessionRecord]:
    query = sa.select(_SESSIONS).where(_SESSIONS.c.state.in_([state.value for state in RESTING]))
    return [_record(row) for row in connection.execute(query).mappings()]


def _mark_lost(connection: sa.Connection, now: datetime, reason: str) -> tuple[str, ...]:
    live = _SESSIONS.c.state.not_in([state.value for state in FINAL | RESTING])
    # One transaction, and one server: nothing changes in between.
    lost = connection.execute(sa.select(_SESSIONS.c.session_id).where(live)).scalars().all()
    connection.execute(
        sa.update(_SESSIONS)
        .where(live)
        .values(state=State.FAILED.value, reason=reason, ended_at=_microseconds(now))
    )
    return tuple(lost)


def _purge(connection: sa.Connection, ended_before: datetime, keep: int) -> int:
    ended_at = _SESSIONS.c.ended_at
    too_old = connection.execute(
        sa.delete(_SESSIONS).where(ended_at < _microseconds(ended_before))
    ).rowcount
    too_many = (
        sa.select(_SESSIONS.c.session_id)
        .where(ended_at.is_not(None))
        .order_by(ended_at.desc(), _SESSIONS.c.session_id)
        .limit(-1)
        .offset(keep)
    )
    return (
        too_old
        + connection.execute(
            sa.delete(_SESSIONS).where(_SESSIONS.c.session_id.in_(too_many))
        ).rowcount
    )


def _row(record: SessionRecord) -> dict[str, Any]:
    return {
        "session_id": record.session_id,
        "owner": record.owner,
        "profile": record.profile,
        "state": record.state.value,
        "reason": record.reason,
        "region": record.placement.region,
        "node_id": record.placement.node_id,
        "tier": record.placement.tier,
        "reasons": json.dumps(record.placement.reasons),
        "created_at": _microseconds(record.created_at),
        "expires_at": _microseconds(record.expires_at),
        "ended_at": None if record.ended_at is None else _microseconds(record.ended_at),
        "image_ref": record.image_ref,
        "epoch": record.epoch,
        "runtime": record.runtime,
    }


def _record(row: sa.RowMapping) -> SessionRecord:
    try:
        return SessionRecord(
            session_id=row["session_id"],
            owner=row["owner"],
            profile=row["profile"],
            state=State(row["state"]),
            reason=row["reason"],
            placement=Placement(
                row["region"],
                row["node_id"],
                row["tier"],
                tuple(map(str, json.loads(row["reasons"]))),
            ),
            created_at=_moment(row["created_at"]),
            expires_at=_moment(row["expires_at"]),
            ended_at=None if row["ended_at"] is None else _moment(row["ended_at"]),
            image_ref=row["image_ref"],
            epoch=row["epoch"],
            runtime=row["runtime"],
        )
    except (ValueError, TypeError, OverflowError) as exc:
        raise _BadRowError(f"the record of session {row['session_id']!r} is senseless") from exc


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND
