"""How much the owner of streams holds, and for how long.

Worst case per stream: `ring_bytes` and one `read_bytes` for each output channel, and `input_window`
for each attachment in control (one at a time).  docs/topics/memory.md does the sum.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.protocol.windows import RENEW_BYTES


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Sizes in bytes, times in seconds."""

    ring_bytes: int = 1024 * 1024
    """Replay ring of one output channel: at least 128 KiB, what readers may leave unacknowledged."""
    read_bytes: int = 64 * 1024
    """The most that is read from the process at a time; held while the ring has no room."""
    input_window: int = 256 * 1024
    """Input that a client may have under way."""
    linger: float = 30.0
    """How long a stream waits for an attachment whose link was lost."""
    connection_linger: float = 600.0
    """The same for a connection to a port: what it leads to cannot be started again."""
    retention: float = 600.0
    """How long an ended stream can still be read."""
    budget_bytes: int = 1024 * 1024 * 1024
    """What the replay rings of all streams of a server hold together."""
    max_streams: int = 64
    """Streams of one session, ended ones that are retained included."""
    max_passages: int = 1024
    """Plain WebSockets to ports of one session that are joined directly: they hold no ring."""
    max_attachments: int = 64
    """Attachments that one stream remembers; those without a link are forgotten first."""

    def __post_init__(self) -> None:
        if self.ring_bytes < RENEW_BYTES:
            raise ValueError(f"ring_bytes must be at least {RENEW_BYTES}, not {self.ring_bytes}")
        if not 0 < self.read_bytes <= self.ring_bytes:
            raise ValueError("read_bytes must be in 1..ring_bytes")
