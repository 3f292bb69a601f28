"""Two real connections over a wire that is a pair of byte strings."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from relay.endpoint import Channel, Kind
from relay.grant import Mode
from relay.protocol.connection import BytesReceived, Connection, Event, MessageReceived
from relay.protocol.frames import DataPiece, FrameDecoder
from relay.protocol.messages import Attach, Attached, Hello, Message, decode, encode
from relay.protocol.ring import ReplayRing
from relay.protocol.sender import ChannelSender
from relay.protocol.windows import ReceiveWindow

M = TypeVar("M", bound=Message)
Frame = DataPiece | Message


@dataclass
class End:
    """One side: the connection, what it told its owner, and the bytes by stream and channel."""

    connection: Connection
    events: list[MessageReceived] = field(default_factory=list)
    data: dict[tuple[int, int], bytearray] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        if isinstance(event, BytesReceived):
            have = self.data.setdefault((event.stream, event.channel), bytearray())
            have += event.data
        else:
            self.events.append(event)

    def messages(self, type_: type[M]) -> list[M]:
        """Return the messages of one type that came, in order."""
        return [event.message for event in self.events if isinstance(event.message, type_)]


class Pair:
    """A dialer and an acceptor.  `seed` splits what is on the wire at random places."""

    def __init__(self, seed: int | None = None) -> None:
        self.dialer = End(Connection(dialer=True, software="dialer"))
        self.acceptor = End(Connection(dialer=False, software="acceptor"))
        self.now = 0.0
        self._random = None if seed is None else random.Random(seed)

    def other(self, end: End) -> End:
        return self.acceptor if end is self.dialer else self.dialer

    def step(self, sender: End) -> bool:
        """Carry what `sender` sends next to the other side; tell whether there was anything."""
        unit = b"".join(sender.connection.next_send())
        self.feed(self.other(sender), unit)
        return bool(unit)

    def feed(self, receiver: End, unit: bytes) -> None:
        """Let `receiver` read `unit`."""
        for piece in self._split(unit):
            for event in receiver.connection.receive_data(piece, self.now):
                receiver.take(event)

    def pump(self) -> None:
        """Carry everything both ways until nobody has anything to send."""
        while self.step(self.dialer) | self.step(self.acceptor):
            pass

    def _split(self, unit: bytes) -> Iterable[bytes]:
        if self._random is None:
            yield unit
            return
        while unit:
            size = self._random.choice((1, 7, 100, len(unit)))
            yield unit[:size]
            unit = unit[size:]


def parse(unit: bytes) -> list[tuple[int, int, Frame]]:
    """Return the frames in `unit` as (stream, channel, DataPiece or message)."""
    frames: list[tuple[int, int, Frame]] = []
    for frame in FrameDecoder().feed(unit):
        content = frame if isinstance(frame, DataPiece) else decode(frame)
        assert content is not None
        frames.append((frame.stream, frame.channel, content))
    return frames


ATTACH = Attach(attachment="a" * 16, kind=Kind.EXEC, tag="t")
ANSWER = Attached(stream="s", tag="t", kind=Kind.EXEC, mode=Mode.CONTROL, start={})
HELLO = encode(Hello(version=1, software="raw"))
BIG = 10**9


def fresh(*, dialer: bool = False) -> Connection:
    """Return a connection that has said and heard HELLO."""
    connection = Connection(dialer=dialer, software="ours")
    connection.next_send()
    receive(connection, HELLO)
    return connection


def receive(connection: Connection, *units: bytes) -> list[Message]:
    messages = []
    for unit in units:
        for event in connection.receive_data(unit, 0.0):
            assert isinstance(event, MessageReceived)
            messages.append(event.message)
    return messages


def sent(connection: Connection) -> list[tuple[int, int, object]]:
    return list(parse(b"".join(connection.next_send())))


def open_stream(
    pair: Pair, ring: ReplayRing, credit: int = BIG, by: End | None = None
) -> tuple[int, ChannelSender, ReceiveWindow]:
    """Attach, and let the owner send `ring` on channel 1."""
    attacher = by or pair.dialer
    owner = pair.other(attacher)
    id_ = attacher.connection.attach(ATTACH)
    pair.pump()
    owner.connection.accept(id_, ANSWER)
    pair.pump()
    window = ReceiveWindow(ring.start, credit)
    attacher.connection.open_receiver(id_, Channel.OUTPUT, window)
    sender = owner.connection.open_sender(
        id_, Channel.OUTPUT, ring, ring.start, ring.start + credit
    )
    return id_, sender, window


def full_ring(size: int) -> ReplayRing:
    ring = ReplayRing(size)
    ring.append(bytes(size))
    return ring
