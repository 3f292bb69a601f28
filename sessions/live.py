"""One live session: its task, its sandboxes, its record.

Theory of operation.  `LiveSession.run` is the only task of a session.  Others speak to it through
`end`, which never waits: the *first* cause given decides how the session ends, and everything later
is ignored.  The task then leaves the host's ``open_session`` block, which ends every process, writes
the last record and sets `finished`.  Nothing but a cancellation from outside ever leaves `run`: an
error of one session is its own.

Rounds.  A session that is stopped and started has several sandboxes, one after the other; each is a
`Round`.  `stop` and `start` change the state at once and wait for the round to get there: `started`
is set once it runs, or never will; `over` once nothing of it is left.  Between two rounds the task
waits for either.  A round that fails is the end of the session, unless it is a start after a stop:
then the session is stopped again.

One cancel scope surrounds a round, the making of the sandbox included.  (A scope around the
*entry* of ``open_session`` alone would be closed while a nursery opened inside it lives on, which
Trio forbids.)  Its deadline has three meanings, one after the other: while the sandbox is being
made, the time that may take; while it runs, none; while it ends, the time that may take before the
host is cancelled, which makes it use force.

Two clocks.  The time to live runs on Trio's clock, which is monotonic: setting the wall clock
neither ends a session nor lengthens it, and time during which the machine is suspended does not
count.  The times in the record are of the wall clock and are promises (`expires_at`) or testimony
(`ended_at`); after a suspend, a session may be alive past its `expires_at`.
"""

from __future__ import annotations

from dataclasses import replace

import structlog
import trio

from auth.clock import Clock
from relay.protocol.reasons import CloseReason
from runtimes.base import HostedSession, SandboxError, SandboxSpec, SessionHost, UnknownSession
from sessions.endings import ENDINGS, STOPPED, Cause, Timeouts
from sessions.errors import (
    CannotPause,
    CannotStop,
    NotRunning,
    SessionFailed,
    ShuttingDown,
)
from sessions.record import SessionRecord
from sessions.round import Round
from sessions.state import RESTING, Event, State, next_state
from sessions.store import RecordStore, StoreError

__all__ = ["ENDINGS", "Cause", "LiveSession", "Timeouts"]

logger = structlog.get_logger()

SAVE_SECONDS = 10.0
"""How long the writing of the last record may take, in the face of cancellation."""


_LOOKS_AT_USE = 10
"""How often it is looked, within the time that a session may be idle, whether it is."""

_HOME_REMOVERS = frozenset({Cause.TERMINATED, Cause.EXPIRED})
"""The ends after which nobody comes back for the home of a stopped session."""


