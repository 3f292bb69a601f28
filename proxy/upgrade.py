"""From a request to a WebSocket: what the data plane sees of the opening handshake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol
from urllib.parse import parse_qsl

import trio

from proxy.connections import Connection, Phase
from proxy.heads import Fields, Head, Upgrade
from proxy.problem import phrase
from proxy.wire import PeerGone, Wire
from relay.websocket.connection import WebSocket
from relay.websocket.frames import Role
from relay.websocket.handshake import accept_value


class WebSocketRequest:
    """A client asks for a WebSocket; a handler either accepts or rejects it, once.

    Attributes:
      path: The path, percent-decoded.
      query: The values of each parameter of the query; it may hold a ticket, so it is not for logs.
      subprotocols: What the client offers, best first.
      client: The client's address, for logs.
      draining: Set once the server is going away; whoever runs the WebSocket should then tell its
        client and end, before the grace period does it.
    """

    def __init__(
        self,
        head: Head,
        upgrade: Upgrade,
        stream: trio.abc.Stream,
        wire: Wire,
        connection: Connection,
        draining: trio.Event,
    ) -> None:
        self.path = head.path
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(head.query.decode("ascii"), keep_blank_values=True):
            query.setdefault(name, []).append(value)
        self.query: Mapping[str, tuple[str, ...]] = {k: tuple(v) for k, v in query.items()}
        self.subprotocols = upgrade.subprotocols
        self.client = connection.peer
        self.draining = draining
        self._key = upgrade.key
        self._stream = stream
        self._wire: Wire | None = wire
        self._connection = connection
        self._websocket: WebSocket | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the connection is a socket, with nothing (TLS) in between."""
        return isinstance(self._stream, trio.SocketStream)

    @property
    def answered(self) -> bool:
        """Whether the request was accepted or rejected."""
        return self._wire is None

    @property
    def websocket(self) -> WebSocket | None:
        """The WebSocket, once the request was accepted."""
        return self._websocket

    def _take_wire(self) -> Wire:
        if self._wire is None:
            raise RuntimeError("this WebSocket request was accepted or rejected before")
        wire, self._wire = self._wire, None
        return wire

    async def accept(self, subprotocol: str | None = None) -> WebSocket:
        """Complete the opening handshake (RFC 6455 §4.2.2) and return the open WebSocket.

        The connection now counts as admitted: it leaves the limit on unaccepted ones.

        Args:
          subprotocol: One of those offered, or None to agree on none.

        Raises:
          ValueError: `subprotocol` was not offered.
          RuntimeError: the request was answered before.
          trio.BrokenResourceError: the client has left.

        Cancellation: the connection is lost.
        """
        if subprotocol is not None and subprotocol not in self.subprotocols:
            raise ValueError(f"the client did not offer the subprotocol {subprotocol!r}")
        wire = self._take_wire()
        fields: list[tuple[bytes, bytes]] = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", accept_value(self._key).encode("ascii")),
        ]
        if subprotocol is not None:
            fields.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
        try:
            initial = await wire.switch_protocols(tuple(fields))
        except PeerGone as error:
            raise trio.BrokenResourceError("the client left during the handshake") from error
        self._connection.enter(Phase.WEBSOCKET)
        self.query = {}  # it holds a ticket
        self._websocket = WebSocket(
            self._stream,
            Role.SERVER,
            initial=initial,
            subprotocol=subprotocol,
            peer=self.client,
        )
        return self._websocket

    async def reject(self, status: int, message: str, fields: Fields = ()) -> None:
        """Answer with an HTTP error and `message` as plain text, instead of a WebSocket.

        Args:
          status: 400 to 599.
          message: What the client is told; never a credential.
          fields: Header fields besides the usual ones.

        Raises:
          RuntimeError: the request was answered before.
          trio.BrokenResourceError: the client has left.
        """
        wire = self._take_wire()
        text = (message or phrase(status)).rstrip("\n") + "\n"
        try:
            await wire.answer(status, text.encode(), b"text/plain; charset=utf-8", fields)
            await wire.linger()
        except PeerGone as error:
            raise trio.BrokenResourceError("the client left") from error


DataPlane = Callable[[WebSocketRequest], Awaitable[None]]
"""What runs a WebSocket from its request to its end."""


class Routes(Protocol):
    """Which paths are WebSockets."""

    def match(self, path: str) -> DataPlane | None:
        """Return the handler for upgrade requests to `path`; None answers 404."""
