"""RFC 6455 WebSockets: a sans-I/O codec, a connection on a Trio stream, and a carrier on that."""

from relay.websocket.carrier import WebSocketCarrier
from relay.websocket.connection import WebSocket, WebSocketStatistics
from relay.websocket.frames import Binary, Close, CloseCode, FrameError, Role, Text

__all__ = [
    "Binary",
    "Close",
    "CloseCode",
    "FrameError",
    "Role",
    "Text",
    "WebSocket",
    "WebSocketCarrier",
    "WebSocketStatistics",
]
