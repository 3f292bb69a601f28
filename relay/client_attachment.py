"""One attachment as its client sees it: it goes on, byte for byte, over any number of links.

Theory of operation
-------------------

The client keeps two things that outlive a link: per output channel what has come and was not taken
yet, with the next offset it wants; and a ring with the input that was not acknowledged.  When a link
is up, `bind` makes the ATTACH for it: the first time with `start`, afterwards with `resume`.
ATTACHED tells from which input offset to go on; the ring has the bytes.

Credit is granted when the caller *comes back for more*: what `receive` returned last counts as
consumed then.  So a caller that is slow to draw or to write holds the sandbox's process back, and
nothing piles up here beyond a window per channel.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import trio

from relay.carrier import Buffer
from relay.endpoint import OUTPUT_CHANNELS, Channel, ExitStatus, Kind, TerminalSize
from relay.errors import AttachmentClosed, AttachRefused, InputUncertain
from relay.grant import Mode
from relay.inbox import Inbox, Missed, Output
from relay.link import Link
from relay.protocol.budget import Budget
from relay.protocol.connection import BytesReceived, MessageReceived
from relay.protocol.errors import RemoteProtocolError
from relay.protocol.messages import (
    Attach,
    Attached,
    Closed,
    Credit,
    Exit,
    Fin,
    Gap,
    Refused,
    Replay,
    Resize,
    Resume,
    Screen,
    Signal,
    Start,
    Stop,
    check,
)
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason
from relay.protocol.ring import ReplayRing
from relay.protocol.sender import ChannelSender
from relay.protocol.windows import INITIAL_WINDOW, WindowStatistics

INPUT_BUFFER = 1024 * 1024
"""Bytes of input kept until they are acknowledged; `send` waits when it is full."""
SIGNALS_KEPT = 64
"""Signals that a resume can send again."""


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """What to attach to and how; see ATTACH in docs/spec/trunk-1.md § 5.

    `attachment` is the id to use: 16 to 64 characters that no other client uses.  `replay`: begin
    with the oldest byte still there (``"all"``), with the next one (``"none"``), or, for a terminal,
    with its present screen (``"screen"``); then a `ScreenOutput` follows every `Missed`, too.  `window` is how many bytes of output
    may be under way at first.

    Raises:
      ValueError: an option is malformed, or all together are too long for a frame.
    """

    attachment: str
    kind: Kind
    tag: str
    mode: Mode = Mode.CONTROL
    policy: Policy | None = None
    start: Start | None = None
    size: TerminalSize | None = None
    takeover: bool = False
    replay: Replay = "all"
    window: int = INITIAL_WINDOW

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"a window of {self.window} bytes lets nothing come")
        check(self.request(self.size, None, {}))

    def request(
        self,
        size: TerminalSize | None,
        resume: Resume | None,
        window: dict[Channel, int],
        generation: int = 0,
    ) -> Attach:
        """Return the ATTACH that asks for this, afresh or to resume."""
        return Attach(
            attachment=self.attachment,
            generation=generation,
            kind=self.kind,
            tag=self.tag,
            mode=self.mode,
            policy=self.policy,
            start=self.start if resume is None else None,
            columns=size.columns if size else None,
            rows=size.rows if size else None,
            takeover=self.takeover and resume is None,
            replay=self.replay,
            resume=resume,
            window=window,
        )


@dataclass(frozen=True, slots=True)
class ClientAttachmentStatistics:
    """Counters of one attachment; sizes in bytes.  `waiting` is what `receive` could return."""

    bound: bool
    resumes: int
    input_unacknowledged: int
    waiting: dict[Channel, int]
    windows: dict[Channel, WindowStatistics]


class ClientAttachment:
    """A resumable attachment.  Made by `relay.client.Trunk.attach`.

    `growth` is what all windows of the trunk may grow by.
    """

    def __init__(self, options: AttachOptions, growth: Budget | None = None) -> None:
        self.options = options
        self.answer: Attached | None = None
        """What the owner answered on the latest link; None before the first answer."""
        self.resumes = 0
        """How often the attachment went on over another link."""
        self._size = options.size
        self._inboxes = {
            channel: Inbox(channel, options.window, growth)
            for channel in OUTPUT_CHANNELS[options.kind]
        }
        self._input = ReplayRing(INPUT_BUFFER)
        self._input_stopped = False
        self._input_sent = 0  # offset after the last byte that any link has carried
        self._room = trio.lowlevel.ParkingLot()
        self._signals: deque[Signal] = deque(maxlen=SIGNALS_KEPT)
        self._signal_number = 0
        self._exit: ExitStatus | None = None
        self._error: Exception | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._generation = 0
        self._link: Link | None = None
        self.stream_id = 0
        """The stream id on the current or latest link."""
        self._sender: ChannelSender | None = None

    # ---------------------------------------------------------------- for the user

    async def receive(self, channel: Channel = Channel.OUTPUT) -> Output | Missed | None:
        """Wait for output and return it; None at the end of the channel.

        What was returned before counts as consumed now: it is acknowledged, and as much more may
        come.  Different channels may be received by different tasks.

        Raises:
          AttachmentClosed, AttachRefused, InputUncertain: the attachment is over; what came before
            was returned.

        Cancellation: safe; no byte is lost.
        """
        inbox = self._inboxes[channel]
        self._consume(inbox)
        if self._has_nothing_for_the_caller(inbox):
            while self._has_nothing_for_the_caller(inbox):
                await inbox.arrived.park()
        else:
            await trio.lowlevel.checkpoint()
        if not inbox.is_empty:
            return inbox.take()
        if self._error is not None and not inbox.ended:
            raise self._error.with_traceback(None)
        return None

    def _has_nothing_for_the_caller(self, inbox: Inbox) -> bool:
        return inbox.is_empty and not inbox.ended and self._error is None

    async def send(self, data: Buffer) -> None:
        """Send input; waits while `INPUT_BUFFER` bytes are not acknowledged.

        Returns when the bytes are kept for sending, which goes on over any number of links.

        Raises:
          trio.BrokenResourceError: the process reads no input any more.
          trio.ClosedResourceError: `send_eof` was called.
          AttachmentClosed, AttachRefused, InputUncertain: the attachment is over.
          ValueError: this is a viewer.

        Cancellation: some, all or none of `data` may have been taken.
        """
        if self.options.mode is Mode.VIEW:
            raise ValueError("a viewer sends no input")
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view:
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self._input_stopped or self._exit is not None:
                raise trio.BrokenResourceError("the process reads no input any more")
            if self._input.finished:
                raise trio.ClosedResourceError("the input was ended before")
            room = self._input.room(self._input.start)
            if room:
                self._input.append(view[:room])
                view = view[room:]
                self._wake_input()
            else:
                await self._room.park()

    def send_eof(self) -> None:
        """End the input, after what was sent.  A terminal has no such end; there it does nothing."""
        self._input.finished = True
        self._wake_input()

    @property
    def input_stopped(self) -> bool:
        """Whether nobody reads the input any more; true also once its end was taken."""
        return self._input_stopped or self._exit is not None

    async def wait_input_room(self) -> None:
        """Wait until `send` would not wait, or would raise.  Cancellation: safe."""
        await trio.lowlevel.checkpoint()
        while self._error is None and not self.input_stopped:
            if self._input.room(self._input.start):
                return
            await self._room.park()

    async def wait_input_stopped(self) -> None:
        """Wait until nobody reads the input any more: after `send_eof`, until all was taken.

        Raises:
          AttachmentClosed, AttachRefused, InputUncertain: the attachment is over before.

        Cancellation: safe.
        """
        await trio.lowlevel.checkpoint()
        while not self.input_stopped:
            if self._error is not None:
                raise self._error.with_traceback(None)
            await self._room.park()

    def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size; also again after every resume."""
        self._size = size
        if self._is_bound and self._link is not None:
            self._link.connection.resize(
                self.stream_id, Resize(columns=size.columns, rows=size.rows)
            )
            self._link.wake()

    def send_signal(self, name: str) -> None:
        """Send the signal `name` (``"INT"``) to the process group, exactly once.

        While there is no link, the last `SIGNALS_KEPT` are kept for the next one.

        Raises:
          ValueError: that is no name of a signal.
        """
        signal = Signal(number=self._signal_number + 1, name=name)
        check(signal)
        self._signal_number += 1
        self._signals.append(signal)
        if self._is_bound and self._link is not None:
            self._link.connection.signal(self.stream_id, signal)
            self._link.wake()

    async def wait(self) -> ExitStatus:
        """Wait for the process to end and return how.

        All its output has come by then; `receive` until None to have it all.

        Raises:
          AttachmentClosed, AttachRefused, InputUncertain: the attachment is over before.

        Cancellation: safe.
        """
        await trio.lowlevel.checkpoint()
        while self._exit is None:
            if self._error is not None:
                raise self._error.with_traceback(None)
            await self._changed.park()
        return self._exit

    async def wait_attached(self) -> Attached:
        """Wait for the owner's first answer.

        Raises:
          AttachRefused: the owner said no.
          AttachmentClosed: the attachment is over before.

        Cancellation: safe.
        """
        await trio.lowlevel.checkpoint()
        while self.answer is None:
            if self._error is not None:
                raise self._error.with_traceback(None)
            await self._changed.park()
        return self.answer

    def statistics(self) -> ClientAttachmentStatistics:
        """Return a snapshot."""
        return ClientAttachmentStatistics(
            bound=self._is_bound,
            resumes=self.resumes,
            input_unacknowledged=self._input.end - self._input.start,
            waiting={channel: box.waiting for channel, box in self._inboxes.items()},
            windows={channel: box.window.statistics() for channel, box in self._inboxes.items()},
        )

    # ---------------------------------------------------------------- for the trunk

    @property
    def is_over(self) -> bool:
        """Whether the attachment has ended for good."""
        return self._error is not None

    def bind(self, link: Link) -> int:
        """Ask for the stream over `link`; return the stream id there."""
        self._link = link
        self._sender = None
        resume = None
        if self.answer is not None:
            have = {channel: box.window.received for channel, box in self._inboxes.items()}
            awaits = self._inboxes[Channel.OUTPUT].awaits_screen
            resume = Resume(stream=self.answer.stream, have=have, screen=awaits)
        window = {channel: box.grant_for_resume() for channel, box in self._inboxes.items()}
        self._generation += 1
        request = self.options.request(self._size, resume, window, self._generation)
        self.stream_id = link.connection.attach(request)
        link.wake()
        return self.stream_id

    def unbind(self) -> None:
        """The link is gone."""
        if self._sender is not None:
            self._input_sent = max(self._input_sent, self._sender.window.sent)
        self._link = None
        self._sender = None

    def received_bytes(self, event: BytesReceived) -> None:
        """Take bytes that came."""
        self._inboxes[event.channel].put(event.offset, event.data)

    def received(self, event: MessageReceived) -> None:
        """Take a control frame that came.

        Raises:
          RemoteProtocolError: it contradicts what this attachment knows.
        """
        message = event.message
        match message:
            case Attached():
                self._attached(message)
            case Refused():
                self.fail(AttachRefused(message.code, message.message))
            case Closed():
                self.fail(AttachmentClosed(message.reason, message.message))
            case Gap(start=start, to=to):
                self._inbox(event.channel).put_gap(start, to, screen=message.screen)
            case Screen():
                self._inbox(event.channel).put_screen(message)
            case Fin():
                self._inbox(event.channel).end()
            case Exit():
                self._exited(message)
            case Stop():
                self._input_stopped = True
                self._room.unpark_all()
            case Credit(ack=ack) if ack is not None:
                self._input.trim(ack)
                self._room.unpark_all()
            case _:
                pass

    def fail(self, error: Exception) -> None:
        """The attachment is over; the first error counts."""
        if self._error is None:
            self._error = error
        self.unbind()
        for inbox in self._inboxes.values():
            inbox.give_up()
        self._room.unpark_all()
        self._changed.unpark_all()

    def detach(self) -> None:
        """Give the attachment up; input that there is credit for goes first."""
        if self._link is not None and self._link.connection.is_open(self.stream_id):
            self._link.connection.detach(self.stream_id)
            self._link.wake()
        self.fail(AttachmentClosed(CloseReason.DETACHED))

    # ---------------------------------------------------------------- inside

    @property
    def _is_bound(self) -> bool:
        """Whether the owner has answered on the current link."""
        return self._link is not None and self._sender is not None

    def _inbox(self, channel: int) -> Inbox:
        try:
            return self._inboxes[Channel(channel)]
        except (ValueError, KeyError):
            raise RemoteProtocolError(f"a {self.options.kind} has no output {channel}") from None

    def _attached(self, answer: Attached) -> None:
        link = self._link
        if link is None:
            return
        connection = link.connection
        options = self.options
        asked = (options.kind, options.tag, options.mode)
        if (answer.kind, answer.tag, answer.mode) != asked:
            raise RemoteProtocolError(
                f"asked for {options.mode} of {options.kind} {options.tag!r},"
                f" attached for {answer.mode} of {answer.kind} {answer.tag!r}"
            )
        first = self.answer is None
        if not first:
            self.resumes += 1
        for channel, inbox in self._inboxes.items():
            offset = answer.start.get(channel)
            if offset is None:
                raise RemoteProtocolError(f"ATTACHED says nothing of channel {channel}")
            if first:
                inbox.begin(offset, answer.live if channel is Channel.OUTPUT else 0)
            elif offset != inbox.window.received:
                raise RemoteProtocolError(
                    f"resumed at {offset}, not at {inbox.window.received} on channel {channel}"
                )
            if channel is Channel.OUTPUT:
                inbox.expect_screen(announced=answer.screen)
            connection.open_receiver(self.stream_id, channel, inbox.window)
        self.answer = answer
        if not self._settle_input(answer):
            connection.detach(self.stream_id)
            self.fail(InputUncertain("the server forgot this attachment while input was under way"))
            return
        self._input_stopped = answer.stopped
        self._sender = connection.open_sender(
            self.stream_id, Channel.INPUT, self._input, answer.accepted, answer.credit
        )
        if not (answer.resumed or first):
            self._signals.clear()  # nobody knows which of them were taken: better none than twice
        for signal in self._signals:
            if signal.number > answer.signals:
                connection.signal(self.stream_id, signal)
        if self._size is not None:
            connection.resize(
                self.stream_id, Resize(columns=self._size.columns, rows=self._size.rows)
            )
        link.wake()
        self._room.unpark_all()
        self._changed.unpark_all()

    def _settle_input(self, answer: Attached) -> bool:
        """Bring the input ring in line with what the owner took; False if nobody can know."""
        ring = self._input
        if answer.resumed:
            if not ring.start <= answer.accepted <= self._input_sent:
                raise RemoteProtocolError(
                    f"input up to {answer.accepted} accepted,"
                    f" {ring.start}..{self._input_sent} was sent and not acknowledged"
                )
            ring.trim(answer.accepted)
            return True
        if ring.start < self._input_sent and not self._input_stopped:
            return False
        waiting = ring.read(ring.start, ring.end - ring.start)
        self._input = ReplayRing(INPUT_BUFFER, answer.accepted)
        self._input.append(waiting)
        self._input.finished = ring.finished
        self._input_sent = answer.accepted
        return True

    def _exited(self, message: Exit) -> None:
        unfinished = [channel.name for channel, box in self._inboxes.items() if not box.ended]
        if unfinished:
            raise RemoteProtocolError(f"EXIT before the FIN of {', '.join(unfinished)}")
        try:
            self._exit = ExitStatus(message.code, message.signal)
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from error
        self._room.unpark_all()
        self._changed.unpark_all()

    def _consume(self, inbox: Inbox) -> None:
        ended_replay = inbox.consume_taken()
        link = self._link
        if link is None or not self._is_bound:
            return
        up_to = inbox.window.renewal(trio.current_time(), link.connection.round_trip)
        if up_to is not None or ended_replay:
            link.connection.credit(
                self.stream_id, inbox.channel, ack=inbox.window.consumed, up_to=up_to
            )
            link.wake()

    def _wake_input(self) -> None:
        if self._is_bound and self._link is not None:
            self._link.connection.wake(self.stream_id, Channel.INPUT)
            self._link.wake()
