"""A peer of a link that speaks frame by frame and keeps to no rule it is not told to keep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio

from relay.carrier import Carrier
from relay.endpoint import Channel, Kind
from relay.protocol.frames import DataPiece, FrameDecoder, encode_data_header
from relay.protocol.messages import (
    Attach,
    Attached,
    Credit,
    Detach,
    Fin,
    Gap,
    GoAway,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    Resume,
    decode,
    encode,
)
from relay.wakeup import Wakeup

M = TypeVar("M", bound=Message)
BIG = 2**40
PATIENCE = 20.0


@dataclass
class Received:
    """What came on one channel of one stream id."""

    start: int | None = None
    """Offset of the first byte (or gap) that came."""
    data: bytearray = field(default_factory=bytearray)
    """The bytes; what gaps stand for is left out."""
    end: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    fin: int | None = None


class RawPeer:
    """Reads all the time and answers PING; writes what it is told to."""

    def __init__(self, carrier: Carrier, *, dialer: bool = True) -> None:
        self.carrier = carrier
        self.messages: list[tuple[int, int, Message]] = []
        """(stream, channel, message) in order, with what `expect` has taken left out."""
        self.order: list[str] = []
        """Names of all frames, in order."""
        self.channels: dict[tuple[int, int], Received] = {}
        self.ended: str | None = None
        """How the carrier ended, once it has."""
        self._next_id = 1 if dialer else 2
        self._changed = Wakeup()
        self._sending = trio.Lock()

    async def run(self) -> None:
        """Read until the carrier ends."""
        decoder = FrameDecoder()
        try:
            while data := await self.carrier.receive():
                for frame in decoder.feed(data):
                    if isinstance(frame, DataPiece):
                        self._take(frame)
                    else:
                        message = decode(frame)
                        assert message is not None
                        self._note(frame.stream, frame.channel, message)
                        if isinstance(message, Ping):
                            await self.send(encode(Pong(id=message.id)))
                self._changed.set()
            self.ended = "end"
        except trio.BrokenResourceError:
            self.ended = "broken"
        except trio.ClosedResourceError:
            self.ended = "closed"
        self._changed.set()

    def _take(self, piece: DataPiece) -> None:
        channel = self.channels.setdefault((piece.stream, piece.channel), Received())
        if channel.start is None:
            channel.start = channel.end = piece.offset
        assert piece.offset == channel.end, "bytes are missing or repeated"
        channel.data += piece.data
        channel.end += len(piece.data)
        if not self.order or self.order[-1] != "Data":
            self.order.append("Data")

    def _note(self, stream: int, channel_number: int, message: Message) -> None:
        self.order.append(type(message).__name__)
        self.messages.append((stream, channel_number, message))
        if isinstance(message, Gap):
            channel = self.channels.setdefault((stream, channel_number), Received())
            if channel.start is None:
                channel.start = channel.end = message.start
            assert message.start == channel.end
            channel.gaps.append((message.start, message.to))
            channel.end = message.to
        elif isinstance(message, Fin):
            self.channels.setdefault((stream, channel_number), Received()).fin = message.at

    # ---------------------------------------------------------------- writing

    async def send(self, *frames: bytes) -> None:
        async with self._sending:
            await self.carrier.send(frames)

    async def hello(self) -> None:
        await self.send(encode(Hello(version=1, software="raw")))

    async def request(self, tag: str = "t", kind: Kind = Kind.EXEC, **fields: Any) -> int:
        """Send ATTACH; return its stream id."""
        fields.setdefault("attachment", "raw-attachment-0")
        fields.setdefault("window", {Channel.OUTPUT: BIG, Channel.ERROR: BIG})
        id_ = self._next_id
        self._next_id += 2
        await self.send(encode(Attach(kind=kind, tag=tag, **fields), id_))
        return id_

    async def attach(
        self, tag: str = "t", kind: Kind = Kind.EXEC, **fields: Any
    ) -> tuple[int, Attached]:
        """Attach; return the stream id and the answer, which must be yes."""
        id_ = await self.request(tag, kind, **fields)
        answer = await self.answer(id_)
        assert isinstance(answer, Attached), answer
        return id_, answer

    async def refused(self, tag: str = "t", kind: Kind = Kind.EXEC, **fields: Any) -> Refused:
        """Attach; return the answer, which must be no."""
        answer = await self.answer(await self.request(tag, kind, **fields))
        assert isinstance(answer, Refused), answer
        return answer

    async def resume(
        self, answer: Attached, have: dict[Channel, int], **fields: Any
    ) -> tuple[int, Attached]:
        """Attach where `answer` came from, going on at `have`."""
        resume = Resume(stream=answer.stream, have=have)
        return await self.attach(answer.tag, answer.kind, resume=resume, **fields)

    async def input(self, stream: int, offset: int, data: bytes) -> None:
        await self.send(encode_data_header(stream, Channel.INPUT, offset, len(data)) + data)

    async def credit(self, stream: int, channel: Channel = Channel.OUTPUT, **fields: int) -> None:
        await self.send(encode(Credit(**fields), stream, channel))

    async def detach(self, stream: int) -> None:
        await self.send(encode(Detach(), stream))

    # ---------------------------------------------------------------- reading

    async def answer(self, stream: int) -> Attached | Refused:
        with trio.fail_after(PATIENCE):
            while True:
                for index, (id_, _, message) in enumerate(self.messages):
                    if id_ == stream and isinstance(message, Attached | Refused):
                        del self.messages[index]
                        return message
                await self._wait()

    async def expect(self, type_: type[M], stream: int | None = None) -> M:
        """Wait for a message of `type_` (on `stream`), take it out and return it."""
        _, message = await self.expect_from(type_, stream)
        return message

    async def expect_from(self, type_: type[M], stream: int | None = None) -> tuple[int, M]:
        """The same, with the stream id it came on."""
        with trio.fail_after(PATIENCE):
            while True:
                for index, (id_, _, message) in enumerate(self.messages):
                    if isinstance(message, type_) and (stream is None or id_ == stream):
                        del self.messages[index]
                        return id_, message
                await self._wait()

    def has(self, type_: type[Message], stream: int | None = None) -> bool:
        return any(
            isinstance(message, type_) and (stream is None or id_ == stream)
            for id_, _, message in self.messages
        )

    def received(self, stream: int, channel: Channel = Channel.OUTPUT) -> Received:
        return self.channels.setdefault((stream, channel), Received())

    async def wait_for_bytes(
        self, stream: int, end: int, channel: Channel = Channel.OUTPUT
    ) -> Received:
        """Wait until everything below the offset `end` has come (or gone)."""
        with trio.fail_after(PATIENCE):
            while self.received(stream, channel).end < end:
                await self._wait()
        return self.received(stream, channel)

    async def wait_for_fin(self, stream: int, channel: Channel = Channel.OUTPUT) -> Received:
        with trio.fail_after(PATIENCE):
            while self.received(stream, channel).fin is None:
                await self._wait()
        return self.received(stream, channel)

    async def wait_ended(self) -> GoAway | None:
        """Wait until the other side has closed the carrier; return its GOAWAY, if any."""
        with trio.fail_after(PATIENCE):
            while self.ended is None:
                await self._wait()
        return next((m for _, _, m in self.messages if isinstance(m, GoAway)), None)

    async def _wait(self) -> None:
        if self.ended is not None:
            raise AssertionError(f"the carrier has ended ({self.ended}): {self.messages}")
        await self._changed.wait()


@asynccontextmanager
async def open_raw_peer(carrier: Carrier, *, dialer: bool = True) -> AsyncIterator[RawPeer]:
    """Greet, and read for as long as the block lasts; then close the carrier."""
    peer = RawPeer(carrier, dialer=dialer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        await peer.hello()
        try:
            yield peer
        finally:
            nursery.cancel_scope.cancel()
            with trio.move_on_after(1, shield=True):
                await carrier.aclose()
