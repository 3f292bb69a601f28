"""What came on one output channel and waits for the caller of `receive`.

Small pieces are joined: the window bounds the bytes, and joining bounds the objects.  Screens are not
counted by windows; so of several that wait only the last is kept.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import trio

from relay.endpoint import Channel, TerminalSize
from relay.protocol.budget import Budget
from relay.protocol.errors import RemoteProtocolError
from relay.protocol.messages import MAX_SCREEN, Screen
from relay.protocol.windows import MAX_WINDOW, ReceiveWindow

JOINED_BYTES = 64 * 1024
"""The size up to which pieces are joined."""


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes of a channel, beginning at `offset`.  `replay`: others have seen them before."""

    channel: Channel
    offset: int
    data: bytes
    replay: bool = False


@dataclass(frozen=True, slots=True)
class ScreenOutput(Output):
    """What brings a freshly reset terminal of `size` to where the output is at `offset`.

    It stands for everything before, and contains no question.
    """

    size: TerminalSize = field(default_factory=TerminalSize)


@dataclass(frozen=True, slots=True)
class Missed:
    """Bytes `start` .. `to` of a channel no longer exist; `screen`: a `ScreenOutput` follows.

    Some of them may have come, if one screen waited to be taken when the next one came.
    """

    channel: Channel
    start: int
    to: int
    screen: bool = False


@dataclass(slots=True)
class _Piece:
    """Bytes that are still growing."""

    offset: int
    data: bytearray
    replay: bool


class Inbox:
    """The output of one channel between the link and the caller.

    `window` is its first size in bytes; what it grows by comes from `growth`, as for `ReceiveWindow`.
    """

    def __init__(self, channel: Channel, window: int, growth: Budget | None = None) -> None:
        self.channel = channel
        self.window = ReceiveWindow(0, window, max(window, MAX_WINDOW), growth=growth)
        self._growth = growth
        self.ended = False
        self.live = 0
        """Offset below which bytes are replay."""
        self.arrived = trio.lowlevel.ParkingLot()
        self.awaits_screen = False
        """Whether a screen was announced that has not come whole yet."""
        self._screen = bytearray()
        self._items: deque[_Piece | Missed | ScreenOutput] = deque()
        self._taken = 0  # offset after what `take` returned last

    def begin(self, offset: int, live: int) -> None:
        """Set where the channel begins; before anything came."""
        size = self.window.window
        self.window = ReceiveWindow(offset, size, max(size, MAX_WINDOW), growth=self._growth)
        self._taken = offset
        self.live = live

    def grant_for_resume(self) -> int:
        """Void what was granted on the old link; return the new credit, from `received` on."""
        window = self.window
        window.granted = max(window.received, window.consumed + window.window)
        return window.granted - window.received

    def put(self, offset: int, data: memoryview) -> None:
        """Add bytes that came."""
        if offset < self.live < offset + len(data):
            split = self.live - offset
            self.put(offset, data[:split])
            self.put(self.live, data[split:])
            return
        replay = offset < self.live
        last = self._items[-1] if self._items else None
        if (
            isinstance(last, _Piece)
            and last.replay is replay
            and len(last.data) + len(data) <= JOINED_BYTES
        ):
            last.data += data
        else:
            self._items.append(_Piece(offset, bytearray(data), replay))
        self.arrived.unpark_all()

    def expect_screen(self, *, announced: bool) -> None:
        """Begin to wait for a screen, or give up to wait."""
        self.awaits_screen = announced
        self._screen.clear()

    def put_screen(self, part: Screen) -> None:
        """Add a part of a screen.

        Raises:
          RemoteProtocolError: it was not announced, is not for where the channel is, or is too long.
        """
        if not self.awaits_screen or part.at != self.window.received:
            raise RemoteProtocolError(f"a SCREEN at {part.at} out of its turn")
        self._screen += part.data
        if len(self._screen) > MAX_SCREEN:
            raise RemoteProtocolError(f"a SCREEN of more than {MAX_SCREEN} bytes")
        if part.last:
            size = TerminalSize(part.columns, part.rows)
            data = bytes(self._screen)
            self._drop_what_is_overtaken(part.at)
            self._items.append(ScreenOutput(self.channel, part.at, data, replay=True, size=size))
            self.expect_screen(announced=False)
            self.arrived.unpark_all()

    def _drop_what_is_overtaken(self, at: int) -> None:
        """If a screen waits, drop it and what follows it: a later one has come, for offset `at`."""
        if not any(isinstance(item, ScreenOutput) for item in self._items):
            return
        while not isinstance(item := self._items.pop(), ScreenOutput):
            pass
        start = item.offset
        if self._items and isinstance(last := self._items[-1], Missed):
            self._items.pop()
            start = last.start
        if start < at:
            self._items.append(Missed(self.channel, start, at, screen=True))

    def put_gap(self, start: int, to: int, *, screen: bool = False) -> None:
        """Add a gap; one that goes on where the last item, a gap too, ends is joined to it."""
        if screen:
            self.expect_screen(announced=True)
        if self._items and isinstance(last := self._items[-1], Missed):
            self._items.pop()
            start = last.start
        self._items.append(Missed(self.channel, start, to, screen))
        self.arrived.unpark_all()

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self._shrink_when_done()
        self.arrived.unpark_all()

    def give_up(self) -> None:
        """The attachment is over: what came can still be taken, but is its caller's from now on."""
        self.window.shrink()
        self.arrived.unpark_all()

    def _shrink_when_done(self) -> None:
        if self.ended and not self._items:
            self.window.shrink()

    @property
    def waiting(self) -> int:
        """Bytes that came and were not taken, of screens too."""
        items = (item for item in self._items if not isinstance(item, Missed))
        return len(self._screen) + sum(len(item.data) for item in items)

    @property
    def is_empty(self) -> bool:
        """Whether `take` has nothing to give."""
        return not self._items

    def take(self) -> Output | Missed:
        """Return the oldest item."""
        item = self._items.popleft()
        self._shrink_when_done()
        if isinstance(item, Missed):
            self._taken = item.to
            return item
        if isinstance(item, ScreenOutput):
            return item
        self._taken = item.offset + len(item.data)
        return Output(self.channel, item.offset, bytes(item.data), item.replay)

    def consume_taken(self) -> bool:
        """Count what `take` returned as consumed; tell whether that ended the replay."""
        before = self.window.consumed
        self.window.consume(self._taken)
        return before < self.live <= self._taken
