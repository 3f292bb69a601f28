"""What a link runs on: a reliable, ordered byte pipe.

A WebSocket, a TLS socket, an SSH channel and a pair of in-memory queues are carriers.  The relay
never asks what is underneath.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from relay.protocol.reasons import CloseReason

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class CarrierStatistics:
    """Counters of one carrier, in bytes of payload (framing of the carrier excluded)."""

    bytes_sent: int
    bytes_received: int


class Carrier(ABC):
    """A reliable, ordered, full-duplex byte pipe.

    One task may send and another may receive at the same time; two concurrent senders (or two
    receivers) are a bug of the caller.
    """

    @property
    @abstractmethod
    def description(self) -> str:
        """What is underneath and who is at the other end, for logs; never a credential."""

    @abstractmethod
    async def receive(self) -> Buffer:
        """Wait for bytes and return them; ``b""`` once the peer has ended the pipe.

        The buffer is valid until the next call only.

        Raises:
          trio.BrokenResourceError: the pipe broke, or the peer broke the carrier's own framing.
          trio.ClosedResourceError: this side closed the carrier.

        Cancellation: safe; no byte is lost.
        """

    @abstractmethod
    async def send(self, buffers: Sequence[Buffer]) -> None:
        """Send the concatenation of `buffers` (whole trunk/1 frames) as one unit.

        Raises:
          trio.BrokenResourceError: the pipe broke.
          trio.ClosedResourceError: this side closed the carrier.

        Cancellation: leaves the carrier unusable for sending, because part of a unit may be out.
        """

    @abstractmethod
    async def aclose(self, reason: CloseReason | None = None) -> None:
        """Close the carrier, telling the peer `reason` where the carrier has a way to say it.

        Never raises for a pipe that is already broken.  Cancellation: closes abruptly instead.
        """

    @abstractmethod
    def statistics(self) -> CarrierStatistics:
        """Return a snapshot of the counters."""
