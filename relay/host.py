"""The streams of one session, by tag: starting, attaching, resuming, taking over (§ 5)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import structlog
import trio

from relay.attachment import Attachment, Binding
from relay.endpoint import (
    OUTPUT_CHANNELS,
    Channel,
    Endpoint,
    Kind,
    SocketTarget,
    StartError,
    StartRequest,
    UnsupportedKindError,
)
from relay.errors import AttachRefused
from relay.grant import Grant, Mode
from relay.limits import StreamLimits
from relay.passage import Passage, Passages
from relay.protocol.budget import Budget
from relay.protocol.messages import Attach, Attached, Start
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason, Refusal
from relay.protocol.ring import ReplayRing
from relay.protocol.windows import RENEW_BYTES
from relay.requests import resize_to, restarts, socket_target, start_request, wants_screen
from relay.screen import Snapshot
from relay.stream import UNATTENDED_ENDS, Stream, StreamStatistics, exit_message

logger = structlog.get_logger(__name__)

Starter = Callable[[StartRequest], Awaitable[Endpoint]]
"""Starts an endpoint in the session's sandbox; raises StartError."""


@dataclass(slots=True)
class _Starting:
    """A stream that is being started; others who want the same tag wait for it."""

    done: trio.Event
    rings: dict[Channel, ReplayRing]
    stream: Stream | None = None
    refusal: AttachRefused | None = None


