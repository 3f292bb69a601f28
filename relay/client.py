"""The client's end: attachments that outlive their links.

A trunk dials, attaches, and when the link is lost dials again; its attachments go on at the exact
byte.  How to dial is a function that is passed in, so a fresh ticket can be had for each attempt.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

import trio

from relay.backoff import Backoff
from relay.carrier import Carrier
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.errors import AttachmentClosed, AttachRefused, DialFailed
from relay.link import Link, LinkEnd
from relay.protocol.budget import Budget, BudgetStatistics
from relay.protocol.connection import MAX_STREAMS, BytesReceived, Connection, Event
from relay.protocol.errors import LocalProtocolError
from relay.protocol.messages import Attach, Refused
from relay.protocol.reasons import CloseReason, Refusal
from relay.protocol.windows import MAX_GROWTH
from relay.service_nursery import open_service_nursery
from relay.wakeup import Wakeup

Dial = Callable[[], Awaitable[Carrier]]
"""Opens a carrier.  Raises DialFailed; OSError and trio's errors count as passing trouble."""

DIAL_TIMEOUT = 20.0
"""Seconds that one attempt to dial may take."""
FAREWELL = 5.0
"""Seconds that closing a trunk may take: the last input, DETACH and GOAWAY."""
MAX_RETRY_AFTER = 600.0
"""Seconds; what a server may ask for with `retry_after`."""
STEADY_AFTER = 5.0
"""Seconds after which a link counts as good, so that the next back-off begins anew."""
STEADY_BYTES = 16 * 1024
"""Bytes of streams after which it does, too: where a path cuts every so often, patience with it would
cost more than the cuts do."""

FINAL = frozenset(
    {
        CloseReason.PROTOCOL_ERROR,
        CloseReason.SESSION_ENDED,
        CloseReason.SESSION_STOPPED,
        CloseReason.EXPIRED,
        CloseReason.REVOKED,
        CloseReason.TAKEN_OVER,
        CloseReason.DETACHED,
    }
)
"""Ends of a link after which dialling again cannot help."""


