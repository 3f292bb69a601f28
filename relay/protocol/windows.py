"""Flow control by absolute offset (§ 4), one object per channel and direction.

As in QUIC (RFC 9000 § 4.1) the receiver says up to which offset it will take bytes.  An absolute
value is idempotent: it may be repeated, lost with a link or come twice.

Windows grow as in yamux implementations that tune themselves: one of which half was used up within
one round trip was too small for the path, so it is doubled, up to a limit of its own and as long as
all windows of the connection together have not grown by more than theirs.

Renewal and acknowledgement go together, and a large window must not delay them: the sender keeps
what is not acknowledged, in a ring that may be smaller than the window, and would wait for ever for
an acknowledgement that waits for more bytes.  Hence `RENEW_BYTES`.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.protocol.budget import Budget
from relay.protocol.errors import LocalProtocolError, RemoteProtocolError

INITIAL_WINDOW = 256 * 1024
"""Bytes; keeps an echo under a flood at about 2 ms on one machine, and 20 MB/s at 12 ms."""
MAX_WINDOW = 4 * 1024 * 1024
"""Bytes; what one channel's window may grow to."""
MAX_GROWTH = 16 * 1024 * 1024
"""Bytes by which all windows of a connection together may grow.  They share one path, and a path
needs no more than its bandwidth times its round trip: this is 1.3 Gbit/s at 100 ms."""
RENEW_BYTES = 128 * 1024
"""The most that may be consumed before CREDIT says so (§ 4); less than any owner's ring holds."""


@dataclass(frozen=True, slots=True)
class WindowStatistics:
    """Offsets of one direction of a channel, and the size of its window, in bytes."""

    received: int
    consumed: int
    granted: int
    window: int


class SendWindow:
    """What a peer allows us to send.  Invariant: `sent` never passes `limit`, except over a GAP."""

    def __init__(self, sent: int, limit: int) -> None:
        self.sent = sent
        self.limit = limit
        self.acked = sent

    @property
    def available(self) -> int:
        """How many bytes may be sent now."""
        return max(0, self.limit - self.sent)

    def advance(self, count: int) -> None:
        """Count bytes as sent."""
        if count > self.available:
            raise LocalProtocolError(f"{count} bytes sent with a credit of {self.available}")
        self.sent += count

    def skip_to(self, offset: int) -> None:
        """Pass over a gap."""
        self.sent = offset

    def credited(self, up_to: int) -> None:
        """Take in a CREDIT; one that is older than what we have changes nothing."""
        self.limit = max(self.limit, up_to)

    def acknowledged(self, ack: int) -> None:
        """Take in an acknowledgement.

        Raises:
          RemoteProtocolError: it covers bytes that were never sent.
        """
        if ack > self.sent:
            raise RemoteProtocolError(f"bytes up to {ack} acknowledged, {self.sent} sent")
        self.acked = max(self.acked, ack)


class ReceiveWindow:
    """What we allow the peer to send.

    Invariant: ``consumed <= received <= granted``, except that a GAP may pass `granted`.

    What the window grows by is taken from `growth`, which the windows of a connection share (None:
    no such bound).  `shrink` gives it back.
    """

    def __init__(
        self,
        offset: int,
        window: int = INITIAL_WINDOW,
        max_window: int = MAX_WINDOW,
        granted: int | None = None,
        growth: Budget | None = None,
    ) -> None:
        self.received = offset
        self.consumed = offset
        self.window = window
        self.granted = offset + window if granted is None else granted
        self._max_window = max(window, max_window)
        self._growth = growth
        self._grown = 0
        self._measured_from = offset
        self._measured_since: float | None = None

    def check(self, offset: int, size: int) -> None:
        """Take in `size` bytes at `offset`.

        Raises:
          RemoteProtocolError: they are not the next ones, or nobody allowed them.
        """
        if offset != self.received:
            raise RemoteProtocolError(f"bytes at offset {offset}, expected {self.received}")
        if offset + size > self.granted:
            raise RemoteProtocolError(
                f"bytes up to {offset + size}, credit given up to {self.granted}"
            )
        self.received += size

    def skip(self, start: int, to: int) -> None:
        """Take in a GAP.

        Raises:
          RemoteProtocolError: it does not begin at the next offset, does not go forward, or comes
            without credit for the byte at `start`.
        """
        if start != self.received or to <= start:
            raise RemoteProtocolError(f"a gap {start}..{to}, expected from {self.received}")
        if start >= self.granted:
            raise RemoteProtocolError(f"a gap from {start}, credit given up to {self.granted}")
        self.received = to

    def consume(self, offset: int) -> None:
        """Say that everything below `offset` has been consumed."""
        if not self.consumed <= offset <= self.received:
            raise LocalProtocolError(f"consumed {offset}, not in {self.consumed}..{self.received}")
        self.consumed = offset

    def renewal(self, now: float, round_trip: float | None) -> int | None:
        """Return the new `up_to` when it is time for one, else None.

        That is when half a window or `RENEW_BYTES` have been consumed.  `now` and `round_trip` are
        in seconds; `round_trip` is None while it is not known.
        """
        due = min(self.window // 2, RENEW_BYTES)
        if self.consumed + self.window - self.granted < due:
            return None
        self._tune(now, round_trip)
        self.granted = max(self.granted, self.consumed + self.window)
        return self.granted

    def _tune(self, now: float, round_trip: float | None) -> None:
        """Double the window if half of it was consumed within one round trip."""
        if self.consumed - self._measured_from < self.window // 2:
            return
        since = self._measured_since
        if round_trip is not None and since is not None and now - since < round_trip:
            self._grow()
        self._measured_from = self.consumed
        self._measured_since = now

    def _grow(self) -> None:
        more = min(self.window, self._max_window - self.window)
        if self._growth is not None:
            more = min(more, self._growth.available)
            self._growth.take(more)
        self.window += more
        self._grown += more

    def shrink(self) -> None:
        """Go back to the first size: nothing more will come, and others can use the growth."""
        if self._growth is not None:
            self._growth.give_back(self._grown)
        self.window -= self._grown
        self._grown = 0

    def statistics(self) -> WindowStatistics:
        """Return a snapshot."""
        return WindowStatistics(self.received, self.consumed, self.granted, self.window)
