"""A record store in memory: no threads, so it goes with a mocked clock, and it fails on demand."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import trio

from sessions.record import SessionRecord
from sessions.state import RESTING, State
from sessions.store import RecordStore, StoreError


class MemoryStore(RecordStore):
    """`history` is every record put, in order; a put raises StoreError while `broken`."""

    def __init__(self) -> None:
        self.records: dict[str, SessionRecord] = {}
        self.history: list[SessionRecord] = []
        self.broken = False
        self.put_delay = 0.0

    async def put(self, record: SessionRecord) -> None:
        await trio.lowlevel.checkpoint()
        if self.put_delay:
            await trio.sleep(self.put_delay)
        if self.broken:
            raise StoreError("cannot write memory: it is broken")
        self.history.append(record)
        stored = self.records.get(record.session_id)
        if stored is None or not stored.ended:
            self.records[record.session_id] = record

    async def get(self, session_id: str) -> SessionRecord | None:
        await trio.lowlevel.checkpoint()
        return self.records.get(session_id)

    async def list_owned(self, owner: str) -> list[SessionRecord]:
        await trio.lowlevel.checkpoint()
        mine = [record for record in self.records.values() if record.owner == owner]
        return sorted(mine, key=lambda record: record.created_at, reverse=True)

    async def resting(self) -> list[SessionRecord]:
        await trio.lowlevel.checkpoint()
        return [record for record in self.records.values() if record.state in RESTING]

    async def mark_lost(self, now: datetime, reason: str) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        lost = [record for record in self.records.values() if not record.ended]
        lost = [record for record in lost if record.state not in RESTING]
        for record in lost:
            self.records[record.session_id] = replace(
                record, state=State.FAILED, reason=reason, ended_at=now
            )
        return tuple(record.session_id for record in lost)

    async def purge(self, ended_before: datetime, keep: int) -> int:
        await trio.lowlevel.checkpoint()
        ended = sorted(
            (
                (record.ended_at, record.session_id)
                for record in self.records.values()
                if record.ended_at is not None
            ),
            reverse=True,
        )
        gone = [sid for n, (at, sid) in enumerate(ended) if n >= keep or at < ended_before]
        for session_id in gone:
            del self.records[session_id]
        return len(gone)

    def states(self, session_id: str) -> list[State]:
        """Return the states written for a session, in order."""
        return [record.state for record in self.history if record.session_id == session_id]
