"""A stream at its owner: an endpoint, a replay ring per output channel, and its readers.

Theory of operation
-------------------

One task per output channel moves bytes from the endpoint into the channel's ring.  Readers are not
written to: each has a cursor on the ring (`relay.protocol.sender`) and its link pulls when it can
take more.  So no reader waits for another, and the only question is when the ring may drop bytes:

* A reader that paces holds the *floor* at the offset it has acknowledged; bytes at or above the
  floor are not dropped.  When there is no room above it, the channel's task does not append, and
  therefore does not read: back-pressure reaches the process.
* With no such reader, `drop_oldest` has no floor, and `block` has it where delivery ended.

Bytes are read first and appended as far as there is room, because the floor can move down while the
read is waiting (a reader that comes back).  One piece per channel is held meanwhile.  It is appended
in parts rather than whole, so that a reader always gets a full ring: it acknowledges less often the
less it gets.

A `file` stream is one request of one client: when nobody is attached and nobody is waited for any
more, it is hung up.

Input goes the other way through one queue, which one task empties into the endpoint.  What each
attachment may have in it is bounded by its window; credit comes back as the process takes bytes.

The exit status is told when the process has ended *and* every output channel has; so it follows the
last byte.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog
import trio

from relay.attachment import Attachment, AttachmentStatistics
from relay.carrier import Buffer
from relay.endpoint import (
    Channel,
    Endpoint,
    ExitStatus,
    InputRefusedError,
    Kind,
    Overflow,
    StartRequest,
    TerminalSize,
)
from relay.limits import StreamLimits
from relay.protocol.messages import Exit
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason
from relay.protocol.ring import ReplayRing, RingStatistics
from relay.screen import ScreenKeeper, ScreenStatistics, Snapshot
from relay.screen.log import TerminalLog
from relay.wakeup import Wakeup

JOINED_BYTES = 64 * 1024
"""The size up to which pieces of input are joined."""
CONNECTIONS = frozenset({Kind.TCP, Kind.VNC})
UNATTENDED_ENDS = frozenset({Kind.FILE}) | CONNECTIONS
"""Kinds of stream that end when their client has left for good: nobody else has a use for them."""
CLOSING = 10.0
"""Seconds that closing an endpoint may take before it is left to its runtime."""

SCREEN_INTERVAL = 0.25
"""Seconds between two screens for readers that are left behind, at least."""
SCREEN_SHARE = 10
"""How many times as long as a screen took there is none: so much of the time is for the bytes."""

GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL for a process whose time is over."""

logger = structlog.get_logger(__name__)


class StreamState(StrEnum):
    """What the process behind a stream is doing."""

    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """A snapshot of one stream; sizes in bytes, `age` in seconds since its start."""

    name: str
    tag: str
    kind: Kind
    state: StreamState
    command: tuple[str, ...]
    pid: int | None
    age: float
    exit: ExitStatus | None
    rings: Mapping[Channel, RingStatistics]
    input_waiting: int
    attachments: tuple[AttachmentStatistics, ...]
    screen: ScreenStatistics | None = None


