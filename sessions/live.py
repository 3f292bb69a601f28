"""One live session: its task, its sandbox, its record.

Theory of operation.  `LiveSession.run` is the only task of a session and the only writer of its
record.  Others speak to it through `end`, which never waits: the *first* cause given decides how
the session ends, and everything later is ignored.  The task then leaves the host's
``open_session`` block, which ends every process, writes the last record and sets `finished`.
Nothing but a cancellation from outside ever leaves `run`: an error of one session is its own.

One cancel scope surrounds all of it, the making of the sandbox included.  (A scope around the
*entry* of ``open_session`` alone would be closed while a nursery opened inside it lives on, which
Trio forbids.)  Its deadline has three meanings, one after the other: while the sandbox is being
made, the time that may take; while the session runs, none; while it ends, the time that may take
before the host is cancelled, which makes it use force.

Two clocks.  The time to live runs on Trio's clock, which is monotonic: setting the wall clock
neither ends a session nor lengthens it, and time during which the machine is suspended does not
count.  The times in the record are of the wall clock and are promises (`expires_at`) or testimony
(`ended_at`); after a suspend, a session may be alive past its `expires_at`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

import structlog
import trio

from auth.clock import Clock
from relay.protocol.reasons import CloseReason
from runtimes.base import HostedSession, SandboxError, SandboxSpec, SessionHost, UnknownSession
from sessions.errors import CannotPause, NotRunning
from sessions.record import SessionRecord
from sessions.state import Event, State, next_state
from sessions.store import RecordStore, StoreError

logger = structlog.get_logger()

SAVE_SECONDS = 10.0
"""How long the writing of the last record may take, in the face of cancellation."""


_LOOKS_AT_USE = 10
"""How often it is looked, within the time that a session may be idle, whether it is."""


class Cause(StrEnum):
    """Why a session is to end."""

    TERMINATED = "terminated"
    EXPIRED = "expired"
    ABANDONED = "abandoned"
    SHUTDOWN = "shutdown"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Ending:
    """What follows from a cause: what clients are told, the last event, and the record's words."""

    close_reason: CloseReason
    event: Event
    reason: str


