"""Joining a WebSocket and a port through the reactor, and parting them properly.

See `proxy.raw_socket` for what each end means to the other side.
"""

from __future__ import annotations

import socket
import struct

import structlog
import trio

from relay.attachment_stream import CLOSE_SECONDS
from relay.passage import Passage, PassageCounters
from relay.protocol.reasons import CloseReason
from relay.reactor import Bridge, BridgeEnd, Reactor
from relay.transport import SocketTransport
from relay.websocket import CloseCode, WebSocket
from relay.websocket.carrier import CLOSE_CODES
from runtimes.base import OpenPassage

# With this a closed TCP socket sends RST.
_NO_LINGER = struct.pack("ii", 1, 0)

log = structlog.get_logger(__name__)


async def join_directly(reactor: Reactor, websocket: WebSocket, opened: OpenPassage) -> None:
    """Move bytes both ways until either side ends, then tell the other.

    Cancellation: resets the connection to the port.
    """
    passage, stream = opened.passage, opened.stream
    bridge = Bridge(reactor, websocket, stream.socket)

    def count() -> PassageCounters:
        now = bridge.statistics()
        return PassageCounters(now.bytes_down, now.bytes_up, now.held_up)

    passage.carried_by(bridge.stop, count)
    in_order = False
    try:
        end = await bridge.run()
        await _say_goodbye(websocket, bridge, end, passage)
        stopped = end is BridgeEnd.STOPPED
        leaving = stopped and passage.reason is CloseReason.DRAINING
        if leaving or end is BridgeEnd.PORT_ENDED or end is BridgeEnd.CLIENT_CLOSED:
            in_order = await _deliver_rest(bridge, stream)
        else:
            # What is dropped must not look as if there had been nothing more.
            in_order = stopped and not passage.is_reset and not bridge.undelivered
    finally:
        if not in_order and stream.socket.fileno() >= 0:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


async def _say_goodbye(
    websocket: WebSocket, bridge: Bridge, end: BridgeEnd, passage: Passage
) -> None:
    """Close the WebSocket in the way that tells how the connection ended."""
    if bridge.error is not None:
        log.debug("a client broke the protocol", error=str(bridge.error))
        await websocket.fail(bridge.error)
    elif end is BridgeEnd.STOPPED:
        reason = passage.reason or CloseReason.INTERNAL_ERROR
        await websocket.close(CLOSE_CODES[reason], reason)
    elif end is BridgeEnd.PORT_BROKE:
        await websocket.close(CloseCode.INTERNAL_ERROR, "the connection broke")
    elif end is BridgeEnd.FAILED:
        await websocket.close(CloseCode.INTERNAL_ERROR, CloseReason.INTERNAL_ERROR)
    else:
        await websocket.close()


async def _deliver_rest(bridge: Bridge, stream: trio.SocketStream) -> bool:
    """Give the port what came for it, and the end; tell whether it took that."""
    with trio.move_on_after(CLOSE_SECONDS) as scope:
        try:
            if bridge.undelivered:
                await SocketTransport(stream).send((bridge.undelivered,))
            await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return True  # it reads no more, and knows why
    return not scope.cancelled_caught
