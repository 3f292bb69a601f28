"""The mux: one connection's state, without its carrier (§ 3, § 4).

Theory of operation
-------------------

Bytes from the carrier go into `receive_data`, which yields events.  What has to go out is *pulled*:
whenever the carrier can take more, its owner calls `next_send` and gets the next buffers.  Nothing
is queued ahead of that, so what is sent is decided as late as possible:

1. control frames, in order (a short queue);
2. CREDIT and PONG, which are not queued at all: only *that* one is due is remembered, and the
   latest values are written, so no flood of requests can make them pile up;
3. bytes: every sender that has data and credit stands in one round-robin queue and gives one slice
   at a time.  GAP, SCREEN, FIN and EXIT come from there too, because they must keep their place.

So a stalled stream costs the others nothing (it is not in the queue), no stream starves another,
and control frames wait for at most the slices already handed to the carrier.

The connection knows both sides of an attachment; each stream id has a side and a state
(`relay.protocol.states`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from relay.endpoint import Channel
from relay.protocol.errors import LocalProtocolError, RemoteProtocolError
from relay.protocol.frames import ControlFrame, DataPiece, FrameDecoder, FrameType
from relay.protocol.messages import (
    VERSION,
    Attach,
    Attached,
    Closed,
    Credit,
    Detach,
    Exit,
    Fin,
    Gap,
    GoAway,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    Resize,
    Signal,
    Stop,
    decode,
    encode,
    readable,
)
from relay.protocol.reasons import CloseReason
from relay.protocol.ring import ReplayRing
from relay.protocol.sender import ChannelSender
from relay.protocol.states import Side, State, Step, after_frame, after_step
from relay.protocol.windows import ReceiveWindow

SLICE_BYTES = 64 * 1024
"""What a stream gives before it is the next one's turn."""
SEND_BUDGET = 256 * 1024
"""What `next_send` hands out at a time, give or take a slice."""
MAX_STREAMS = 256
MAX_STREAM_ID = 2**32 - 1
MAX_BACKLOG = 1024 * 1024
"""Bytes of control frames that may wait; a peer that lets more pile up does not read."""


