"""One channel on its way out: a cursor on a replay ring, under the peer's credit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from relay.protocol.frames import encode_data_header
from relay.protocol.messages import Fin, Gap, Screen, encode
from relay.protocol.ring import ReplayRing
from relay.protocol.windows import SendWindow


@dataclass(frozen=True, slots=True)
class SenderStatistics:
    """Where one reader of a channel is: offsets, and bytes it is behind, skipped and blocked."""

    sent: int
    acked: int
    limit: int
    behind: int
    skipped: int
    finished: bool


class ChannelSender:
    """Turns the bytes of a ring into frames, one slice at a time.

    Any number of senders may read the same ring; none changes it.  A cursor that the ring has run
    away from yields a GAP first.  A reader that `keeps_screen` gets a SCREEN with it, which somebody
    has to make first: until `show` is called the sender waits.
    """

    def __init__(
        self, stream: int, channel: int, ring: ReplayRing, offset: int, limit: int
    ) -> None:
        self.window = SendWindow(offset, limit)
        self.fin_sent = False
        self.stopped = False
        self.queued = False
        self.keeps_screen = False
        """Whether a GAP is to be followed by a SCREEN."""
        self._first: deque[Gap | Screen] = deque()  # goes before anything else
        self._stream = stream
        self._channel = channel
        self._ring = ring
        self._skipped = 0

    @property
    def ready(self) -> bool:
        """Whether `next_frame` would give something now."""
        if self.stopped or self.fin_sent:
            return False
        if self._first:
            return self.window.available > 0 or not isinstance(self._first[0], Gap)
        if self.window.sent < self._ring.end:
            return self.window.available > 0 and not self.needs_screen
        return self._ring.finished

    @property
    def needs_screen(self) -> bool:
        """Whether this reader reads, the ring has run away from it, and it waits for `show`."""
        return (
            self.keeps_screen
            and self.window.sent < self._ring.start
            and self.window.available > 0
            and not (self._first or self.stopped)
        )

    def show(self, at: int, screen: Iterable[Screen]) -> None:
        """Send a screen, and go on with the bytes from offset `at` on.

        `at` must be in the ring, or the reader soon needs another screen.
        """
        sent = self.window.sent
        if at > sent:
            self._first.append(Gap(start=sent, to=at, screen=True))
            self._skipped += at - sent
        self._first.extend(screen)

    def show_nothing(self) -> None:
        """There is no screen: let the reader have the GAP alone."""
        start = self._ring.start
        if self.window.sent < start:
            self._first.append(Gap(start=self.window.sent, to=start))
            self._skipped += start - self.window.sent

    def next_frame(self, limit: int) -> tuple[bytes, ...]:
        """Return the buffers of the next frame, with at most `limit` bytes of data; () if none."""
        if self.stopped or self.fin_sent:
            return ()
        window = self.window
        ring = self._ring
        sent = window.sent
        if self._first:
            return self._next_first()
        if self.needs_screen:
            return ()
        if sent < ring.start and window.available:
            # Without credit the reader is not reading: it would get one GAP after the other.
            window.skip_to(ring.start)
            self._skipped += ring.start - sent
            return (encode(Gap(start=sent, to=ring.start), self._stream, self._channel),)
        if sent < ring.end:
            if not window.available:
                return ()
            data = ring.read(sent, min(limit, window.available))
            window.advance(len(data))
            return (encode_data_header(self._stream, self._channel, sent, len(data)), data)
        if ring.finished:
            self.fin_sent = True
            return (encode(Fin(at=sent), self._stream, self._channel),)
        return ()

    def _next_first(self) -> tuple[bytes, ...]:
        message = self._first[0]
        if isinstance(message, Gap):
            if not self.window.available:
                return ()
            self.window.skip_to(message.to)
        self._first.popleft()
        return (encode(message, self._stream, self._channel),)

    def statistics(self) -> SenderStatistics:
        """Return a snapshot."""
        window = self.window
        return SenderStatistics(
            sent=window.sent,
            acked=window.acked,
            limit=window.limit,
            behind=self._ring.end - window.sent,
            skipped=self._skipped,
            finished=self.fin_sent,
        )
