"""Connections to ports that are joined with their client directly, without trunk/1.

A plain WebSocket to a port cannot be resumed: when it is cut, nobody knows what has arrived.  So there
is nothing to keep for it, no ring and no window; where the agent is in the same process and the sandbox
has a socket to give, the two sockets are joined by the relay's reactor.  To everybody else such a
*passage* is a stream like others: it has a tag, is listed, counts, is closed with a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import trio

from relay.attachment import AttachmentStatistics
from relay.endpoint import Channel, Kind, SocketTarget
from relay.errors import AttachRefused
from relay.grant import Grant, Mode
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason, Refusal
from relay.protocol.ring import RingStatistics
from relay.stream import StreamState, StreamStatistics

_ENDING = frozenset({"HUP", "INT", "QUIT", "TERM"})
_RESETTING = frozenset({"ABRT", "KILL"})


@dataclass(frozen=True, slots=True)
class PassageCounters:
    """Payload bytes moved to the client and from it, and those read from it that the port has not taken."""

    bytes_down: int = 0
    bytes_up: int = 0
    held_up: int = 0


class Passage:
    """One such connection."""

    def __init__(self, grant: Grant, kind: Kind, tag: str, target: SocketTarget) -> None:
        self.name = str(uuid4())
        self.grant = grant
        self.kind = kind
        self.tag = tag
        self.target = target
        self.reason: CloseReason | None = None
        """Why it was closed from this side."""
        self.is_reset = False
        """Whether the port is to learn that the connection broke."""
        self._started_at = trio.current_time()
        self._stop: Callable[[], None] | None = None
        self._count: Callable[[], PassageCounters] = PassageCounters

    def carried_by(self, stop: Callable[[], None], count: Callable[[], PassageCounters]) -> None:
        """Say who moves the bytes: how to stop it, and how to ask for its counters."""
        self._stop = stop
        self._count = count
        if self.reason is not None:
            stop()

    def close(self, reason: CloseReason, *, reset: bool = False) -> None:
        """Close it from this side.  The first reason counts."""
        if self.reason is None:
            self.reason = reason
            self.is_reset = reset
            if self._stop is not None:
                self._stop()

    def send_signal(self, name: str) -> None:
        """As `relay.endpoint.Endpoint.send_signal` of a connection."""
        if name in _ENDING or name in _RESETTING:
            self.close(CloseReason.EXITED, reset=name in _RESETTING)

    def statistics(self) -> StreamStatistics:
        """Return a snapshot, as of a stream with one client."""
        counters = self._count()
        moved = counters.bytes_down
        return StreamStatistics(
            name=self.name,
            tag=self.tag,
            kind=self.kind,
            state=StreamState.RUNNING,
            command=(),
            pid=None,
            age=trio.current_time() - self._started_at,
            exit=None,
            rings={Channel.OUTPUT: RingStatistics(moved, moved, 0, 0, 0)},
            input_waiting=counters.held_up,
            attachments=(
                AttachmentStatistics(
                    attachment=self.name,
                    subject=self.grant.subject,
                    mode=Mode.CONTROL,
                    policy=Policy.PACE,
                    bound=True,
                    accepted=counters.bytes_up,
                    senders={},
                ),
            ),
        )


class Passages:
    """The passages of one session, by tag."""

    def __init__(self) -> None:
        self._passages: dict[str, Passage] = {}

    def __len__(self) -> int:
        return len(self._passages)

    def __contains__(self, tag: str) -> bool:
        return tag in self._passages

    def __getitem__(self, tag: str) -> Passage:
        return self._passages[tag]

    def open(self, grant: Grant, kind: Kind, tag: str, target: SocketTarget) -> Passage:
        """Make one.

        Raises:
          AttachRefused: the grant does not cover it.
        """
        if not grant.allows(kind, Mode.CONTROL, tag):
            raise AttachRefused(
                Refusal.FORBIDDEN, f"the ticket does not cover control of {kind} {tag!r}"
            )
        if not grant.allows_socket(target):
            raise AttachRefused(
                Refusal.FORBIDDEN,
                f"the ticket does not cover {kind} to {target}; it covers {grant.ports}",
            )
        passage = self._passages[tag] = Passage(grant, kind, tag, target)
        return passage

    def forget(self, passage: Passage) -> None:
        """It has ended.  Idempotent."""
        if self._passages.get(passage.tag) is passage:
            del self._passages[passage.tag]

    def close(self, reason: CloseReason) -> None:
        """Close all."""
        for passage in tuple(self._passages.values()):
            passage.close(reason)

    def revoke(self, epoch: int) -> None:
        """Close those whose grant is older than `epoch`."""
        for passage in tuple(self._passages.values()):
            if passage.grant.epoch < epoch:
                passage.close(CloseReason.REVOKED)

    def statistics(self) -> tuple[StreamStatistics, ...]:
        """Return a snapshot of each."""
        return tuple(passage.statistics() for passage in self._passages.values())