ENDINGS: Mapping[Cause, Ending] = MappingProxyType(
    {
        Cause.TERMINATED: Ending(CloseReason.SESSION_ENDED, Event.ENDED, "terminated on request"),
        Cause.EXPIRED: Ending(
            CloseReason.EXPIRED, Event.EXPIRED, "reached the end of its time to live"
        ),
        Cause.ABANDONED: Ending(
            CloseReason.SESSION_ENDED, Event.ENDED, "whoever asked for it went away meanwhile"
        ),
        Cause.IDLE: Ending(
            CloseReason.SESSION_ENDED,
            Event.ENDED,
            "ended because nobody used it: no input and no output for as long as its profile allows",
        ),
        Cause.SHUTDOWN: Ending(
            CloseReason.DRAINING, Event.ENDED, "ended because the server was shut down"
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the phases of a session may take, in seconds."""

    start: float = 60.0
    """Making the sandbox."""
    teardown: float = 15.0
    """Ending everything in it politely, before the host is told to use force."""


class LiveSession:
    """A session between the request for it and its end.  `run` does everything."""

    def __init__(
        self,
        record: SessionRecord,
        spec: SandboxSpec,
        *,
        host: SessionHost,
        store: RecordStore,
        clock: Clock,
        timeouts: Timeouts,
        deadline: float,
        idle_timeout: float | None = None,
    ) -> None:
        self._record = record
        self._spec = spec
        self._host = host
        self._store = store
        self._clock = clock
        self._timeouts = timeouts
        self._deadline = deadline
        self._idle_timeout = idle_timeout
        self._changing = trio.Lock()
        self._scope = trio.CancelScope()
        self._ending = trio.Event()
        self._hosted: HostedSession | None = None
        self._cause: Cause | None = None
        self._failure: str | None = None
        self._start_given_up = False
        self._saved = False
        self.started = trio.Event()
        """Set once the session runs, or will never run."""
        self.finished = trio.Event()
        """Set once everything in the session has ended and its last record was written."""

    @property
    def record(self) -> SessionRecord:
        """The session as it is now."""
        return self._record

    @property
    def cause(self) -> Cause | None:
        """Why it is to end, once that is known."""
        return self._cause

    @property
    def saved(self) -> bool:
        """Whether the last record reached the store."""
        return self._saved

    def end(self, cause: Cause) -> None:
        """Begin to end the session; does nothing when it is ending already."""
        if self._cause is not None or self._record.ended:
            return
        self._cause = cause
        self._start_given_up = self._record.state is State.PENDING
        self._advance(Event.END, reason=ENDINGS[cause].reason)
        self._scope.deadline = trio.current_time() + self._timeouts.teardown
        if self._start_given_up:
            self._scope.cancel()
        self._ending.set()

    async def pause(self) -> None:
        """Stop everything in the session where it is; idempotent.

        The time to live runs on; being idle does not count meanwhile.

        Raises:
          NotRunning: the session does not run.
          CannotPause: the sandbox cannot.
          StoreError: it took effect, but the record could not be written.

        Cancellation: it has taken effect, or not.
        """
        await self._change(State.RUNNING, State.PAUSED, Event.PAUSE)

    async def resume(self) -> None:
        """Let everything in the session go on; idempotent.  Raises and cancellation: as `pause`."""
        await self._change(State.PAUSED, State.RUNNING, Event.RESUME)

    async def _change(self, before: State, after: State, event: Event) -> None:
        async with self._changing:
            if self._record.state is after:
                return
            if self._record.state is not before or self._hosted is None:
                raise NotRunning(self._record.state)
            try:
                if event is Event.PAUSE:
                    await self._hosted.pause()
                else:
                    await self._hosted.resume()
            except SandboxError as error:
                raise CannotPause(str(error)) from error
            if self._record.state is not before:  # it began to end meanwhile
                raise NotRunning(self._record.state)
            self._advance(event)
            await self._store.put(self._record)

    async def revoke(self) -> None:
        """Refuse every ticket issued until now and close what was attached with one.

        Raises:
          StoreError: it took effect, but the record could not be written.

        Cancellation: the revocation has taken effect all the same.
        """
        self._record = replace(self._record, epoch=self._record.epoch + 1)
        if self._hosted is not None:
            self._hosted.revoke(self._record.epoch)
        await self._store.put(self._record)

    async def run(self) -> None:
        """Make the sandbox, keep it until its time has come, end it.

        Cancellation: ends the session by force, and leaves an honest record.
        """
        try:
            await self._run_guarded()
        finally:
            self._conclude()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SAVE_SECONDS):
                self._saved = await self._save()
            self.started.set()
            self.finished.set()

    async def _run_guarded(self) -> None:
        self._scope.deadline = trio.current_time() + self._timeouts.start
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._expire)
                    if self._idle_timeout is not None:
                        nursery.start_soon(self._watch_use, self._idle_timeout)
                    await self._live()
                    nursery.cancel_scope.cancel()
        except* SandboxError as group:
            self._failure = str(_first(group))
        except* StoreError as group:
            self._failure = f"its record could not be written: {_first(group)}"
        except* Exception as group:
            self._failure = "an internal error; the server's log says more"
            logger.exception(
                "session_broke", session_id=self._record.session_id, error=repr(_first(group))
            )
        if self._scope.cancelled_caught and self._cause is None:
            self._failure = f"it did not start within {self._timeouts.start:g} seconds"

    async def _live(self) -> None:
        await self._store.put(self._record)
        async with self._host.open_session(self._spec) as hosted:
            self._hosted = hosted
            if self._cause is None:
                self._scope.deadline = float("inf")
                self._advance(Event.READY)
                try:
                    await self._store.put(self._record)
                    self.started.set()
                    await self._ending.wait()
                finally:
                    # Cancelled from outside, no cause is known yet: the server is going away.
                    # (A host that breaks cancels this too; it knows better what to tell clients.)
                    hosted.end(self._close_reason())
                await self._save()

    def _close_reason(self) -> CloseReason:
        return ENDINGS[self._cause or Cause.SHUTDOWN].close_reason

    async def _expire(self) -> None:
        await trio.sleep_until(self._deadline)
        self.end(Cause.EXPIRED)

    async def _watch_use(self, timeout: float) -> None:
        """End the session once nothing went in or out of an attachment for `timeout` seconds."""
        await self.started.wait()
        seen: object = None
        last_use = trio.current_time()
        while self._record.state in (State.RUNNING, State.PAUSED):
            used = self._traffic()
            now = trio.current_time()
            if used != seen or self._record.state is State.PAUSED:
                seen, last_use = used, now
            if now - last_use >= timeout:
                self.end(Cause.IDLE)
                return
            await trio.sleep(min(timeout / _LOOKS_AT_USE, last_use + timeout - now))

    def _traffic(self) -> object:
        """Return what is another thing whenever something went in or out of an attachment."""
        try:
            streams = self._host.streams(self._record.session_id)
        except UnknownSession:
            return None
        return [
            (stream.name, one.attachment, one.accepted, [to.sent for to in one.senders.values()])
            for stream in streams
            for one in stream.attachments
        ]

    def _conclude(self) -> None:
        """Bring the record to its final state."""
        if self._failure is not None:
            happened = "" if self._cause is None else f"{ENDINGS[self._cause].reason}, but "
            self._advance(Event.FAIL, reason=happened + self._failure)
        else:
            if self._cause is None:
                self._cause = Cause.SHUTDOWN
                self._advance(Event.END)
            ending = ENDINGS[self._cause]
            forced = ""
            if self._scope.cancelled_caught and not self._start_given_up:
                forced = f"; by force, after {self._timeouts.teardown:g} seconds"
            self._advance(ending.event, reason=ending.reason + forced)
        self._record = replace(self._record, ended_at=self._clock())

    async def _save(self) -> bool:
        try:
            await self._store.put(self._record)
        except StoreError as exc:
            logger.error(  # noqa: TRY400 - the message names the file; a traceback adds nothing
                "session_not_saved",
                session_id=self._record.session_id,
                state=self._record.state,
                error=str(exc),
            )
            return False
        return True

    def _advance(self, event: Event, *, reason: str | None = None) -> None:
        self._record = replace(
            self._record,
            state=next_state(self._record.state, event),
            reason=reason or self._record.reason,
        )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first plain exception of a group, which may hold groups."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
