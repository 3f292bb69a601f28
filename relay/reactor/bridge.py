"""A WebSocket and a socket to a port, joined: bytes go both ways until either side ends.

`Bridge.run` waits in the connection's own task while the reactor's task does the work, and tells how it
ended.  It closes nothing: what is said to either side at the end is for its caller, who gets back
everything that is still on its way.  See `proxy.raw_socket` for what the ends mean.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

import trio

from relay.carrier import Buffer
from relay.reactor.downstream import Downstream
from relay.reactor.reactor import Reactor
from relay.reactor.upstream import Upstream
from relay.websocket.connection import WebSocket
from relay.websocket.frames import Close, FrameError


class BridgeEnd(Enum):
    """Why a bridge has ended."""

    PORT_ENDED = auto()
    """The port's output has ended, and the client's socket has all of it."""
    PORT_BROKE = auto()
    """The connection to the port broke: the end of its output may be missing."""
    CLIENT_CLOSED = auto()
    """The client sent a close frame."""
    CLIENT_VANISHED = auto()
    """The client's connection broke or ended without a close frame."""
    CLIENT_BROKE_PROTOCOL = auto()
    """The client sent what RFC 6455 forbids."""
    STOPPED = auto()
    """This side ended it."""
    FAILED = auto()
    """A bug of ours; it is in the log."""


@dataclass(frozen=True, slots=True)
class BridgeStatistics:
    """Payload bytes moved, and bytes that the sinks have not taken yet (at most 256 KiB each)."""

    bytes_down: int
    bytes_up: int
    held_down: int
    held_up: int


class Bridge:
    """Joins `websocket` and `port` (a socket connected to it), which stay their owners'.

    While `run` runs, nobody else may use either.

    Raises:
      ValueError: the WebSocket is not on a plain socket.
    """

    def __init__(
        self, reactor: Reactor, websocket: WebSocket, port: trio.socket.SocketType
    ) -> None:
        loan = websocket.lend()
        if loan is None:
            raise ValueError("this WebSocket is not on a plain socket")
        self._reactor = reactor
        self._websocket = websocket
        self._client = loan.socket
        self._port = port
        self._down = Downstream(self, reactor, port, loan.socket)
        self._up = Upstream(self, reactor, loan.reader, loan.socket, port)
        self._over = trio.Event()
        self._end: BridgeEnd | None = None
        self._client_takes = True
        self._port_error: OSError | None = None
        self._close: Close | None = None
        self.error: FrameError | None = None
        """What the client did, where it broke the protocol."""
        self.detail = ""
        """What the kernel said, where something broke."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended: no pump moves anything any more."""
        return self._end is not None

    @property
    def undelivered(self) -> Buffer:
        """What came from the client and the port still has to get."""
        return self._up.undelivered

    async def run(self) -> BridgeEnd:
        """Move bytes until either side ends, or `stop`; return why.

        Cancellation: stops at once; what was read from one side may not have been written to the
        other.
        """
        client, port = self._client.fileno(), self._port.fileno()
        try:
            if client < 0 or port < 0:
                self._finish(BridgeEnd.STOPPED)
                await trio.lowlevel.checkpoint()
            else:
                _take_all_the_kernel_gives(self._client)
                _take_all_the_kernel_gives(self._port)
                self._reactor.register(client, self._up, self._down)
                self._reactor.register(port, self._down, self._up)
                await self._over.wait()
        finally:
            self._finish(BridgeEnd.STOPPED)
            self._reactor.unregister(client, self._up)
            self._reactor.unregister(port, self._down)
            self._websocket.take_back(self._down.take_unsent(), self._down.bytes_moved, self._close)
        return self._end or BridgeEnd.STOPPED

    def stop(self) -> None:
        """End it from this side.  Idempotent."""
        self._finish(BridgeEnd.STOPPED)

    def _finish(self, end: BridgeEnd) -> None:
        if self._end is None:
            self._end = end
            self._down.readable = self._up.readable = False
            self._over.set()

    # What the pumps have to say.

    def port_ended(self) -> None:
        """The port's output has ended, or seems to."""
        if self._port_error is not None:
            self.port_broke(self._port_error)
        else:
            self._finish(BridgeEnd.PORT_ENDED)

    def port_failed(self, error: OSError) -> None:
        """Writing to the port told that the connection is broken, which the kernel does once only.

        What came before can still be read; then a read says "end", as if all had been in order.
        """
        self._port_error = error

    def port_broke(self, error: OSError) -> None:
        """The connection to the port broke."""
        self.detail = str(error)
        self._finish(BridgeEnd.PORT_BROKE)

    def client_closed(self, close: Close) -> None:
        """The client sent a close frame."""
        self._close = close
        self._finish(BridgeEnd.CLIENT_CLOSED)

    def client_vanished(self, detail: str) -> None:
        """The client's connection is gone."""
        self.detail = detail
        self._finish(BridgeEnd.CLIENT_VANISHED)

    def client_broke_protocol(self, error: FrameError) -> None:
        """The client sent what it must not."""
        self.error = error
        self._finish(BridgeEnd.CLIENT_BROKE_PROTOCOL)

    def client_takes_nothing(self) -> None:
        """Writing to the client failed; what it sent before may still tell how it left."""
        self._client_takes = False
        if self._up.blocked:
            self.client_vanished("the connection broke")

    def port_blocks(self) -> None:
        """The port does not read now, so nobody would find out that the client has gone."""
        if not self._client_takes:
            self.client_vanished("the connection broke")

    def answer_ping(self, payload: bytes) -> None:
        """The client sent a ping."""
        self._down.answer_ping(payload)

    def failed(self, error: Exception) -> None:
        """A pump raised what it must not."""
        self.detail = str(error)
        self._finish(BridgeEnd.FAILED)

    def statistics(self) -> BridgeStatistics:
        """Return a snapshot."""
        return BridgeStatistics(
            bytes_down=self._down.bytes_moved,
            bytes_up=self._up.bytes_moved,
            held_down=self._down.bytes_held,
            held_up=self._up.bytes_held,
        )


def _take_all_the_kernel_gives(owner: trio.socket.SocketType) -> None:
    """Undo Trio's small TCP_NOTSENT_LOWAT: here is nothing that bulk could hold up in the kernel.

    With it, a write takes a fraction of what it could, at several times the cost.
    """
    if owner.family != socket.AF_UNIX:
        with suppress(OSError):  # broken already: the first read tells
            owner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
