"""A WebSocket as a carrier: its binary messages are one byte pipe each way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from relay.carrier import Buffer, Carrier, CarrierStatistics
from relay.protocol.reasons import CloseReason
from relay.websocket.connection import WebSocket
from relay.websocket.frames import CloseCode, Text

CLOSE_CODES: Mapping[CloseReason, CloseCode] = {
    CloseReason.EXITED: CloseCode.NORMAL,
    CloseReason.DETACHED: CloseCode.NORMAL,
    CloseReason.SUPERSEDED: CloseCode.NORMAL,
    CloseReason.TAKEN_OVER: CloseCode.NORMAL,
    CloseReason.SESSION_ENDED: CloseCode.NORMAL,
    CloseReason.SESSION_STOPPED: CloseCode.NORMAL,
    CloseReason.DRAINING: CloseCode.GOING_AWAY,
    CloseReason.PROTOCOL_ERROR: CloseCode.PROTOCOL_ERROR,
    CloseReason.EXPIRED: CloseCode.POLICY_VIOLATION,
    CloseReason.REVOKED: CloseCode.POLICY_VIOLATION,
    CloseReason.SLOW_READER: CloseCode.POLICY_VIOLATION,
    CloseReason.TOO_FAR_BEHIND: CloseCode.POLICY_VIOLATION,
    CloseReason.AGENT_LOST: CloseCode.INTERNAL_ERROR,
    CloseReason.CONNECTION_LOST: CloseCode.INTERNAL_ERROR,
    CloseReason.INTERNAL_ERROR: CloseCode.INTERNAL_ERROR,
}
"""The WebSocket close code that goes with each reason; the reason's value is the close text."""


class WebSocketCarrier(Carrier):
    """Binary messages as a byte pipe; message boundaries mean nothing, text is an error."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    @property
    def websocket(self) -> WebSocket:
        """The WebSocket underneath."""
        return self._websocket

    @property
    def description(self) -> str:
        """See `Carrier.description`."""
        return f"WebSocket {self._websocket.peer}".rstrip()

    async def receive(self) -> Buffer:
        """See `Carrier.receive`."""
        message = await self._websocket.receive(merge=True)
        if message is None:
            return b""
        if isinstance(message, Text):
            await self._websocket.close(
                CloseCode.UNSUPPORTED_DATA, "this subprotocol uses binary messages only"
            )
            raise trio.BrokenResourceError("protocol error of the peer: a text message")
        return message.data

    async def send(self, buffers: Sequence[Buffer]) -> None:
        """See `Carrier.send`: one unit is one message."""
        await self._websocket.send_binary(buffers)

    async def aclose(self, reason: CloseReason | None = None) -> None:
        """See `Carrier.aclose`."""
        if reason is None:
            await self._websocket.close()
        else:
            await self._websocket.close(CLOSE_CODES[reason], reason.value)

    def statistics(self) -> CarrierStatistics:
        """See `Carrier.statistics`."""
        statistics = self._websocket.statistics()
        return CarrierStatistics(statistics.bytes_sent, statistics.bytes_received)