@dataclass(frozen=True, slots=True)
class BytesReceived:
    """The next bytes of a channel.  `data` is valid until the next event is asked for."""

    stream: int
    channel: Channel
    offset: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A control frame of a stream (or, with stream 0, of the link) that the owner has to act on."""

    stream: int
    channel: int
    message: Message


Event = BytesReceived | MessageReceived


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """Counters of one connection; sizes in bytes, `round_trip` in seconds or None."""

    streams: int
    backlog: int
    frames_received: int
    data_sent: int
    data_received: int
    round_trip: float | None


@dataclass(slots=True)
class _Stream:
    """What the connection knows of one stream id."""

    side: Side
    state: State = State.REQUESTED
    senders: dict[int, ChannelSender] = field(default_factory=dict)
    receivers: dict[int, ReceiveWindow] = field(default_factory=dict)
    exit: Exit | None = None
    detach_requested: bool = False


class Connection:
    """trunk/1 on one carrier.

    `dialer` tells whether this side opened the carrier.  `software` is told to the peer.
    """

    def __init__(self, *, dialer: bool, software: str) -> None:
        self._decoder = FrameDecoder()
        self._greeted = False
        self._next_id = 1 if dialer else 2
        self._last_peer_id = 0 if dialer else -1  # ids of the peer grow from 2, or from 1
        self._streams: dict[int, _Stream] = {}
        self._control: deque[bytes] = deque()
        self._backlog = 0
        self._credits: dict[tuple[int, int], Credit] = {}
        self._pong: int | None = None
        self._ready: deque[tuple[int, ChannelSender]] = deque()
        self._ping_id = 0
        self._ping_sent_at: float | None = None
        self._frames_received = 0
        self._data_sent = 0
        self._data_received = 0
        self.peer_software = ""
        self.round_trip: float | None = None
        """The last measured round trip, in seconds."""
        self._queue(Hello(version=VERSION, software=software))

    # ---------------------------------------------------------------- receiving

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> Iterator[Event]:
        """Take bytes from the carrier; yield what the owner has to act on.

        The iterator must be exhausted before the next call.

        Raises:
          RemoteProtocolError: the peer broke a rule; send GOAWAY with its reason and close.
        """
        for frame in self._decoder.feed(data):
            if isinstance(frame, DataPiece):
                event: Event | None = self._receive_bytes(frame)
            else:
                self._frames_received += 1
                event = self._receive_control(frame, now)
            if event is not None:
                yield event
        if self._backlog > MAX_BACKLOG:
            raise RemoteProtocolError("answers are not read", CloseReason.SLOW_READER)

    def _receive_bytes(self, piece: DataPiece) -> BytesReceived | None:
        stream = self._find(piece.stream, FrameType.DATA)
        if stream is None:
            return None
        if stream.state is not State.OPEN:
            after_frame(stream.side, stream.state, FrameType.DATA)
            return None
        window = stream.receivers.get(piece.channel)
        if window is None:
            raise RemoteProtocolError(f"bytes on channel {piece.channel}, which nobody reads")
        window.check(piece.offset, len(piece.data))
        self._data_received += len(piece.data)
        return BytesReceived(piece.stream, Channel(piece.channel), piece.offset, piece.data)

    def _receive_control(self, frame: ControlFrame, now: float) -> MessageReceived | None:
        message = decode(frame)
        if not self._greeted:
            if not isinstance(message, Hello):
                raise RemoteProtocolError("the first frame is not HELLO")
            if message.version != VERSION:
                raise RemoteProtocolError(f"version {message.version}, we speak {VERSION}")
            self._greeted = True
            self.peer_software = message.software
            return None
        if message is None:
            return None
        if frame.stream == 0:
            return self._receive_link_message(message, now)
        return self._receive_stream_message(frame, message)

    def _receive_link_message(self, message: Message, now: float) -> MessageReceived | None:
        match message:
            case Ping(id=id_):
                self._pong = id_
            case Pong(id=id_):
                if self._ping_sent_at is not None and id_ == self._ping_id:
                    self.round_trip = now - self._ping_sent_at
                    self._ping_sent_at = None
            case GoAway():
                return MessageReceived(0, 0, message)
            case _:
                raise RemoteProtocolError(f"{type(message).__name__} without a stream")
        return None

    def _receive_stream_message(
        self, frame: ControlFrame, message: Message
    ) -> MessageReceived | None:
        id_ = frame.stream
        if isinstance(message, Attach):
            return self._receive_attach(id_, message)
        stream = self._find(id_, FrameType(frame.type))
        if stream is None:
            return None
        state = after_frame(stream.side, stream.state, FrameType(frame.type))
        live = stream.state is not State.DETACHING
        stream.state = state
        match message:
            case Credit():
                sender = stream.senders.get(frame.channel)
                if sender is not None:
                    self._receive_credit(id_, sender, message)
            case Gap(start=start, to=to) if live:
                self._receiver(stream, frame.channel).skip(start, to)
            case Fin(at=at) if live:
                window = self._receiver(stream, frame.channel)
                if at != window.received:
                    raise RemoteProtocolError(f"FIN at {at}, expected {window.received}")
                del stream.receivers[frame.channel]
            case Stop():
                sender = stream.senders.get(frame.channel)
                if sender is not None:
                    sender.stopped = True
                    self._finish(id_, stream)
            case Detach():
                self._queue(Closed(reason=CloseReason.DETACHED), id_)
            case _:
                pass
        if state is State.ENDED:
            del self._streams[id_]
        return MessageReceived(id_, frame.channel, message) if live else None

    def _receive_attach(self, id_: int, message: Attach) -> MessageReceived:
        if id_ <= self._last_peer_id or (id_ - self._last_peer_id) % 2:
            raise RemoteProtocolError(f"ATTACH with id {id_} after {self._last_peer_id}")
        if len(self._streams) >= MAX_STREAMS:
            raise RemoteProtocolError(f"more than {MAX_STREAMS} streams")
        self._last_peer_id = id_
        self._streams[id_] = _Stream(Side.OWNER)
        return MessageReceived(id_, 0, message)

    def _receive_credit(self, id_: int, sender: ChannelSender, credit: Credit) -> None:
        if credit.ack is not None:
            sender.window.acknowledged(credit.ack)
        if credit.up_to is not None:
            sender.window.credited(credit.up_to)
            self._enqueue(id_, sender)

    @staticmethod
    def _receiver(stream: _Stream, channel: int) -> ReceiveWindow:
        window = stream.receivers.get(channel)
        if window is None:
            raise RemoteProtocolError(f"a frame for channel {channel}, which nobody reads")
        return window

    def _find(self, id_: int, type_: FrameType) -> _Stream | None:
        """Return the stream; None for one that has ended (the frame is late)."""
        if not self._greeted:
            raise RemoteProtocolError("the first frame is not HELLO")
        stream = self._streams.get(id_)
        if stream is not None:
            return stream
        is_ours = id_ % 2 == self._next_id % 2
        if 0 < id_ < self._next_id if is_ours else 0 < id_ <= self._last_peer_id:
            return None
        raise RemoteProtocolError(f"{type_.name} for stream {id_}, which was never opened")

    # ---------------------------------------------------------------- attaching

    def attach(self, request: Attach) -> int:
        """Ask for a stream; return its id on this connection.

        Raises:
          LocalProtocolError: there are too many streams already, the link has had all ids there
            are, or the request is too long for a frame.
        """
        if len(self._streams) >= MAX_STREAMS:
            raise LocalProtocolError(f"a connection has at most {MAX_STREAMS} streams")
        id_ = self._next_id
        if id_ > MAX_STREAM_ID:
            raise LocalProtocolError("a connection has no stream ids left")
        self._queue(request, id_)
        self._next_id += 2
        self._streams[id_] = _Stream(Side.ATTACHER)
        return id_

    def accept(self, id_: int, answer: Attached) -> None:
        """Answer an ATTACH; then open its senders and receivers."""
        self._step(id_, Step.ACCEPT)
        self._queue(answer, id_)

    def refuse(self, id_: int, answer: Refused) -> None:
        """Answer an ATTACH with no."""
        self._step(id_, Step.REFUSE)
        self._queue(Refused(code=answer.code, message=readable(answer.message)), id_)

    def close(self, id_: int, reason: CloseReason, message: str = "") -> None:
        """End an attachment that we own, at once; bytes that were not sent yet are not."""
        self._step(id_, Step.CLOSE)
        self._queue(Closed(reason=reason, message=readable(message)), id_)

    def detach(self, id_: int) -> None:
        """Give up an attachment; bytes that there is credit for go first."""
        stream = self._streams.get(id_)
        if (
            stream is not None
            and stream.state is State.OPEN
            and any(sender.ready for sender in stream.senders.values())
        ):
            stream.detach_requested = True
            return
        stream = self._step(id_, Step.DETACH)
        stream.senders.clear()
        stream.receivers.clear()
        self._queue(Detach(), id_)

    def is_open(self, id_: int) -> bool:
        """Tell whether the stream id is in use and not on its way out."""
        stream = self._streams.get(id_)
        return stream is not None and stream.state is not State.DETACHING

    # ---------------------------------------------------------------- bytes

    def open_sender(
        self, id_: int, channel: Channel, ring: ReplayRing, offset: int, limit: int
    ) -> ChannelSender:
        """Begin to send `ring` from `offset` on, with credit up to `limit`."""
        stream = self._step(id_, Step.SEND)
        sender = ChannelSender(id_, channel, ring, offset, limit)
        stream.senders[channel] = sender
        self._enqueue(id_, sender)
        return sender

    def open_receiver(self, id_: int, channel: Channel, window: ReceiveWindow) -> None:
        """Begin to take bytes."""
        self._step(id_, Step.SEND).receivers[channel] = window

    def wake(self, id_: int, channel: Channel) -> bool:
        """Say that the ring of a sender has changed; tell whether there is more to send now.

        Cheap, and right to call too often.  A reader that grants no credit costs nothing more.
        """
        stream = self._streams.get(id_)
        if stream is not None:
            sender = stream.senders.get(channel)
            if sender is not None:
                return self._enqueue(id_, sender)
        return False

    def credit(self, id_: int, channel: Channel, *, ack: int | None, up_to: int | None) -> None:
        """Send CREDIT; a later one replaces an earlier one that is not out yet."""
        if not self.is_open(id_):
            return
        pending = self._credits.get((id_, channel))
        if pending is not None:
            ack = pending.ack if ack is None else ack
            up_to = pending.up_to if up_to is None else up_to
        self._credits[id_, channel] = Credit(ack=ack, up_to=up_to)

    def stop(self, id_: int, channel: Channel) -> None:
        """Tell the peer that nobody reads the channel any more."""
        self._step(id_, Step.SEND)
        self._queue(Stop(), id_, channel)

    def exit(self, id_: int, status: Exit) -> None:
        """Send EXIT after the FIN of every channel we send."""
        stream = self._step(id_, Step.SEND)
        stream.exit = status
        self._finish(id_, stream)

    def resize(self, id_: int, message: Resize) -> None:
        """Send RESIZE."""
        self._step(id_, Step.SEND)
        self._queue(message, id_)

    def signal(self, id_: int, message: Signal) -> None:
        """Send SIGNAL."""
        self._step(id_, Step.SEND)
        self._queue(message, id_)

    # ---------------------------------------------------------------- the link

    def ping(self, now: float) -> None:
        """Ask the peer for a sign of life, unless that is under way already."""
        if self._ping_sent_at is None:
            self._ping_id += 1
            self._ping_sent_at = now
            self._queue(Ping(id=self._ping_id))

    def go_away(
        self, reason: CloseReason, message: str = "", retry_after: float | None = None
    ) -> None:
        """Tell the peer that the link is about to close."""
        self._queue(GoAway(reason=reason, message=readable(message), retry_after=retry_after))

    # ---------------------------------------------------------------- sending

    def next_send(self, budget: int = SEND_BUDGET) -> list[bytes]:
        """Return the next buffers for the carrier, about `budget` bytes; [] if there is nothing.

        What is returned counts as sent.
        """
        out: list[bytes] = list(self._control)
        self._control.clear()
        spent = self._backlog
        self._backlog = 0
        if self._pong is not None:
            out.append(encode(Pong(id=self._pong)))
            self._pong = None
        if self._credits:
            out += [encode(c, *key) for key, c in self._credits.items() if self.is_open(key[0])]
            self._credits.clear()
        ready = self._ready
        while ready and spent < budget:
            id_, sender = ready.popleft()
            sender.queued = False
            stream = self._streams.get(id_)
            if stream is None or stream.state is not State.OPEN:
                continue
            # Alone, a stream need not stop for others.
            frame = sender.next_frame(SLICE_BYTES if ready else max(SLICE_BYTES, budget - spent))
            for buffer in frame:
                out.append(buffer)
                spent += len(buffer)
            if len(frame) == 2:
                self._data_sent += len(frame[1])
            self._enqueue(id_, sender)
            if sender.fin_sent:
                self._finish(id_, stream)
            if stream.detach_requested:
                self.detach(id_)
            spent += self._move_control(out)
        return out

    @property
    def has_output(self) -> bool:
        """Whether `next_send` has something to give (or only finished senders to look at)."""
        return bool(self._control or self._credits or self._ready or self._pong is not None)

    def statistics(self) -> ConnectionStatistics:
        """Return a snapshot."""
        return ConnectionStatistics(
            streams=len(self._streams),
            backlog=self._backlog,
            frames_received=self._frames_received,
            data_sent=self._data_sent,
            data_received=self._data_received,
            round_trip=self.round_trip,
        )

    def _finish(self, id_: int, stream: _Stream) -> None:
        """Queue EXIT when every channel has had its FIN."""
        if stream.exit is not None and all(
            s.fin_sent or s.stopped for s in stream.senders.values()
        ):
            self._queue(stream.exit, id_)
            stream.exit = None

    def _move_control(self, out: list[bytes]) -> int:
        size = self._backlog
        out += self._control
        self._control.clear()
        self._backlog = 0
        return size

    def _enqueue(self, id_: int, sender: ChannelSender) -> bool:
        if sender.queued or not sender.ready:
            return False
        sender.queued = True
        self._ready.append((id_, sender))
        return True

    def _step(self, id_: int, step: Step) -> _Stream:
        stream = self._streams.get(id_)
        if stream is None:
            raise LocalProtocolError(f"{step.name} on stream {id_}, which is not open")
        stream.state = after_step(stream.side, stream.state, step)
        if stream.state is State.ENDED:
            del self._streams[id_]
        return stream

    def _queue(self, message: Message, stream: int = 0, channel: int = 0) -> None:
        frame = encode(message, stream, channel)
        self._control.append(frame)
        self._backlog += len(frame)
