"""The limits of the front."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FrontConfig:
    """Limits and deadlines of the front; times in seconds, sizes in bytes, all positive."""

    max_connections: int = 1024
    """Connections that are not (yet) an accepted WebSocket.  One more is answered 503 and closed."""
    max_head_bytes: int = 64 * 1024
    """Request line and header fields together; more is answered 431."""
    head_timeout: float = 10.0
    """From accept to the end of the first head, and from the first byte of each later one to its end;
    later is answered 408."""
    idle_timeout: float = 60.0
    """A keep-alive connection without a request is closed after this."""
    tls_handshake_timeout: float = 10.0
    unread_body_bytes: int = 256 * 1024
    unread_body_timeout: float = 5.0
    """What is read of a request body that the app left unread, to keep the connection; beyond it the
    connection is closed."""
    grace: float = 5.0
    """What running requests and WebSockets get when the server stops; then they are cut."""
    lifespan_timeout: float = 30.0
    """For the app's start-up, and again for its shut-down."""
