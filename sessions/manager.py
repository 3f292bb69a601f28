"""The manager: makes sessions, knows them, ends them.

One nursery holds one task per live session (see `sessions.live`) and one that sweeps old records.
A session takes its place in the quotas in the same step in which they are checked, before anything
is waited for, and gives it back when everything in it has ended.
"""

from __future__ import annotations

import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog
import trio

from auth.clock import Clock, system_clock
from auth.policy import Creation, decide_access, decide_creation, effective_ttl
from auth.principal import Principal
from relay.socket_rules import SocketRules
from runtimes.base import SandboxSpec, SessionHost
from sessions.errors import (
    InvalidRequest,
    NoCapacity,
    NotOwner,
    NotRunning,
    PolicyDenied,
    SessionError,
    SessionFailed,
    SessionNotFound,
    ShuttingDown,
    UnknownProfile,
)
from sessions.live import Cause, LiveSession, Timeouts
from sessions.placement import EMBEDDED_NODE, Node, NoNodeAvailable, Placement, place
from sessions.profiles import Profile
from sessions.record import SessionRecord
from sessions.specs import spec_of
from sessions.state import State
from sessions.store import RecordStore, StoreError

__all__ = [
    "CreateRequest",
    "InvalidRequest",
    "Manager",
    "ManagerConfig",
    "ManagerStatistics",
    "NoCapacity",
    "NotOwner",
    "PolicyDenied",
    "SessionError",
    "SessionFailed",
    "SessionNotFound",
    "ShuttingDown",
    "Timeouts",
    "UnknownProfile",
    "open_manager",
]

logger = structlog.get_logger()

LOST = "lost: the server restarted and this runtime keeps nothing"

_RUNTIMES_WITHOUT_IMAGES = frozenset({"bubblewrap", "local", "fake"})
_MAX_HINT_CHARACTERS = 256
_MAX_IMAGE_CHARACTERS = 1024
_MAX_ID_CHARACTERS = 64
_MAX_UNSAVED = 1024

