"""A client's carrier that reads along and holds both sides to docs/spec/trunk-1.md § 4 and § 5.

It keeps its own account of offsets and credit, frame by frame, and knows nothing of the windows,
rings and states that it checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.carrier import Buffer, Carrier, CarrierStatistics
from relay.protocol.frames import DataPiece, FrameDecoder
from relay.protocol.messages import (
    Attach,
    Attached,
    Closed,
    Credit,
    Detach,
    Exit,
    Fin,
    Gap,
    Message,
    Refused,
    Resize,
    Signal,
    Stop,
    decode,
)
from relay.protocol.reasons import CloseReason


@dataclass
class _Account:
    """One direction of one channel."""

    next: int
    limit: int
    acked: int = 0
    over: bool = False

    def data(self, offset: int, size: int) -> None:
        assert not self.over, "bytes after FIN or STOP"
        assert offset == self.next, f"bytes at {offset}, {self.next} comes next"
        assert offset + size <= self.limit, f"bytes to {offset + size}, credit to {self.limit}"
        self.next += size

    def gap(self, start: int, to: int) -> None:
        assert not self.over, "a gap after FIN"
        assert start == self.next < to
        assert start < self.limit, "a gap for one who has no credit"
        self.next = to

    def fin(self, at: int) -> None:
        assert not self.over, "FIN twice"
        assert at == self.next
        self.over = True

    def credit(self, ack: int | None, up_to: int | None) -> None:
        if ack is not None:
            assert self.acked <= ack <= self.next
            self.acked = ack
        if up_to is not None:
            assert up_to >= self.limit, "credit was taken back"
            self.limit = up_to


@dataclass
class _Id:
    """One stream id."""

    request: Attach
    answer: Attached | None = None
    output: dict[int, _Account] = field(default_factory=dict)
    input: _Account | None = None
    detached: bool = False
    ended: CloseReason | str | None = None
    exited: bool = False


@dataclass
class Ledger:
    """What all carriers of one client have seen."""

    bytes_in: int = 0
    bytes_out: int = 0
    gaps: int = 0
    endings: dict[str, list[CloseReason | str]] = field(default_factory=dict)
    """By attachment id, the reasons in CLOSED and REFUSED, in order."""


class WatchedCarrier(Carrier):
    """Passes everything on; an AssertionError says which side broke which rule."""

    def __init__(self, inner: Carrier, ledger: Ledger) -> None:
        self._inner = inner
        self._ledger = ledger
        self._in, self._out = FrameDecoder(), FrameDecoder()
        self._ids: dict[int, _Id] = {}

    @property
    def description(self) -> str:
        return self._inner.description

    async def receive(self) -> Buffer:
        data = await self._inner.receive()
        for frame in self._in.feed(data):
            if isinstance(frame, DataPiece):
                assert self._live(frame.stream, "DATA").answer is not None
                self._ids[frame.stream].output[frame.channel].data(frame.offset, len(frame.data))
                self._ledger.bytes_in += len(frame.data)
            else:
                message = decode(frame)
                assert message is not None
                if frame.stream:
                    self._came(frame.stream, frame.channel, message)
        return data

    async def send(self, buffers: Sequence[Buffer]) -> None:
        for buffer in buffers:
            for frame in self._out.feed(bytes(buffer)):
                if isinstance(frame, DataPiece):
                    account = self._going(frame.stream).input
                    assert account is not None
                    account.data(frame.offset, len(frame.data))
                    self._ledger.bytes_out += len(frame.data)
                else:
                    message = decode(frame)
                    assert message is not None
                    if frame.stream:
                        self._goes(frame.stream, frame.channel, message)
        await self._inner.send(buffers)

    def _live(self, id_: int, what: str) -> _Id:
        one = self._ids[id_]
        assert one.ended is None, f"{what} after the end ({one.ended})"
        return one

    def _going(self, id_: int) -> _Id:
        one = self._ids[id_]
        assert not one.detached, "a frame after DETACH"
        return one

    def _came(self, id_: int, channel: int, message: Message) -> None:
        one = self._live(id_, type(message).__name__)
        match message:
            case Attached():
                assert one.answer is None, "two answers"
                one.answer = message
                if one.request.resume is not None:
                    assert message.start == one.request.resume.have
                for number, offset in message.start.items():
                    window = one.request.window.get(number, 0)
                    one.output[number] = _Account(offset, offset + window, offset)
                one.input = _Account(message.accepted, message.credit, message.accepted)
            case Closed(reason=reason):
                self._end(one, reason)
            case Refused(code=code):
                assert one.answer is None, "REFUSED after ATTACHED"
                self._end(one, str(code))
            case Gap(start=start, to=to):
                self._ledger.gaps += 1
                one.output[channel].gap(start, to)
            case Fin(at=at):
                one.output[channel].fin(at)
            case Exit():
                assert not one.exited, "two exits"
                assert all(account.over for account in one.output.values()), "EXIT before FIN"
                one.exited = True
            case Credit(ack=ack, up_to=up_to):
                assert one.input is not None
                one.input.credit(ack, up_to)
            case Stop():
                assert channel == 0
            case _:
                raise AssertionError(f"{message} from an owner")

    def _end(self, one: _Id, reason: CloseReason | str) -> None:
        one.ended = reason
        self._ledger.endings.setdefault(one.request.attachment, []).append(reason)

    def _goes(self, id_: int, channel: int, message: Message) -> None:
        if isinstance(message, Attach):
            assert id_ not in self._ids, "a stream id used twice"
            self._ids[id_] = _Id(message)
            return
        one = self._going(id_)
        match message:
            case Credit(ack=ack, up_to=up_to):
                one.output[channel].credit(ack, up_to)
            case Fin(at=at):
                assert channel == 0
                assert one.input is not None
                one.input.fin(at)
            case Stop():
                one.output[channel].over = True
            case Detach():
                one.detached = True
            case Resize() | Signal():
                assert one.answer is not None
            case _:
                raise AssertionError(f"{message} from an attacher")

    async def aclose(self, reason: CloseReason | None = None) -> None:
        await self._inner.aclose(reason)

    def statistics(self) -> CarrierStatistics:
        return self._inner.statistics()
