"""One client on one stream, as the owner sees it.

The record outlives links: it keeps how much input was taken and up to where output was
acknowledged.  While there is a link, a `Binding` connects the record to a stream id on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from relay.endpoint import Channel
from relay.grant import Grant, Mode
from relay.link import Link
from relay.protocol.frames import MAX_OFFSET
from relay.protocol.messages import MAX_SCREEN_PART, Attached, Credit, Exit, Screen
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason
from relay.protocol.ring import ReplayRing
from relay.protocol.sender import ChannelSender, SenderStatistics
from relay.protocol.windows import ReceiveWindow
from relay.screen import Snapshot


@dataclass(frozen=True, slots=True)
class AttachmentStatistics:
    """What one attachment has taken and got; offsets and sizes in bytes."""

    attachment: str
    subject: str
    mode: Mode
    policy: Policy
    bound: bool
    accepted: int
    senders: Mapping[int, SenderStatistics]


class Binding:
    """An attachment's place on a link: one stream id.

    Once it is `closed`, whatever still comes from there is late and changes nothing.
    """

    def __init__(self, link: Link, stream_id: int, grant: Grant) -> None:
        self.link = link
        self.stream_id = stream_id
        self.grant = grant
        self.closed = False
        self.senders: dict[Channel, ChannelSender] = {}

    @property
    def is_open(self) -> bool:
        """Whether the client still wants this stream id."""
        return self.link.connection.is_open(self.stream_id)

    @property
    def is_finished(self) -> bool:
        """Whether all there will ever be has been sent."""
        return all(sender.fin_sent or sender.stopped for sender in self.senders.values())

    def accept(
        self,
        answer: Attached,
        rings: Mapping[Channel, ReplayRing],
        windows: Mapping[Channel, int],
        input_window: ReceiveWindow | None,
        *,
        keeps_screen: bool = False,
        screen: Snapshot | None = None,
    ) -> None:
        """Answer ATTACH and let bytes flow.

        `keeps_screen`: its client wants a screen with every GAP, and `screen` before the first byte.
        """
        connection = self.link.connection
        connection.accept(self.stream_id, answer)
        for channel, ring in rings.items():
            start = answer.start[channel]
            self.senders[channel] = connection.open_sender(
                self.stream_id, channel, ring, start, start + windows.get(channel, 0)
            )
        if keeps_screen:
            self.senders[Channel.OUTPUT].keeps_screen = True
        if screen is not None:
            self.show(screen)
        if input_window is not None:
            connection.open_receiver(self.stream_id, Channel.INPUT, input_window)
        self.link.wake()

    @property
    def needs_screen(self) -> bool:
        """Whether the client waits for a screen."""
        sender = self.senders.get(Channel.OUTPUT)
        return sender is not None and sender.needs_screen

    def show(self, screen: Snapshot | None) -> None:
        """Send a screen, and what follows it; or the GAP alone if there is none."""
        sender = self.senders[Channel.OUTPUT]
        if screen is None:
            sender.show_nothing()
        else:
            sender.show(screen.at, screen_frames(screen))
        self.wake(Channel.OUTPUT)

    def stop_output(self, channel: Channel) -> None:
        """The client said on an earlier link that it reads `channel` no more."""
        self.senders[channel].stopped = True

    def wake(self, channel: Channel) -> None:
        """Say that the ring of `channel` has changed."""
        if self.link.connection.wake(self.stream_id, channel):
            self.link.wake()

    def credit(self, ack: int | None, up_to: int | None) -> None:
        """Grant and acknowledge input."""
        self.link.connection.credit(self.stream_id, Channel.INPUT, ack=ack, up_to=up_to)
        self.link.wake()

    def stop_input(self) -> None:
        """Tell the client that nobody reads its input any more."""
        self.link.connection.stop(self.stream_id, Channel.INPUT)
        self.link.wake()

    def exit(self, status: Exit) -> None:
        """Tell the exit status, after the last byte."""
        self.link.connection.exit(self.stream_id, status)
        self.link.wake()

    def close(self, reason: CloseReason, message: str = "") -> None:
        """End the binding and tell the client why."""
        if not self.closed:
            self.closed = True
            if self.is_open:
                self.link.connection.close(self.stream_id, reason, message)
                self.link.wake()


class Attachment:
    """The owner's record of one client on one stream."""

    def __init__(self, attachment_id: str, grant: Grant, mode: Mode, policy: Policy) -> None:
        self.id = attachment_id
        self.grant = grant
        self.mode = mode
        self.policy = policy
        self.binding: Binding | None = None
        self.linger_until = 0.0
        """Until when the stream waits for it after its link was lost (trio's clock)."""
        self.input = ReceiveWindow(0, 0)
        """Input taken (`received`) and passed on to the process (`consumed`)."""
        self.gate: int | None = None
        """Output offset that must be acknowledged before input is let in (§ 5, Replay)."""
        self.waits_for_others = False
        """Whether input of those who had control before still waits for the process: until it has
        been taken, no more is let in, so that a stream holds one window of input and not many."""
        self.acked: dict[Channel, int] = {}
        self.signals = 0
        self.generation = 0
        """Of the latest ATTACH; older ones that still come are late (§ 5, Generations)."""
        self.keeps_screen = False
        """Whether its client wants a screen with every GAP."""

    def rebase(self, accepted: int, window: int) -> None:
        """Begin to count input at `accepted`."""
        self.input = ReceiveWindow(accepted, window, max_window=window)

    def next_input_window(self, gate: int | None) -> ReceiveWindow:
        """Return the window for a new binding; everything granted on an old one is void.

        With a `gate`, nothing is granted until it has been acknowledged; nor while this one
        `waits_for_others`.
        """
        self.gate = gate
        window = self.input
        window.granted = (
            window.received
            if gate is not None or self.waits_for_others
            else max(window.received, window.consumed + window.window)
        )
        return window

    def consumed_input(self, count: int, now: float) -> None:
        """Say that the process took (or will never take) `count` more bytes."""
        self.input.consume(self.input.consumed + count)
        self.renew_input(now)

    def renew_input(self, now: float) -> None:
        """Grant more input when it is time."""
        if self.gate is None and not self.waits_for_others and self.binding is not None:
            up_to = self.input.renewal(now, self.binding.link.connection.round_trip)
            if up_to is not None:
                self.binding.credit(self.input.received, up_to)

    def acknowledge_input(self) -> None:
        """Acknowledge everything taken so far."""
        if self.binding is not None:
            self.binding.credit(self.input.received, None)

    def received_credit(self, channel: Channel, credit: Credit, now: float) -> None:
        """Note what the client has taken for good; open the gate when it has seen the replay."""
        if credit.ack is None:
            return
        self.acked[channel] = max(self.acked.get(channel, 0), credit.ack)
        if self.gate is not None and channel is Channel.OUTPUT and credit.ack >= self.gate:
            self.gate = None
            self.renew_input(now)

    def ignore(self, channel: Channel, now: float) -> None:
        """The client reads `channel` no more: it need not be waited for there."""
        self.received_credit(channel, Credit(ack=MAX_OFFSET), now)

    def ignores(self, channel: Channel) -> bool:
        """Tell whether the client has said that it reads `channel` no more."""
        return self.acked.get(channel) == MAX_OFFSET

    def unbind(self, linger_until: float) -> None:
        """The link is gone; wait for the client until `linger_until`."""
        if self.binding is not None:
            self.binding.closed = True
            self.binding = None
        self.linger_until = linger_until

    def close(self, reason: CloseReason, message: str = "") -> None:
        """Close the binding, if there is one."""
        if self.binding is not None:
            self.binding.close(reason, message)
            self.binding = None
        self.linger_until = 0.0

    def paces(self, now: float) -> bool:
        """Tell whether the stream has to wait for this reader."""
        return self.policy is Policy.PACE and (self.binding is not None or now < self.linger_until)

    def statistics(self) -> AttachmentStatistics:
        """Return a snapshot."""
        senders = self.binding.senders if self.binding else {}
        return AttachmentStatistics(
            attachment=self.id,
            subject=self.grant.subject,
            mode=self.mode,
            policy=self.policy,
            bound=self.binding is not None,
            accepted=self.input.received,
            senders={channel: sender.statistics() for channel, sender in senders.items()},
        )


def screen_frames(screen: Snapshot) -> Iterator[Screen]:
    """Yield a snapshot as it travels."""
    for start in range(0, max(len(screen.data), 1), MAX_SCREEN_PART):
        end = start + MAX_SCREEN_PART
        yield Screen(
            data=screen.data[start:end],
            at=screen.at,
            columns=screen.size.columns,
            rows=screen.size.rows,
            last=end >= len(screen.data),
        )