Records = list[SessionRecord]


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A wish for a session.

    `ttl_seconds` 0 means the default of the profile.  `placement_hint` is a region or a node id.
    `image_ref` is a hint that a runtime without images ignores, which the placement then says.
    """

    profile: str
    ttl_seconds: int
    placement_hint: str | None = None
    image_ref: str | None = None


@dataclass(frozen=True, slots=True)
class ManagerConfig:
    """Bounds and times, in seconds where they are times.

    `max_live_sessions` bounds the sessions of all owners together.  The records of sessions that
    ended are kept for `keep_ended_seconds`, and at most `keep_ended_records` of them; both are
    enforced every `sweep_seconds`.
    """

    max_live_sessions: int = 1024
    keep_ended_seconds: float = 24 * 3600
    keep_ended_records: int = 10_000
    sweep_seconds: float = 60.0
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class ManagerStatistics:
    """A snapshot.

    `live` and `ended` count sessions by state (a stopped one is live), `ended` since the start; `refused` counts requests
    for which no session was made at all.  `unsaved` are ended sessions whose last record could
    not be written yet.
    """

    live: Mapping[State, int]
    ended: Mapping[State, int]
    created: int
    refused: int
    unsaved: int


@asynccontextmanager
async def open_manager(
    host: SessionHost,
    store: RecordStore,
    profiles: Mapping[str, Profile],
    *,
    nodes: Iterable[Node] = (EMBEDDED_NODE,),
    config: ManagerConfig | None = None,
    clock: Clock = system_clock,
    new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
) -> AsyncIterator[Manager]:
    """Manage sessions on `host` for as long as the ``async with`` block lasts.

    On entry, what the store believes to be live is recorded as lost: no sandbox outlives its
    server.  What is stopped is taken over; it can be started.  Leaving the block ends every session
    that is not stopped, telling clients `draining`, and takes at most
    ``config.timeouts.teardown`` and the time for the last records.  A cancellation (or an error
    that leaves the block, which comes out in an exception group) does the same by force.

    Raises:
      StoreError: the records cannot be read or written (on entry).
    """
    manager = Manager(host, store, profiles, tuple(nodes), config or ManagerConfig(), clock, new_id)
    async with manager._running():  # noqa: SLF001 - one abstraction in two pieces
        yield manager


class Manager:
    """Every session there is.  Made by `open_manager`.

    All methods may be called from any number of tasks.  Those that name a session raise
    `SessionNotFound` where there is no record of it and `NotOwner` where the principal may not
    touch it; those that must read the store raise `StoreError` where that fails.
    """

    def __init__(
        self,
        host: SessionHost,
        store: RecordStore,
        profiles: Mapping[str, Profile],
        nodes: tuple[Node, ...],
        config: ManagerConfig,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._host = host
        self._store = store
        self._profiles = dict(profiles)
        self._nodes = nodes
        self._config = config
        self._clock = clock
        self._new_id = new_id
        self._nursery: trio.Nursery | None = None
        self._live: dict[str, LiveSession] = {}
        self._unsaved: OrderedDict[str, SessionRecord] = OrderedDict()
        self._ended: Counter[State] = Counter()
        self._created = 0
        self._refused = 0

    async def create(self, principal: Principal, request: CreateRequest) -> SessionRecord:
        """Make a session and return its record once it is running.

        Raises:
          InvalidRequest: a field is out of its range.
          UnknownProfile: there is no such profile.
          PolicyDenied: the caller's groups, the time to live or the quota forbid it.
          NoCapacity: the server is full, or no node can take it.
          SessionFailed: the sandbox could not be made, or was ended while it was.
          ShuttingDown: the server is going away.

        Cancellation: the session is given up; it ends and is cleaned up by its own task.
        """
        try:
            session = self._admit(principal, request)
        except SessionError as exc:
            self._refused += 1
            logger.info("session_refused", owner=principal.subject, reason=str(exc))
            raise
        try:
            await session.started.wait()
        except BaseException:
            session.end(Cause.ABANDONED)
            raise
        record = session.record
        if record.state is State.RUNNING:
            return record
        if session.cause is Cause.SHUTDOWN:
            raise ShuttingDown
        raise SessionFailed(record.reason or "the session ended while it was starting")

    async def get(self, principal: Principal, session_id: str) -> SessionRecord:
        """Return the record of a session, live or ended.

        Cancellation: safe.
        """
        session = self._live.get(session_id)
        if session is not None:
            await trio.lowlevel.checkpoint()
            record: SessionRecord | None = session.record
        elif session_id.isascii() and len(session_id) <= _MAX_ID_CHARACTERS:
            record = self._unsaved.get(session_id) or await self._store.get(session_id)
        else:
            record = None
        if record is None:
            raise SessionNotFound(session_id)
        if not decide_access(principal, record.owner).allowed:
            raise NotOwner(session_id)
        return record

    async def list(self, principal: Principal) -> Records:
        """Return the records of the principal's sessions, live and ended, newest first.

        Cancellation: safe.
        """
        owner = principal.subject
        live = self._live_of(owner)
        stored = await self._store.list_owned(owner)
        # One that ended while the store was read is known better by its own task.
        live |= self._live_of(owner)
        records = {record.session_id: record for record in stored}
        records |= {
            session_id: record
            for session_id, record in self._unsaved.items()
            if record.owner == owner
        }
        records |= {session_id: session.record for session_id, session in live.items()}
        return sorted(records.values(), key=lambda r: (r.created_at, r.session_id), reverse=True)

    async def terminate(self, principal: Principal, session_id: str) -> SessionRecord:
        """End a session and return its last record, once everything in it has ended.

        One that has ended already is left as it is.

        Cancellation: the session ends all the same.
        """
        record = await self.get(principal, session_id)
        session = self._live.get(session_id)
        if session is None:
            return record if record.ended else await self.get(principal, session_id)
        session.end(Cause.TERMINATED)
        await session.finished.wait()
        if not session.record.ended:  # it rests, until the server is back
            raise ShuttingDown
        return session.record

    async def pause(self, principal: Principal, session_id: str) -> SessionRecord:
        """Stop everything in a session where it is; idempotent.

        Raises:
          NotRunning: it does not run.
          CannotPause: its runtime cannot.
          StoreError: it took effect, but could not be recorded.

        Cancellation: it has taken effect, or not.
        """
        session = await self._live_session(principal, session_id)
        await session.pause()
        logger.info("session_paused", session_id=session_id)
        return session.record

    async def resume(self, principal: Principal, session_id: str) -> SessionRecord:
        """Let everything in a session go on; idempotent.  Raises and cancellation: as `pause`."""
        session = await self._live_session(principal, session_id)
        await session.resume()
        logger.info("session_resumed", session_id=session_id)
        return session.record

    async def stop(self, principal: Principal, session_id: str) -> SessionRecord:
        """End everything in a session but its record and its home; idempotent.

        See `LiveSession.stop`, also for what it raises and what a cancellation does.
        """
        session = await self._live_session(principal, session_id)
        await session.stop()
        logger.info("session_stopped", session_id=session_id)
        return session.record

    async def start(self, principal: Principal, session_id: str) -> SessionRecord:
        """Start a stopped session again and return its record once it runs; idempotent.

        See `LiveSession.start`, also for what it raises and what a cancellation does.
        """
        session = await self._live_session(principal, session_id)
        record = session.record
        if record.state is State.STOPPED and record.profile not in self._profiles:
            raise SessionFailed(
                f"the server's configuration has no profile {record.profile!r} any more;"
                " put it back, or delete the session"
            )
        await session.start()
        logger.info("session_started", session_id=session_id)
        return session.record

    async def _live_session(self, principal: Principal, session_id: str) -> LiveSession:
        record = await self.get(principal, session_id)
        session = self._live.get(session_id)
        if session is None:
            raise NotRunning(record.state)
        return session

    async def revoke(self, principal: Principal, session_id: str) -> SessionRecord:
        """Refuse every ticket issued until now and close what was attached with one.

        Of a session that has ended, nothing is left to revoke: it is left as it is.

        Raises:
          StoreError: it took effect, but could not be recorded.

        Cancellation: it has taken effect, or the record was not even found yet.
        """
        record = await self.get(principal, session_id)
        session = self._live.get(session_id)
        if session is None or session.record.ended:
            return record if record.ended else await self.get(principal, session_id)
        await session.revoke()
        logger.info("session_revoked", session_id=session_id, epoch=session.record.epoch)
        return session.record

    def find(self, session_id: str) -> SessionRecord | None:
        """Return the record of a session that has not ended, from memory; None otherwise."""
        session = self._live.get(session_id)
        return None if session is None else session.record

    def profile(self, record: SessionRecord) -> Profile:
        """Return the profile of a session.

        Where the configuration has none of that name any more, one that opens no port.
        """
        profile = self._profiles.get(record.profile)
        return profile or Profile(record.profile, ports=SocketRules())

    def statistics(self) -> ManagerStatistics:
        """Return a snapshot of the counters."""
        return ManagerStatistics(
            live=Counter(session.record.state for session in self._live.values()),
            ended=Counter(self._ended),
            created=self._created,
            refused=self._refused,
            unsaved=len(self._unsaved),
        )

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        resting = await self._store.resting()
        lost = await self._store.mark_lost(self._clock(), LOST)
        if lost:
            logger.warning("sessions_lost", count=len(lost), reason=LOST)
        # Of what was just being stopped or started, too, something may still run.
        unsettled = [r.session_id for r in resting if r.state is not State.STOPPED]
        if lost or unsettled:
            await self._host.end_lost((*lost, *unsettled))
        await self._purge()
        async with trio.open_nursery() as nursery:
            sweeper = trio.CancelScope()
            nursery.start_soon(self._sweep, sweeper)
            self._nursery = nursery
            for record in resting:
                self._bring_back(record)
            try:
                yield
            finally:
                self._nursery = None
                for session in self._live.values():
                    session.end(Cause.SHUTDOWN)
                sweeper.cancel()

    def _admit(self, principal: Principal, request: CreateRequest) -> LiveSession:
        """Check everything and start the session's task, in one step that does not wait."""
        if self._nursery is None:
            raise ShuttingDown
        _check_text("placement_hint", request.placement_hint, _MAX_HINT_CHARACTERS)
        _check_text("image_ref", request.image_ref, _MAX_IMAGE_CHARACTERS)
        profile = self._profiles.get(request.profile)
        if profile is None:
            raise UnknownProfile(request.profile[:64])
        try:
            ttl_seconds = effective_ttl(profile.limits, request.ttl_seconds)
        except ValueError as exc:
            raise InvalidRequest("ttl_seconds", str(exc)) from None
        of_owner = self._live_of(principal.subject).values()
        under_profile = sum(session.record.profile == profile.name for session in of_owner)
        decision = decide_creation(Creation(principal, profile.limits, ttl_seconds, under_profile))
        if not decision.allowed:
            raise PolicyDenied(decision.reason)
        if len(self._live) >= self._config.max_live_sessions:
            raise NoCapacity(
                f"the server has its {self._config.max_live_sessions} sessions; try again later"
            )
        now = self._clock()
        record = SessionRecord(
            session_id=self._new_id(),
            owner=principal.subject,
            profile=profile.name,
            state=State.PENDING,
            placement=self._place(request, profile),
            created_at=now,
            expires_at=now + timedelta(seconds=ttl_seconds),
            runtime=profile.runtime or self._host.runtime_name,
            image_ref=request.image_ref,
        )
        session = self._adopt(record, spec_of(record, profile), trio.current_time() + ttl_seconds)
        self._created += 1
        return session

    def _bring_back(self, record: SessionRecord) -> None:
        """Own a session again that an earlier life of this server has left at rest."""
        record = replace(record, state=State.STOPPED)
        left = (record.expires_at - self._clock()).total_seconds()
        spec = spec_of(record, self.profile(record), keep_home=True)
        self._adopt(record, spec, trio.current_time() + max(0.0, left))

    def _adopt(self, record: SessionRecord, spec: SandboxSpec, deadline: float) -> LiveSession:
        if self._nursery is None:
            raise ShuttingDown
        session = LiveSession(
            record,
            spec,
            host=self._host,
            store=self._store,
            clock=self._clock,
            timeouts=self._config.timeouts,
            deadline=deadline,
            idle_timeout=self.profile(record).idle_timeout_seconds,
        )
        self._live[record.session_id] = session
        self._nursery.start_soon(self._own, session, name=f"session {record.session_id}")
        return session

    def _place(self, request: CreateRequest, profile: Profile) -> Placement:
        try:
            placement = place(self._nodes, request.placement_hint)
        except NoNodeAvailable as exc:
            raise NoCapacity(str(exc)) from None
        runtime = profile.runtime or self._host.runtime_name
        has_images = runtime not in _RUNTIMES_WITHOUT_IMAGES
        if request.image_ref and not has_images:
            ignored = f"image-ignored-by-{runtime}-runtime"
            placement = replace(placement, reasons=(*placement.reasons, ignored))
        return placement

    def _live_of(self, owner: str) -> dict[str, LiveSession]:
        return {
            session_id: session
            for session_id, session in self._live.items()
            if session.record.owner == owner
        }

    async def _own(self, session: LiveSession) -> None:
        record = session.record
        log = logger.bind(session_id=record.session_id, owner=record.owner)
        if record.state is State.PENDING:
            log.info("session_created", profile=record.profile, reasons=record.placement.reasons)
        else:
            log.info("session_found", profile=record.profile, state=record.state)
        try:
            await session.run()
        finally:
            record = session.record
            del self._live[record.session_id]
            if record.ended:
                self._ended[record.state] += 1
            if not session.saved:
                self._unsaved[record.session_id] = record
                if len(self._unsaved) > _MAX_UNSAVED:
                    self._unsaved.popitem(last=False)
            event = "session_ended" if record.ended else "session_left"
            log.info(event, state=record.state, reason=record.reason)

    async def _sweep(self, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await trio.sleep(self._config.sweep_seconds)
                try:
                    await self._save_unsaved()
                    await self._purge()
                except StoreError as exc:
                    logger.error("sweep_failed", error=str(exc))  # noqa: TRY400 - says it all

    async def _save_unsaved(self) -> None:
        for session_id, record in tuple(self._unsaved.items()):
            await self._store.put(record)
            self._unsaved.pop(session_id, None)

    async def _purge(self) -> None:
        before = self._clock() - timedelta(seconds=self._config.keep_ended_seconds)
        count = await self._store.purge(before, self._config.keep_ended_records)
        if count:
            logger.info("records_purged", count=count)


def _check_text(name: str, value: str | None, maximum: int) -> None:
    if value is not None and (len(value) > maximum or not value.isprintable()):
        raise InvalidRequest(name, f"must be at most {maximum} printable characters")
