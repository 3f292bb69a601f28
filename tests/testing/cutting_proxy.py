"""A TCP proxy that cuts connections: on command, or each WebSocket after so many bytes.

Everything random comes from a generator that is passed in, so a run can be repeated.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

import trio

PIECE = 32 * 1024


class Cut(Enum):
    """How a connection is cut."""

    RESET = auto()
    """RST in both directions: what is under way is lost."""
    FINISH = auto()
    """FIN in both directions, in the middle of a frame."""


@dataclass(eq=False, slots=True)
class _Pair:
    """A client's connection and ours to the server."""

    client: trio.SocketStream
    server: trio.SocketStream
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    budget: int | None = None
    is_websocket: bool = False
    how: Cut = Cut.RESET

    def abort(self) -> None:
        """Let closing these sockets send RST."""
        for stream in (self.client, self.server):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class CuttingProxy:
    """Made by `open_cutting_proxy`."""

    def __init__(self, target_port: int, budgets: Iterator[int], rng: random.Random) -> None:
        self._target_port = target_port
        self._budgets = budgets
        self._rng = rng
        self._pairs: set[_Pair] = set()
        self.websockets = 0
        """WebSockets that were opened through here."""
        self.cuts: list[Cut] = []
        """The WebSockets that were cut, and how."""
        self.refusing = False
        """Reset every new connection at once."""
        self.moved = 0
        """Bytes passed on in both directions."""

    def cut(self, how: Cut | None = None) -> None:
        """Cut every connection there is."""
        for pair in list(self._pairs):
            self._cut(pair, how or self._rng.choice(list(Cut)))

    def _cut(self, pair: _Pair, how: Cut) -> None:
        if pair.scope.cancel_called:
            return
        if pair.is_websocket:
            self.cuts.append(how)
        if how is Cut.RESET:
            pair.abort()
        pair.scope.cancel()

    async def serve(self, client: trio.SocketStream) -> None:
        """Serve one connection."""
        if self.refusing:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(client)
            return
        server = await trio.open_tcp_stream("127.0.0.1", self._target_port)
        assert isinstance(server, trio.SocketStream)
        pair = _Pair(client, server)
        self._pairs.add(pair)
        try:
            with pair.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, pair, client, server)
                    nursery.start_soon(self._pump, pair, server, client)
        finally:
            self._pairs.discard(pair)
            try:
                await trio.aclose_forcefully(client)
            finally:
                await trio.aclose_forcefully(server)

    async def _pump(self, pair: _Pair, source: trio.SocketStream, to: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some(PIECE):
                if source is pair.client and b"upgrade: websocket" in data.lower():
                    pair.is_websocket = True
                    pair.budget = next(self._budgets, None)
                    self.websockets += 1
                if pair.budget is not None:
                    data = data[: pair.budget]
                    pair.budget -= len(data)
                await to.send_all(data)
                self.moved += len(data)
                if pair.budget == 0:
                    self._cut(pair, self._rng.choice(list(Cut)))
            await to.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pair.scope.cancel()


@asynccontextmanager
async def open_cutting_proxy(
    listener: socket.socket,
    target_port: int,
    *,
    budgets: Iterable[int] = (),
    seed: int = 1,
) -> AsyncIterator[CuttingProxy]:
    """Proxy from `listener` (which stays open) to `target_port` of this machine.

    Each WebSocket is cut after the next number of bytes from `budgets`, both directions together;
    when there is none left, no more.
    """
    proxy = CuttingProxy(target_port, iter(budgets), random.Random(seed))
    own = trio.socket.from_stdlib_socket(listener.dup())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy.serve, [trio.SocketListener(own)])
        try:
            yield proxy
        finally:
            nursery.cancel_scope.cancel()