class Stream:
    """One endpoint and those attached to it.  `run` must be running."""

    def __init__(
        self,
        name: str,
        tag: str,
        request: StartRequest,
        endpoint: Endpoint,
        limits: StreamLimits,
        rings: Mapping[Channel, ReplayRing],
    ) -> None:
        self.name = name
        self.tag = tag
        self.kind = kind = request.kind
        self.command = request.command
        self.target = request.socket
        self.view_only = request.view_only
        self.endpoint = endpoint
        self.started_at = trio.current_time()
        self.rings = rings
        self.exit: ExitStatus | None = None
        self.ended_at: float | None = None
        self.attachments: dict[str, Attachment] = {}
        self.controller: Attachment | None = None
        self.input_stopped = False
        self.starter: str | None = None
        """The attachment whose request started this, until its client is known to have the answer.

        Until then another ATTACH of its can only be the same request, sent again after a cut.
        """
        self.awaited_until = 0.0
        """Until when to wait for the client that had it started, which may have been cut off
        before it was attached (trio's clock)."""
        default = Overflow.DROP_OLDEST if kind is Kind.PTY else Overflow.BLOCK
        self._overflow = request.overflow or default
        self._timeout = request.timeout
        self._limits = limits
        self._linger = limits.connection_linger if kind in CONNECTIONS else limits.linger
        self._delivered = dict.fromkeys(self.rings, 0)
        self._input: deque[tuple[Attachment, bytearray | None]] = deque()  # None: end of input
        self._input_waiting = 0
        self._input_wakeup = Wakeup()
        self._room = trio.lowlevel.ParkingLot()
        self._attendance = trio.lowlevel.ParkingLot()
        self._log = TerminalLog(request.size) if kind is Kind.PTY else None
        self._screen: ScreenKeeper | None = None
        self._screen_wanted = Wakeup()

    @property
    def state(self) -> StreamState:
        """Whether the process has ended and its output with it."""
        return StreamState.RUNNING if self.exit is None else StreamState.ENDED

    async def run(self) -> None:
        """Move bytes until the process has ended; then close the endpoint.

        Cancellation: closes the endpoint at once, under a deadline.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_input)
                if self._timeout is not None:
                    nursery.start_soon(self._end_after, self._timeout)
                if self.kind in UNATTENDED_ENDS:
                    nursery.start_soon(self._hang_up_when_unattended)
                if self._log is not None:
                    nursery.start_soon(self._show_screens)
                async with trio.open_nursery() as readers:
                    for channel in self.rings:
                        readers.start_soon(self._read_output, channel)
                self._ended(await self.endpoint.wait())
                nursery.cancel_scope.cancel()
        finally:
            self._forgo_screens()
            with trio.move_on_after(CLOSING, shield=True) as scope:
                await self.endpoint.aclose()
            if scope.cancelled_caught:
                logger.error("endpoint does not close", stream=self.name, pid=self.endpoint.pid)

    async def _end_after(self, seconds: float) -> None:
        """Ask the process to end when its time is over, then make it."""
        await trio.sleep(seconds)
        logger.info("time is over", stream=self.name, tag=self.tag, seconds=seconds)
        self.endpoint.send_signal("TERM")
        await trio.sleep(GRACE)
        self.endpoint.send_signal("KILL")

    async def _hang_up_when_unattended(self) -> None:
        await self.wait_unattended()
        self.endpoint.send_signal("HUP")

    async def wait_unattended(self) -> None:
        """Wait until nobody is attached and nobody is waited for.  Cancellation: safe."""
        while (until := self._attended_until()) > trio.current_time():
            with trio.move_on_at(until):
                await self._attendance.park()

    def _attended_until(self) -> float:
        attachments = self.attachments.values()
        if any(attachment.binding is not None for attachment in attachments):
            return math.inf
        return max((a.linger_until for a in attachments), default=self.awaited_until)

    @property
    def lost_at(self) -> float | None:
        """When a connection lost its last client, which may still come back; None if it has one."""
        if self.kind not in CONNECTIONS or not self.attachments:
            return None
        until = self._attended_until()
        return None if until == math.inf else until - self._linger

    # ---------------------------------------------------------------- output

    async def _read_output(self, channel: Channel) -> None:
        ring = self.rings[channel]
        try:
            while data := await self.endpoint.receive(channel, self._limits.read_bytes):
                rest = memoryview(data)
                while rest:
                    room = await self._wait_for_room(channel)
                    self._note_dropped(ring, min(room, len(rest)))
                    ring.append(rest[:room])
                    rest = rest[room:]
                    self._appended(channel)
        except trio.BrokenResourceError:
            # STOP goes before FIN, so the client knows to wait for EXIT, which says that it broke.
            self._stop_input()
        ring.finished = True
        self._appended(channel)

    async def _wait_for_room(self, channel: Channel) -> int:
        """Wait until the ring can take bytes; return how many."""
        while (room := self.rings[channel].room(self._floor(channel))) <= 0:
            with trio.move_on_at(self._next_linger_end()):
                await self._room.park()
        return room

    def _floor(self, channel: Channel) -> int:
        """Return the offset below which bytes may be dropped."""
        ring = self.rings[channel]
        now = trio.current_time()
        floors = [
            attachment.acked.get(channel, 0)
            for attachment in self.attachments.values()
            if attachment.paces(now)
        ]
        if now < self.awaited_until:
            floors.append(0)
        if floors:
            return min(floors)
        if self._overflow is Overflow.BLOCK and self.kind not in UNATTENDED_ENDS:
            return self._delivered[channel]
        return ring.end

    def _next_linger_end(self) -> float:
        now = trio.current_time()
        ends = [self.awaited_until, *(a.linger_until for a in self.attachments.values())]
        return min((end for end in ends if end > now), default=math.inf)

    def _appended(self, channel: Channel) -> None:
        start = self.rings[channel].start
        for attachment in list(self.attachments.values()):
            binding = attachment.binding
            if binding is None:
                continue
            if attachment.policy is Policy.DROP:
                sender = binding.senders.get(channel)
                if sender is not None and sender.window.sent < start:
                    self.remove(attachment, CloseReason.TOO_FAR_BEHIND)
                    continue
            binding.wake(channel)
            if attachment.keeps_screen and binding.needs_screen:
                self._screen_wanted.set()

    def heard_from(self, attachment: Attachment) -> None:
        """Note that the client of an attachment knows that it is attached."""
        if self.starter == attachment.id:
            self.starter = None

    def misses(self, start: Mapping[Channel, int]) -> bool:
        """Tell whether bytes are gone that a reader who begins at `start` would need."""
        return any(offset < self.rings[channel].start for channel, offset in start.items())

    def acknowledged(self, channel: Channel, attachment: Attachment) -> None:
        """Take note that a reader has moved; a channel that waits for room may go on."""
        if channel in self._delivered:
            acked = min(attachment.acked.get(channel, 0), self.rings[channel].end)
            self._delivered[channel] = max(self._delivered[channel], acked)
            self._room.unpark_all()
        if attachment.keeps_screen and attachment.binding and attachment.binding.needs_screen:
            self._screen_wanted.set()

    def readers_changed(self) -> None:
        """Say that attachments have come or gone: the floor may be elsewhere."""
        self._room.unpark_all()
        self._attendance.unpark_all()

    def unbind(self, attachment: Attachment) -> None:
        """The link of an attachment is gone: wait for the client to come back, for a while."""
        attachment.unbind(trio.current_time() + self._linger)
        self.readers_changed()

    def remove(self, attachment: Attachment, reason: CloseReason, message: str = "") -> None:
        """Forget an attachment, closing it if it has a link."""
        attachment.close(reason, message)
        if self.attachments.get(attachment.id) is attachment:
            del self.attachments[attachment.id]
        if self.controller is attachment:
            self.controller = None
        self.readers_changed()

    # ---------------------------------------------------------------- screens

    @property
    def size(self) -> TerminalSize | None:
        """The terminal's size, where there is a terminal."""
        return self._log.size if self._log is not None else None

    def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size; nothing where there is no terminal."""
        if self._log is not None:
            self._log.resized(self.rings[Channel.OUTPUT].end, size)
        self.endpoint.resize(size)

    def ask_to_redraw(self) -> None:
        """Have a full-screen program draw everything anew, as it does when the size changes."""
        size = self.size
        if size is not None:
            other = size.rows - 1 if size.rows > 1 else 2
            self.endpoint.resize(TerminalSize(size.columns, other))
            self.endpoint.resize(size)

    async def take_screen(self) -> Snapshot | None:
        """Return the terminal's screen, at an offset that the ring has; None if there is none.

        Cancellation: safe.
        """
        if self._log is None:
            return None
        if self._screen is None:
            self._screen = ScreenKeeper(self.rings[Channel.OUTPUT], self._log)
        return await self._screen.snapshot()

    def _note_dropped(self, ring: ReplayRing, appended: int) -> None:
        """Have the bytes looked at that the ring drops when `appended` more come."""
        if self._log is not None:
            dropped = appended - ring.room(ring.start)
            if dropped > 0:
                self._log.dropping(ring.read(ring.start, dropped))

    async def _show_screens(self) -> None:
        """Give a screen, all of them the same, to the readers from whom the ring has run away."""
        while True:
            await self._screen_wanted.wait()
            began = trio.current_time()
            screen = await self.take_screen()
            for attachment in self.attachments.values():
                if attachment.binding is not None and attachment.binding.needs_screen:
                    attachment.binding.show(screen)
            seconds = trio.current_time() - began
            await trio.sleep(max(SCREEN_INTERVAL, SCREEN_SHARE * seconds))

    def _forgo_screens(self) -> None:
        """Nobody makes screens any more: let those who wait for one have the GAP alone."""
        for attachment in self.attachments.values():
            if attachment.binding is not None and attachment.binding.needs_screen:
                attachment.binding.show(None)
            attachment.keeps_screen = False

    # ---------------------------------------------------------------- input

    def receive_input(self, attachment: Attachment, data: Buffer | None) -> None:
        """Queue input (None: its end) for the process; never waits, windows bound it.

        Small pieces are joined: a window bounds the bytes, joining bounds the objects.
        """
        if self.input_stopped:
            if data is not None:
                attachment.consumed_input(len(data), trio.current_time())
            return
        if data is not None:
            self._input_waiting += len(data)
            whose, last = self._input[-1] if self._input else (None, None)
            if whose is attachment and last is not None and len(last) + len(data) <= JOINED_BYTES:
                last += data
                return
        elif self.kind is Kind.PTY or any(waiting is None for _, waiting in self._input):
            return  # a terminal's input has no end, and any other has one only
        self._input.append((attachment, None if data is None else bytearray(data)))
        self._input_wakeup.set()

    async def _write_input(self) -> None:
        while not self.input_stopped:
            while not self._input:
                await self._input_wakeup.wait()
            attachment, data = self._input.popleft()
            try:
                if data is not None:
                    await self.endpoint.send(data)
                else:
                    await self.endpoint.send_eof()
                    self._stop_input()
            except trio.BrokenResourceError:
                self._stop_input()
            except InputRefusedError as refusal:
                self._refuse_input(str(refusal))
            if data is not None:
                self._consumed_input(attachment, len(data))

    def _refuse_input(self, message: str) -> None:
        logger.warning("input refused", stream=self.name, tag=self.tag, reason=message)
        self._stop_input()
        self.close(CloseReason.PROTOCOL_ERROR, message)
        self.endpoint.send_signal("KILL")

    def _consumed_input(self, attachment: Attachment, count: int) -> None:
        self._input_waiting -= count
        now = trio.current_time()
        attachment.consumed_input(count, now)
        controller = self.controller
        if (
            controller is not None
            and controller.waits_for_others
            and not self.holds_input_of_others(controller)
        ):
            controller.waits_for_others = False
            controller.renew_input(now)

    def holds_input_of_others(self, attachment: Attachment) -> bool:
        """Tell whether the process has yet to take input that is not from `attachment`."""
        own = attachment.input.received - attachment.input.consumed
        return self._input_waiting > own

    def _stop_input(self) -> None:
        """Nobody reads the input any more: discard what waits, and say so."""
        self.input_stopped = True
        waiting = list(self._input)
        self._input.clear()
        for attachment, data in waiting:
            if data is not None:
                self._consumed_input(attachment, len(data))
        if self.controller is not None and self.controller.binding is not None:
            self.controller.binding.stop_input()

    # ---------------------------------------------------------------- the end

    def _ended(self, status: ExitStatus) -> None:
        self.exit = status
        self.ended_at = trio.current_time()
        if not self.input_stopped:
            self._stop_input()
        for attachment in self.attachments.values():
            if attachment.binding is not None:
                attachment.binding.exit(exit_message(status))

    def close(self, reason: CloseReason, message: str = "") -> None:
        """Close every attachment; the owner of `run` cancels it."""
        for attachment in list(self.attachments.values()):
            self.remove(attachment, reason, message)

    def release(self) -> None:
        """Forget the output, so that its memory can be used for another stream's."""
        for ring in self.rings.values():
            ring.release()

    def statistics(self) -> StreamStatistics:
        """Return a snapshot."""
        return StreamStatistics(
            name=self.name,
            tag=self.tag,
            kind=self.kind,
            state=self.state,
            command=self.command,
            pid=self.endpoint.pid,
            age=trio.current_time() - self.started_at,
            exit=self.exit,
            rings={channel: ring.statistics() for channel, ring in self.rings.items()},
            input_waiting=self._input_waiting,
            attachments=tuple(a.statistics() for a in self.attachments.values()),
            screen=self._screen.statistics() if self._screen is not None else None,
        )


def exit_message(status: ExitStatus) -> Exit:
    """Return `status` as it travels."""
    return Exit(code=status.code, signal=status.signal)