class StreamHost:
    """Owns the streams of one session.  Made by `open_stream_host`."""

    def __init__(
        self,
        start: Starter,
        nursery: trio.Nursery,
        limits: StreamLimits,
        budget: Budget,
        desktop: SocketTarget | None = None,
    ) -> None:
        self._start = start
        self._nursery = nursery
        self._limits = limits
        self._budget = budget
        self._desktop = desktop
        self._streams: dict[str, Stream] = {}
        self._starting: dict[str, _Starting] = {}
        self._passages = Passages()
        self._ending: CloseReason | None = None
        self._min_epoch = 0

    # ---------------------------------------------------------------- attaching

    async def attach(self, request: Attach, binding: Binding) -> tuple[Stream, Attachment]:
        """Bind a client to a stream, starting the stream if asked to; answer ATTACHED.

        Raises:
          AttachRefused: no, and why.

        Cancellation: a stream that is being started is started all the same, so that the client
        finds it when it asks again.
        """
        self._check(request, binding)
        stream, started = await self._find_or_start(request, binding)
        self._check(request, binding)  # things may have changed meanwhile
        self._check_target(stream.target, request, binding)
        screen = None
        if wants_screen(stream, request):
            self._check_admissible(stream, request, binding)
            if request.mode is Mode.CONTROL:
                resize_to(stream, request)  # so that the screen fits
            screen = await stream.take_screen()
            self._check(request, binding)
            if self._streams.get(request.tag) is not stream:
                raise AttachRefused(Refusal.GONE, f"stream {request.tag!r} no longer exists")
        attachment, resumed = self._admit(stream, request, binding)
        self._bind(
            stream, attachment, request, binding, started=started, resumed=resumed, screen=screen
        )
        return stream, attachment

    def _check(self, request: Attach, binding: Binding) -> None:
        if self._ending is not None:
            raise AttachRefused(Refusal.ENDING, "the session is ending")
        if not binding.is_open:
            raise AttachRefused(Refusal.GONE, "the client went away")
        grant = binding.grant
        if grant.epoch < self._min_epoch:
            raise AttachRefused(Refusal.FORBIDDEN, "this ticket was revoked; ask for a new one")
        if not grant.allows(request.kind, request.mode, request.tag):
            raise AttachRefused(
                Refusal.FORBIDDEN,
                f"the ticket does not cover {request.mode} of {request.kind} {request.tag!r}",
            )
        if request.policy is Policy.PACE and grant.mode is Mode.VIEW and request.mode is Mode.VIEW:
            raise AttachRefused(
                Refusal.FORBIDDEN,
                "a ticket to view cannot make the stream wait; ask for policy skip or drop",
            )

        if request.start is not None:
            target = socket_target(request, request.start, self._desktop)
            self._check_target(target, request, binding)

    def _check_target(self, target: SocketTarget | None, request: Attach, binding: Binding) -> None:
        if (
            request.mode is Mode.CONTROL
            and binding.grant.mode is Mode.VIEW
            and target is not None
            and target != self._desktop
        ):
            raise AttachRefused(
                Refusal.FORBIDDEN,
                "a ticket to view covers no connection but those to the session's desktop",
            )
        if target is not None and not binding.grant.allows_socket(target):
            raise AttachRefused(
                Refusal.FORBIDDEN,
                f"the ticket does not cover {request.kind} to {target};"
                f" it covers {binding.grant.ports}",
            )

    async def _find_or_start(self, request: Attach, binding: Binding) -> tuple[Stream, bool]:
        """Return the stream, and whether it was started just now."""
        tag = request.tag
        while (starting := self._starting.get(tag)) is not None:
            await starting.done.wait()
        self._forget_expired()
        if tag in self._passages:
            raise AttachRefused(
                Refusal.BUSY, f"{tag!r} is a plain connection, which belongs to its client alone"
            )
        stream = self._streams.get(tag)
        start = request.start
        if stream is not None and not restarts(stream, request):
            if stream.kind is not request.kind:
                raise AttachRefused(Refusal.CONFLICT, f"{tag!r} is of kind {stream.kind}")
            if start is not None and start.command and tuple(start.command) != stream.command:
                raise AttachRefused(Refusal.CONFLICT, f"{tag!r} runs another command")
            if start is not None and socket_target(request, start, self._desktop) != stream.target:
                raise AttachRefused(Refusal.CONFLICT, f"{tag!r} leads to {stream.target}")
            return stream, False
        if request.resume is not None:
            raise AttachRefused(Refusal.GONE, f"stream {tag!r} no longer exists")
        if start is None:
            raise AttachRefused(Refusal.NOT_FOUND, f"there is no stream {tag!r}")
        if request.mode is Mode.VIEW:
            raise AttachRefused(Refusal.FORBIDDEN, "a viewer cannot start a stream")
        if stream is not None:
            self._forget(stream)
        else:
            self._make_place_for_stream()
        starting = self._starting[tag] = _Starting(trio.Event(), self._make_rings(request.kind))
        view_only = binding.grant.mode is Mode.VIEW
        self._nursery.start_soon(self._run_stream, request, start, starting, view_only)
        await starting.done.wait()
        if starting.stream is None:
            raise starting.refusal or AttachRefused(Refusal.ENDING, "the session is ending")
        return starting.stream, True

    def _admit(self, stream: Stream, request: Attach, binding: Binding) -> tuple[Attachment, bool]:
        """Return the attachment, and whether it is one that resumes; settle who has control."""
        self._check_admissible(stream, request, binding)
        known = stream.attachments.get(request.attachment)
        if request.mode is Mode.CONTROL:
            holder = stream.controller
            if holder is not None and holder is not known:
                stream.remove(holder, CloseReason.TAKEN_OVER)
        if known is not None:
            if known.binding is not None:
                known.binding.close(CloseReason.SUPERSEDED)
                known.binding = None
            if request.resume is not None and known.mode is request.mode:
                return known, True
            stream.remove(known, CloseReason.SUPERSEDED)
        self._make_place(stream, request.mode)
        policy = request.policy or (Policy.PACE if request.mode is Mode.CONTROL else Policy.SKIP)
        attachment = Attachment(request.attachment, binding.grant, request.mode, policy)
        attachment.rebase(0, self._limits.input_window)
        stream.attachments[attachment.id] = attachment
        return attachment, False

    def _check_admissible(self, stream: Stream, request: Attach, binding: Binding) -> None:
        """Find out whether `_admit` would take the request; changes nothing."""
        known = stream.attachments.get(request.attachment)
        if known is not None and known.grant.subject != binding.grant.subject:
            raise AttachRefused(Refusal.FORBIDDEN, "this attachment belongs to somebody else")
        if known is not None and request.generation < known.generation:
            raise AttachRefused(Refusal.GONE, "a newer request of this attachment was here")
        if (
            request.mode is Mode.CONTROL
            and binding.grant.mode is Mode.VIEW
            and not stream.view_only
        ):
            raise AttachRefused(
                Refusal.FORBIDDEN,
                "a ticket to view does not cover a connection that can control; open another",
            )
        self._check_resume(stream, request)
        holder = stream.controller
        if (
            request.mode is Mode.CONTROL
            and holder is not None
            and holder is not known
            and holder.binding is not None
            and not request.takeover
        ):
            raise AttachRefused(
                Refusal.BUSY,
                f"{stream.tag!r} is controlled by another client; view it or take over",
            )

    @staticmethod
    def _check_resume(stream: Stream, request: Attach) -> None:
        if request.resume is None:
            return
        if request.resume.stream != stream.name:
            raise AttachRefused(Refusal.GONE, f"{stream.tag!r} is another stream now")
        for channel, offset in request.resume.have.items():
            ring = stream.rings.get(channel)
            if ring is None or offset > ring.end:
                raise AttachRefused(Refusal.BAD_REQUEST, f"offset {offset} was never sent")

    def _make_place(self, stream: Stream, mode: Mode) -> None:
        """Forget the longest gone attachment when there are too many; viewers leave one place."""
        places = self._limits.max_attachments - (mode is Mode.VIEW)
        if len(stream.attachments) < places:
            return
        gone = [
            a
            for a in stream.attachments.values()
            if a.binding is None and (a.mode is Mode.VIEW or mode is Mode.CONTROL)
        ]
        if not gone:
            raise AttachRefused(
                Refusal.LIMIT,
                f"a stream has at most {self._limits.max_attachments} attachments",
            )
        oldest = min(gone, key=lambda a: (a.mode is Mode.CONTROL, a.linger_until))
        stream.remove(oldest, CloseReason.DETACHED)

    def _bind(
        self,
        stream: Stream,
        attachment: Attachment,
        request: Attach,
        binding: Binding,
        *,
        started: bool,
        resumed: bool,
        screen: Snapshot | None,
    ) -> None:
        start: dict[Channel, int] = {}
        for channel, ring in stream.rings.items():
            if request.resume is not None:
                offset = request.resume.have.get(channel, ring.start)
            else:
                offset = ring.end if request.replay == "none" else ring.start
                if screen is not None and channel is Channel.OUTPUT:
                    offset = screen.at
            start[channel] = offset
            attachment.acked[channel] = max(offset, attachment.acked.get(channel, 0))
        if request.resume is not None:
            stream.heard_from(attachment)
        main = stream.rings[Channel.OUTPUT]
        awaited = stream.starter == attachment.id
        live = 0 if awaited or request.resume is not None else main.end
        control = attachment.mode is Mode.CONTROL
        if control:
            stream.controller = attachment
            stream.awaited_until = 0.0
            if not awaited:
                stream.starter = None
        attachment.grant = binding.grant
        attachment.generation = request.generation
        attachment.binding = binding
        attachment.keeps_screen = request.replay == "screen" and stream.kind is Kind.PTY
        gate = attachment.gate
        if not resumed:
            gate = live if control and start[Channel.OUTPUT] < live else None
        elif gate is not None and start[Channel.OUTPUT] >= gate:
            gate = None
        attachment.waits_for_others = stream.holds_input_of_others(attachment)
        window = attachment.next_input_window(gate) if control else None
        answer = Attached(
            stream=stream.name,
            tag=stream.tag,
            kind=stream.kind,
            mode=attachment.mode,
            pid=stream.endpoint.pid,
            started=started or awaited,
            resumed=resumed,
            start=start,
            live=live if gate is None else gate,
            accepted=attachment.input.received,
            credit=window.granted if window is not None else 0,
            signals=attachment.signals,
            stopped=stream.input_stopped,
            screen=screen is not None and start[Channel.OUTPUT] == screen.at,
        )
        binding.accept(
            answer,
            stream.rings,
            request.window,
            window,
            keeps_screen=attachment.keeps_screen and stream.exit is None,
            screen=screen,
        )
        for channel in filter(attachment.ignores, stream.rings):
            binding.stop_output(channel)
        if control:
            resize_to(stream, request)
            if screen is not None and screen.is_patchy:
                stream.ask_to_redraw()
        if stream.exit is not None:
            binding.exit(exit_message(stream.exit))
        if attachment.policy is Policy.DROP and stream.misses(start):
            stream.remove(attachment, CloseReason.TOO_FAR_BEHIND)
        stream.readers_changed()

    # ---------------------------------------------------------------- streams

    async def _run_stream(
        self, request: Attach, start: Start, starting: _Starting, view_only: bool
    ) -> None:
        """Start a stream, run it until it ends and keep it a while; its failure ends nothing else."""
        try:
            target = socket_target(request, start, self._desktop)
            wanted = start_request(request, start, target, view_only=view_only)
            endpoint = await self._start(wanted)
            stream = Stream(
                str(uuid4()), request.tag, wanted, endpoint, self._limits, starting.rings
            )
            stream.starter = request.attachment
            stream.awaited_until = trio.current_time() + self._limits.linger
            self._streams[request.tag] = starting.stream = stream
        except StartError as error:
            unsupported = isinstance(error, UnsupportedKindError)
            code = Refusal.UNSUPPORTED if unsupported else Refusal.START_FAILED
            starting.refusal = AttachRefused(code, str(error))
            return
        except Exception:
            logger.exception("endpoint failed to start", tag=request.tag, kind=request.kind)
            starting.refusal = AttachRefused(
                Refusal.START_FAILED, "an internal error; see the server's log"
            )
            return
        finally:
            del self._starting[request.tag]
            starting.done.set()
            if starting.stream is None:
                _release(starting.rings)
        try:
            await self._run_and_keep(stream)
        finally:
            stream.release()

    async def _run_and_keep(self, stream: Stream) -> None:
        try:
            await stream.run()
        except* Exception as group:
            # One stream's bug must not end the session.
            logger.exception("stream failed", stream=stream.name, exc_info=group)
            stream.close(CloseReason.INTERNAL_ERROR, "the stream failed; see the server's log")
            self._forget(stream)
        if stream.kind in UNATTENDED_ENDS:
            await stream.wait_unattended()
            self._forget(stream)
        while self._streams.get(stream.tag) is stream:
            await trio.sleep(self._limits.retention)
            self._forget_expired()

    def _forget_expired(self) -> None:
        """Forget the streams that ended long ago and that nobody reads."""
        now = trio.current_time()
        for stream in self._ended_and_unread():
            if now >= (stream.ended_at or 0.0) + self._limits.retention:
                self._forget(stream)

    @property
    def _count(self) -> int:
        return len(self._streams) + len(self._starting)

    def _make_place_for_stream(self) -> None:
        """Forget the stream that ended first when there are too many.

        If none has, close the connection that lost its client first.

        Raises:
          AttachRefused: there is none of these.
        """
        if self._count < self._limits.max_streams:
            return
        ended = self._ended_and_unread()
        if not ended:
            ended = self._lost_connections()[:1]  # which ends when it is forgotten
        if not ended:
            raise AttachRefused(
                Refusal.LIMIT, f"a session has at most {self._limits.max_streams} streams"
            )
        self._forget(min(ended, key=lambda stream: stream.ended_at or 0.0))

    def _ended_and_unread(self) -> list[Stream]:
        """Return the ended streams to which nobody is attached, or was until a moment ago."""
        now = trio.current_time()
        return [
            stream
            for stream in self._streams.values()
            if stream.exit is not None
            and not any(a.binding or now < a.linger_until for a in stream.attachments.values())
        ]

    def _lost_connections(self) -> list[Stream]:
        """Return the connections whose clients have been away for long, the first lost first."""
        since = trio.current_time() - self._limits.linger
        lost = [(s.lost_at, s) for s in self._streams.values() if s.lost_at is not None]
        return [s for at, s in sorted(lost, key=lambda item: item[0]) if at <= since]

    def _forget(self, stream: Stream) -> None:
        for attachment in list(stream.attachments.values()):
            behind = attachment.binding is not None and not attachment.binding.is_finished
            stream.remove(attachment, CloseReason.TOO_FAR_BEHIND if behind else CloseReason.EXITED)
        if self._streams.get(stream.tag) is stream:
            del self._streams[stream.tag]
        stream.release()

    def _make_rings(self, kind: Kind) -> dict[Channel, ReplayRing]:
        """Make the rings of a new stream.

        Raises:
          AttachRefused: all streams together hold as much as they may.
        """
        channels = OUTPUT_CHANNELS[kind]
        if self._budget.available < RENEW_BYTES * len(channels):
            raise AttachRefused(
                Refusal.LIMIT, "the server's streams hold as much as they may; end some of them"
            )
        return {
            channel: ReplayRing(
                self._limits.ring_bytes, budget=self._budget, guaranteed=RENEW_BYTES
            )
            for channel in channels
        }

    # ---------------------------------------------------------------- passages

    def open_passage(
        self, grant: Grant, kind: Kind, tag: str, target: SocketTarget
    ) -> Passage | None:
        """Give a plain connection its place among the streams; None if it has to be a stream.

        Raises:
          AttachRefused: no, and why.
        """
        if self._ending is not None:
            raise AttachRefused(Refusal.ENDING, "the session is ending")
        if grant.epoch < self._min_epoch:
            raise AttachRefused(Refusal.FORBIDDEN, "this ticket was revoked; ask for a new one")
        if tag in self._passages:
            raise AttachRefused(Refusal.BUSY, f"{tag!r} is connected already")
        if tag in self._streams or tag in self._starting or grant.mode is Mode.VIEW:
            return None
        if len(self._passages) >= self._limits.max_passages:
            raise AttachRefused(
                Refusal.LIMIT,
                f"a session has at most {self._limits.max_passages} plain connections to ports",
            )
        return self._passages.open(grant, kind, tag, target)

    def close_passage(self, passage: Passage) -> None:
        """Forget a passage that has ended.  Idempotent."""
        self._passages.forget(passage)

    def drain(self) -> None:
        """Close what cannot be told with GOAWAY that the server is going away."""
        self._passages.close(CloseReason.DRAINING)

    # ---------------------------------------------------------------- the end

    def end(self, reason: CloseReason) -> None:
        """Close every attachment with `reason` and refuse new ones."""
        self._ending = reason
        for stream in self._streams.values():
            stream.close(reason)
        self._passages.close(reason)

    def revoke(self, epoch: int) -> None:
        """Close the attachments whose grant is older than `epoch`."""
        self._min_epoch = max(self._min_epoch, epoch)
        self._passages.revoke(epoch)
        for stream in self._streams.values():
            for attachment in list(stream.attachments.values()):
                if attachment.grant.epoch < epoch:
                    stream.remove(attachment, CloseReason.REVOKED)

    def send_signal(self, tag: str, name: str) -> None:
        """Send a signal to the process group of the stream `tag`; nothing if it has ended.

        Raises:
          KeyError: there is no such stream.
          ValueError: there is no such signal.
        """
        if tag in self._passages:
            self._passages[tag].send_signal(name)
        else:
            self._streams[tag].endpoint.send_signal(name)

    def statistics(self) -> tuple[StreamStatistics, ...]:
        """Return a snapshot of every stream."""
        streams = tuple(stream.statistics() for stream in self._streams.values())
        return streams + self._passages.statistics()


def _release(rings: Mapping[Channel, ReplayRing]) -> None:
    for ring in rings.values():
        ring.release()


@asynccontextmanager
async def open_stream_host(
    start: Starter,
    limits: StreamLimits | None = None,
    budget: Budget | None = None,
    desktop: SocketTarget | None = None,
) -> AsyncIterator[StreamHost]:
    """Host the streams of one session; leaving the block ends them all.

    Attachments that are still there are closed with `session_ended` unless `StreamHost.end` gave
    another reason before.  `budget` is shared with the other sessions of the server.
    `desktop` is where `vnc` streams lead that do not say.
    """
    limits = limits or StreamLimits()
    async with trio.open_nursery() as nursery:
        host = StreamHost(start, nursery, limits, budget or Budget(limits.budget_bytes), desktop)
        try:
            yield host
        finally:
            host.end(host._ending or CloseReason.SESSION_ENDED)  # noqa: SLF001 - same module
            nursery.cancel_scope.cancel()
