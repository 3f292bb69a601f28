"""One channel on its way out: a cursor on a replay ring, under the peer's credit."""

from __future__ import annotations

from dataclasses import dataclass

from relay.protocol.frames import encode_data_header
from relay.protocol.messages import Fin, Gap, encode
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
    away from yields a GAP first.
    """

    def __init__(
        self, stream: int, channel: int, ring: ReplayRing, offset: int, limit: int
    ) -> None:
        self.window = SendWindow(offset, limit)
        self.fin_sent = False
        self.stopped = False
        self.queued = False
        self._stream = stream
        self._channel = channel
        self._ring = ring
        self._skipped = 0

    @property
    def ready(self) -> bool:
        """Whether `next_frame` would give something now."""
        if self.stopped or self.fin_sent:
            return False
        if self.window.sent < self._ring.end:
            return self.window.available > 0
        return self._ring.finished

    def next_frame(self, limit: int) -> tuple[bytes, ...]:
        """Return the buffers of the next frame, with at most `limit` bytes of data; () if none."""
        if self.stopped or self.fin_sent:
            return ()
        window = self.window
        ring = self._ring
        sent = window.sent
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