class LiveSession:
    """A session between the request for it and its end.  `run` does everything.

    A `record` that is `stopped` is one that an earlier life of the server has left.
    """

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
        self._round = Round(restarts=record.state is State.STOPPED)
        self._hosted: HostedSession | None = None
        self._cause: Cause | None = None
        self._failure: str | None = None
        self._rests = False
        self._home_to_remove = False
        self._home_left: str | None = None
        self._saved = record.state is State.STOPPED
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
    def _shutting_down(self) -> bool:
        return self._cause is Cause.SHUTDOWN

    @property
    def saved(self) -> bool:
        """Whether the last record reached the store."""
        return self._saved

    def end(self, cause: Cause) -> None:
        """Begin to end the session; does nothing when it is ending already.

        One that rests stays `stopped` when the server shuts down.
        """
        if self._cause is not None or self._record.ended:
            return
        self._cause = cause
        state = self._record.state
        self._rests = cause is Cause.SHUTDOWN and state in RESTING
        self._home_to_remove = cause in _HOME_REMOVERS and state in RESTING
        if not self._rests:
            self._advance(Event.END, reason=ENDINGS[cause].reason)
        unmade = state in (State.PENDING, State.STARTING)
        self._round.end(self._timeouts.teardown, unmade=unmade)
        self._round.left.set()

    async def stop(self) -> None:
        """End everything in the session but its record and its home; idempotent.

        Returns once nothing of it is left.  One that is being made is made first, one that is
        being started again is given up.  The time to live runs on.

        Raises:
          CannotStop: its home would be lost.
          NotRunning: the session is ending or has ended.
          StoreError: it took effect, but the record could not be written.

        Cancellation: the session is stopped all the same.
        """
        if (obstacle := self._why_no_stop()) is not None:
            raise CannotStop(obstacle)
        while (state := self._record.state) is not State.STOPPED:
            round_ = self._round
            if self._record.ended or state is State.TERMINATING:
                raise NotRunning(state)
            if state is State.PENDING:
                await self.started.wait()
                continue
            if state is not State.STOPPING:
                self._advance(Event.STOP, reason=STOPPED.reason)
                round_.end(self._timeouts.teardown, unmade=state is State.STARTING)
            await round_.over.wait()
            if self._round is not round_:  # it was stopped, and somebody has started it since
                return
        if not self._saved:
            await self._store.put(self._record)
            self._saved = self._record.state is State.STOPPED
        else:
            await trio.lowlevel.checkpoint()

    async def start(self) -> None:
        """Make another sandbox for the home of a stopped session; idempotent.

        Returns once the session runs.  One that is being stopped is stopped first.

        Raises:
          SessionFailed: the sandbox could not be made; the session is still stopped.
          NotRunning: the session is paused, is ending or has ended, or was stopped meanwhile.
          ShuttingDown: the server is going away.

        Cancellation: the session is started all the same.
        """
        while (state := self._record.state) is State.STOPPING and self._cause is None:
            await self._round.over.wait()
        if self._shutting_down:
            raise ShuttingDown
        if state is State.STOPPED:
            self._begin_again()
        elif state not in (State.PENDING, State.STARTING, State.RUNNING):
            raise NotRunning(state)
        round_ = self._round
        await round_.started.wait()
        if round_.restarts and round_.failure is not None and self._cause is None:
            raise SessionFailed(round_.failure)
        if self._shutting_down:
            raise ShuttingDown
        if self._record.state is not State.RUNNING:
            raise NotRunning(self._record.state)

    def _begin_again(self) -> None:
        before, self._round = self._round, Round(restarts=True)
        self._advance(Event.START, reason="")
        self._saved = False
        before.left.set()

    def _why_no_stop(self) -> str | None:
        profile, runtime = self._record.profile, self._record.runtime
        if not self._host.keeps_homes(runtime):
            return (
                f"the runtime {runtime!r} keeps no homes, so nothing would be left to start again:"
                f' set runtime = "bubblewrap" or "container" and keep_home = true in'
                f" [profiles.{profile}], and make another session"
            )
        if not self._spec.keep_home:
            return (
                f"the profile {profile!r} keeps no homes, so nothing would be left to start again:"
                f" set keep_home = true in [profiles.{profile}], and make another session"
            )
        return None

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
            hosted = self._hosted
            if self._record.state is not before or hosted is None:
                raise NotRunning(self._record.state)
            try:
                await (hosted.pause() if event is Event.PAUSE else hosted.resume())
            except SandboxError as error:
                raise CannotPause(str(error)) from error
            if self._record.state is not before or self._hosted is not hosted:  # it ended meanwhile
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
        """Make the sandbox, keep it until its time has come, end it; again after each start.

        Cancellation: ends the session by force, and leaves an honest record.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._expire)
                await self._run_rounds()
                if self._home_to_remove and self._failure is None:
                    await self._remove_home()
                nursery.cancel_scope.cancel()
        finally:
            self._conclude()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SAVE_SECONDS):
                self._saved = await self._save()
            for event in (self._round.started, self._round.over, self.started, self.finished):
                event.set()

    async def _run_rounds(self) -> None:
        while True:
            round_ = self._round
            if self._cause is not None and (round_.restarts or round_.over.is_set()):
                return
            if self._record.state is not State.STOPPED:
                await self._run_round(round_)
                if not self._come_to_rest(round_):
                    return
                with trio.move_on_after(SAVE_SECONDS) as scope:
                    self._saved = await self._save()
                if scope.cancelled_caught:
                    self._saved = False
            round_.started.set()
            round_.over.set()
            self.started.set()
            await round_.left.wait()

    def _come_to_rest(self, round_: Round) -> bool:
        """Bring the record to rest after a round; return whether there may be another.

        Where the session does not rest, its failure is known afterwards, if there was one.
        """
        failed = round_.failure is not None
        unstarted = round_.restarts and not round_.started.is_set()
        if (self._cause is not None and not self._rests) or (failed and not unstarted):
            self._failure = round_.failure
            return False
        if self._record.state not in RESTING:  # it ran, but its record could not be written
            self._advance(Event.STOP)
        reason = STOPPED.reason
        if failed:
            reason = f"could not be started again: {round_.failure}"
        elif round_.scope.cancelled_caught and not round_.given_up:
            reason += self._by_force()
        self._advance(Event.HALTED, reason=reason)
        return not self._rests

    async def _run_round(self, round_: Round) -> None:
        round_.scope.deadline = trio.current_time() + self._timeouts.start
        try:
            with round_.scope:
                async with trio.open_nursery() as nursery:
                    if self._idle_timeout is not None:
                        nursery.start_soon(self._watch_use, round_, self._idle_timeout)
                    await self._live(round_)
                    nursery.cancel_scope.cancel()
        except* SandboxError as group:
            round_.failure = str(_first(group))
        except* StoreError as group:
            round_.failure = f"its record could not be written: {_first(group)}"
        except* Exception as group:
            round_.failure = "an internal error; the server's log says more"
            logger.exception(
                "session_broke", session_id=self._record.session_id, error=repr(_first(group))
            )
        finally:
            self._hosted = None
        if round_.scope.cancelled_caught and not round_.ending.is_set():
            round_.failure = f"it did not start within {self._timeouts.start:g} seconds"

    async def _live(self, round_: Round) -> None:
        await self._store.put(self._record)
        async with self._host.open_session(self._spec) as hosted:
            self._hosted = hosted
            if not round_.ending.is_set():
                round_.scope.deadline = float("inf")
                self._advance(Event.READY)
                if self._record.epoch:  # what was revoked while there was no sandbox
                    hosted.revoke(self._record.epoch)
                try:
                    await self._store.put(self._record)
                    round_.started.set()
                    self.started.set()
                    await round_.ending.wait()
                finally:
                    # Cancelled from outside, no cause is known yet: the server is going away.
                    # (A host that breaks cancels this too; it knows better what to tell clients.)
                    hosted.end(self._close_reason())
                await self._save()

    def _close_reason(self) -> CloseReason:
        if self._record.state is State.STOPPING:
            return STOPPED.close_reason
        return ENDINGS[self._cause or Cause.SHUTDOWN].close_reason

    async def _remove_home(self) -> None:
        """Remove the home of a stopped session that has ended, or know why it is still there."""
        self._home_left = "removing it was broken off"
        with trio.move_on_after(self._timeouts.teardown):
            try:
                await self._host.remove_home(self._spec)
            except SandboxError as error:
                self._home_left = str(error)
            except Exception:
                self._home_left = "an internal error; the server's log says more"
                logger.exception("home_removal_broke", session_id=self._record.session_id)
            else:
                self._home_left = None
                return
        logger.warning("home_left", session_id=self._record.session_id, error=self._home_left)

    async def _expire(self) -> None:
        await trio.sleep_until(self._deadline)
        self.end(Cause.EXPIRED)

    async def _watch_use(self, round_: Round, timeout: float) -> None:
        """End the session once nothing went in or out of an attachment for `timeout` seconds."""
        await round_.started.wait()
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
        """Bring the record to a state that is true without this server."""
        state = self._record.state
        if state in RESTING and self._failure is None and (self._cause is None or self._rests):
            if state is not State.STOPPED:
                self._advance(Event.HALTED, reason=STOPPED.reason)
            return
        if self._failure is not None:
            happened = "" if self._cause is None else f"{ENDINGS[self._cause].reason}, but "
            if self._cause is None and state is State.STOPPING:
                happened = f"{STOPPED.reason}, but "
            self._advance(Event.FAIL, reason=happened + self._failure)
        else:
            if self._cause is None:
                self._cause = Cause.SHUTDOWN
                self._advance(Event.END)
            round_, forced = self._round, ""
            if round_.scope.cancelled_caught and not round_.given_up and not round_.over.is_set():
                forced = self._by_force()
            left = "" if self._home_left is None else f"; its home was left: {self._home_left}"
            ending = ENDINGS[self._cause]
            self._advance(ending.event, reason=f"{ending.reason}{forced}{left}")
        self._record = replace(self._record, ended_at=self._clock())

    def _by_force(self) -> str:
        return f"; by force, after {self._timeouts.teardown:g} seconds"

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
            reason=self._record.reason if reason is None else reason or None,
        )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first plain exception of a group, which may hold groups."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