class TrunkState(StrEnum):
    """What a trunk is doing."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class TrunkStatus:
    """What a trunk is doing, for display: why, and in how many seconds it tries again."""

    state: TrunkState
    reason: str = ""
    retry_in: float | None = None


@dataclass(frozen=True, slots=True)
class TrunkStatistics:
    """Counters of a trunk; `round_trip` in seconds.  `growth`: what its windows have grown by."""

    state: TrunkState
    links: int
    attachments: int
    round_trip: float | None
    growth: BudgetStatistics


class Trunk:
    """Attachments over a link that is made again whenever it is lost.  Made by `open_trunk`."""

    def __init__(
        self,
        dial: Dial,
        *,
        software: str,
        give_up_after: float | None,
        observe: Callable[[TrunkStatus], None] | None,
        chance: Callable[[], float],
    ) -> None:
        self._dial = dial
        self._software = software
        self._give_up_after = give_up_after
        self._observe = observe
        self._chance = chance
        self._growth = Budget(MAX_GROWTH)
        self._attachments: dict[str, ClientAttachment] = {}
        self._by_stream: dict[int, ClientAttachment] = {}
        self._link: Link | None = None
        self._links = 0
        self._is_closing = False
        self._error: Exception | None = None
        self._state = TrunkState.CONNECTING
        self._retry_now = Wakeup()
        self._news = trio.lowlevel.ParkingLot()
        self._dialling = trio.CancelScope()

    async def attach(self, options: AttachOptions) -> ClientAttachment:
        """Attach to a stream; returns when the owner has accepted.

        Raises:
          AttachRefused: the owner said no, or `MAX_STREAMS` attachments are open here.
          AttachmentClosed: the trunk is closed, or was given up.
          ValueError: the options are malformed, or the attachment id is in use here.

        Cancellation: gives the attachment up.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        if options.attachment in self._attachments:
            raise ValueError(f"the attachment id {options.attachment!r} is in use")
        if len(self._attachments) >= MAX_STREAMS:
            raise AttachRefused(Refusal.LIMIT, f"at most {MAX_STREAMS} attachments to a trunk")
        attachment = ClientAttachment(options, self._growth)
        self._attachments[options.attachment] = attachment
        if self._link is not None:
            self._bind(attachment, self._link)
        accepted = False
        try:
            await attachment.wait_attached()
            accepted = True
        finally:
            if not accepted:
                self.detach(attachment)
        return attachment

    async def wait_connected(self) -> None:
        """Wait until there is a link, which there may not be any more a moment later.

        Raises:
          AttachmentClosed: the trunk is closed, or was given up.

        Cancellation: safe.
        """
        await trio.lowlevel.checkpoint()
        while self._link is None:
            if self._error is not None:
                raise self._error.with_traceback(None)
            await self._news.park()

    async def wait_over(self) -> NoReturn:
        """Wait until the trunk is closed or was given up, and raise why.

        Raises:
          AttachmentClosed: always.

        Cancellation: safe.
        """
        await trio.lowlevel.checkpoint()
        while self._error is None:
            await self._news.park()
        raise self._error.with_traceback(None)

    def detach(self, attachment: ClientAttachment) -> None:
        """Give an attachment up; input that there is credit for goes first."""
        attachment.detach()
        self._forget(attachment)

    def retry_now(self) -> None:
        """Do not wait any longer for the next attempt."""
        self._retry_now.set()

    def statistics(self) -> TrunkStatistics:
        """Return a snapshot."""
        link = self._link
        return TrunkStatistics(
            state=self._state,
            links=self._links,
            attachments=len(self._attachments),
            round_trip=link.connection.round_trip if link else None,
            growth=self._growth.statistics(),
        )

    # ---------------------------------------------------------------- running

    async def run(self) -> None:
        """Keep a link up until the trunk is closed or given up."""
        backoff = Backoff()
        lost_at = trio.current_time()
        while True:
            self._show(TrunkStatus(TrunkState.CONNECTING))
            end = await self._one_link()
            now = trio.current_time()
            if end.seconds > 0:
                lost_at = now
            if end.seconds >= STEADY_AFTER or end.moved >= STEADY_BYTES:
                backoff.reset()
            if self._has_closed():
                break
            if end.final:
                self._fail(AttachmentClosed(end.reason, end.message))
                return
            if self._give_up_after is not None and now - lost_at >= self._give_up_after:
                message = f"no connection for {self._give_up_after:.0f} s: {end.message}"
                self._fail(AttachmentClosed(CloseReason.CONNECTION_LOST, message))
                return
            if end.retry_after is None:
                delay = backoff.next_delay(self._chance())
            else:
                delay = min(end.retry_after, MAX_RETRY_AFTER)
            self._show(TrunkStatus(TrunkState.WAITING, end.message or end.reason, delay))
            with trio.move_on_after(delay):
                await self._retry_now.wait()
            if self._has_closed():
                break
        self._show(TrunkStatus(TrunkState.CLOSED))

    def _has_closed(self) -> bool:
        return self._is_closing  # a method, because it changes while `run` waits

    async def _one_link(self) -> _Outcome:
        """Dial and run one link to its end."""
        try:
            with trio.fail_after(DIAL_TIMEOUT) as self._dialling:
                carrier = await self._dial()
        except DialFailed as error:
            return _Outcome(error.reason, str(error), final=error.permanent)
        except (OSError, trio.BrokenResourceError) as error:
            return _Outcome(CloseReason.CONNECTION_LOST, str(error))
        except trio.TooSlowError:
            return _Outcome(CloseReason.CONNECTION_LOST, "the server does not answer")
        link = Link(carrier, Connection(dialer=True, software=self._software))
        began = trio.current_time()
        self._links += 1
        try:
            self._link = link
            for attachment in list(self._attachments.values()):
                self._bind(attachment, link)
            self._show(TrunkStatus(TrunkState.CONNECTED))
            end = await link.run(self._handle)
        finally:
            self._link = None
            self._by_stream.clear()
            for attachment in self._attachments.values():
                attachment.unbind()
        counters = link.connection.statistics()
        return _Outcome.of(
            end,
            seconds=max(trio.current_time() - began, 1e-9),
            moved=counters.data_sent + counters.data_received,
        )

    def _bind(self, attachment: ClientAttachment, link: Link) -> None:
        if attachment.is_over:
            return
        try:
            stream_id = attachment.bind(link)
        except LocalProtocolError as error:  # attachments on their way out still have their places
            attachment.fail(AttachRefused(Refusal.LIMIT, str(error)))
            self._forget(attachment)
        else:
            self._by_stream[stream_id] = attachment

    def _forget(self, attachment: ClientAttachment) -> None:
        if self._attachments.get(attachment.options.attachment) is attachment:
            del self._attachments[attachment.options.attachment]
        if self._by_stream.get(attachment.stream_id) is attachment:
            del self._by_stream[attachment.stream_id]

    def _handle(self, event: Event) -> None:
        attachment = self._by_stream.get(event.stream)
        if attachment is None:
            if not isinstance(event, BytesReceived) and isinstance(event.message, Attach):
                self._refuse(event.stream)
        elif isinstance(event, BytesReceived):
            attachment.received_bytes(event)
        else:
            attachment.received(event)
            if attachment.is_over:
                self._forget(attachment)

    def _refuse(self, stream_id: int) -> None:
        """Answer an owner that wants to attach to something of ours."""
        if self._link is not None:
            refused = Refused(code=Refusal.UNSUPPORTED, message="a client has no streams")
            self._link.connection.refuse(stream_id, refused)

    def _show(self, status: TrunkStatus) -> None:
        self._state = status.state
        self._news.unpark_all()
        if self._observe is not None:
            self._observe(status)

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._show(TrunkStatus(TrunkState.CLOSED, str(error)))
        for attachment in list(self._attachments.values()):
            attachment.fail(error)
        self._attachments.clear()

    def close(self) -> None:
        """Detach everything; `run` says goodbye and returns."""
        self._is_closing = True
        for attachment in list(self._attachments.values()):
            self.detach(attachment)
        self._dialling.cancel()
        if self._link is not None:
            self._link.close(CloseReason.DETACHED)
        self._error = self._error or AttachmentClosed(CloseReason.DETACHED, "the trunk is closed")
        self._retry_now.set()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one attempt ended; `seconds` is how long there was a link, `moved` bytes of streams."""

    reason: CloseReason
    message: str
    final: bool = False
    retry_after: float | None = None
    seconds: float = 0.0
    moved: int = 0

    @classmethod
    def of(cls, end: LinkEnd, *, seconds: float, moved: int) -> _Outcome:
        return cls(
            reason=end.reason,
            message=end.message,
            final=end.reason in FINAL,
            retry_after=end.retry_after,
            seconds=seconds,
            moved=moved,
        )


@asynccontextmanager
async def open_trunk(
    dial: Dial,
    *,
    software: str = "trunkline",
    give_up_after: float | None = 600.0,
    observe: Callable[[TrunkStatus], None] | None = None,
    chance: Callable[[], float] = random.random,
) -> AsyncIterator[Trunk]:
    """Open a trunk that lives as long as the ``async with`` block.

    `give_up_after` is how many seconds without a connection are borne (None: any number).
    `observe` is told of every change of state.  `chance` gives the random numbers for the jitter.

    Cancellation: attachments are given up and the server is told, within `FAREWELL` seconds.
    """
    trunk = Trunk(
        dial, software=software, give_up_after=give_up_after, observe=observe, chance=chance
    )
    # Cancelling the block must not keep the trunk from saying goodbye, so it runs under a shield of
    # its own, whose deadline begins when the block ends.
    serving = trio.CancelScope(shield=True)

    async def serve() -> None:
        with serving:
            await trunk.run()

    async with open_service_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            yield trunk
        finally:
            trunk.close()
            serving.deadline = trio.current_time() + FAREWELL
