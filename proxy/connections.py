"""The book of open connections: how many, in what phase, and how to end them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import trio


class Phase(Enum):
    """What a connection is doing."""

    OPENING = "opening"
    """TLS handshake."""
    IDLE = "idle"
    """Waiting for the head of a request."""
    REQUEST = "request"
    """Running an HTTP/1.1 request."""
    HTTP2 = "http2"
    """Speaking HTTP/2, whatever happens inside."""
    WEBSOCKET = "websocket"
    """An accepted WebSocket."""


class Connection:
    """One open connection.

    Attributes:
      stream: The TCP connection, below TLS where there is TLS.
      peer: The client's address, for logs.
      scope: Cancels the task that serves it.
    """

    def __init__(self, stream: trio.SocketStream, counts: Counter[Phase]) -> None:
        self.stream = stream
        self.peer = peer_name(stream)
        self.scope = trio.CancelScope()
        self._counts = counts
        self._phase = Phase.OPENING
        counts[Phase.OPENING] += 1

    @property
    def phase(self) -> Phase:
        """What it is doing."""
        return self._phase

    def enter(self, phase: Phase) -> None:
        """Note that it now does something else."""
        self._counts[self._phase] -= 1
        self._counts[phase] += 1
        self._phase = phase

    def leave(self) -> None:
        """Note that it has ended."""
        self._counts[self._phase] -= 1


@dataclass(frozen=True, slots=True)
class ConnectionsStatistics:
    """How many connections there are by phase, and how many were ever let in and turned away."""

    open: dict[Phase, int]
    admitted: int
    turned_away: int


class Connections:
    """All open connections of a front.

    Args:
      limit: How many may be open that are not an accepted WebSocket.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[Connection] = set()
        self._counts: Counter[Phase] = Counter()
        self._admitted = self._turned_away = 0
        self._empty = trio.Event()

    async def wait_empty(self) -> None:
        """Wait until no connection is open; meant for when none is admitted any more."""
        while self._open:
            self._empty = trio.Event()
            await self._empty.wait()

    def admit(self) -> bool:
        """Tell whether there is room for one more, and count the answer."""
        if len(self._open) - self._counts[Phase.WEBSOCKET] < self._limit:
            self._admitted += 1
            return True
        self._turned_away += 1
        return False

    @contextmanager
    def track(self, stream: trio.SocketStream) -> Iterator[Connection]:
        """Keep a connection in the book, inside its own cancel scope."""
        connection = Connection(stream, self._counts)
        self._open.add(connection)
        try:
            with connection.scope:
                yield connection
        finally:
            self._open.discard(connection)
            connection.leave()
            if not self._open:
                self._empty.set()

    def close_waiting(self) -> None:
        """End the connections that have no request running."""
        for connection in self._open:
            if connection.phase in (Phase.OPENING, Phase.IDLE):
                connection.scope.cancel()

    def cut(self) -> None:
        """End all connections, and close their sockets under whatever still uses them.

        The latter frees tasks that shield themselves from cancellation while they send.
        """
        for connection in self._open:
            connection.scope.cancel()
            connection.stream.socket.close()

    def statistics(self) -> ConnectionsStatistics:
        """Return a snapshot."""
        return ConnectionsStatistics(
            open={phase: self._counts[phase] for phase in Phase},
            admitted=self._admitted,
            turned_away=self._turned_away,
        )


def peer_name(stream: trio.SocketStream) -> str:
    """Return the client's address for logs, such as ``127.0.0.1:50000``; "" if it is gone."""
    try:
        address = stream.socket.getpeername()
    except OSError:
        return ""
    if not isinstance(address, tuple):
        return "unix"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}"
