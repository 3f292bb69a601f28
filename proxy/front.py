"""The front: one port for everything.

Theory of operation
===================

`serve` accepts connections and runs each in a task of its own, which nothing that happens on another
connection can end.  On it speaks HTTP/1.1 (`proxy.http1`), which may become a WebSocket, or HTTP/2
(`proxy.http2`) where TLS negotiated that.  The app lives around all of it (ASGI lifespan).

Stopping has three steps.  `Front.stop` closes the listeners and every connection that has no request
running, and sets `draining`, by which running WebSockets know that they should end.  What is still there
after the grace period is cancelled.  And the sockets are closed under it, because a task may be shielded
from cancellation while it sends (Hypercorn's are): a client that does not read holds nothing up.
Cancelling `serve` does the last two steps at once.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import structlog
import trio

from proxy.asgi import ASGIApp, lifespan
from proxy.config import FrontConfig
from proxy.connections import Connection, Connections, ConnectionsStatistics, Phase
from proxy.hosts import HostPolicy
from proxy.http1 import Http1
from proxy.http2 import Http2
from proxy.problem import make_request_id
from proxy.site import Site
from proxy.upgrade import Routes
from proxy.wire import PeerGone, Wire

MAX_TURNED_AWAY = 64
"""Connections over the limit that are told so at the same time; more are just closed."""

KEEPALIVE_IDLE = 60
KEEPALIVE_INTERVAL = 15
KEEPALIVE_PROBES = 4
"""Seconds of silence, seconds between probes, and probes, until a client counts as gone."""

log = structlog.get_logger()


class Front:
    """A running front; made by `serve`."""

    def __init__(self, site: Site, ssl_context: ssl.SSLContext | None) -> None:
        self._site = site
        self._ssl_context = ssl_context
        self._http2 = Http2(site)
        self._connections = Connections(site.config.max_connections)
        self._turning_away = 0

    @property
    def draining(self) -> trio.Event:
        """Set once the front is stopping."""
        return self._site.draining

    def stop(self) -> None:
        """Stop gracefully: `serve` returns within the grace period.  Idempotent."""
        self._site.draining.set()

    def statistics(self) -> ConnectionsStatistics:
        """Return a snapshot of the counters."""
        return self._connections.statistics()

    async def run(
        self,
        listeners: Sequence[trio.SocketListener],
        task_status: trio.TaskStatus[Front] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and serve until stopped; see `serve`."""
        grace = self._site.config.grace
        async with trio.open_nursery() as enforcer, trio.open_nursery() as connections:
            enforcer.start_soon(self._enforce_grace, connections.cancel_scope)
            async with trio.open_nursery() as acceptors:
                await acceptors.start(
                    partial(
                        trio.serve_listeners,
                        self._handle,
                        list(listeners),
                        handler_nursery=connections,
                    )
                )
                task_status.started(self)
                await self._site.draining.wait()
                acceptors.cancel_scope.cancel()
            open_now = self._connections.statistics().open
            log.info("stopping", grace=grace, open={p.value: n for p, n in open_now.items() if n})
            await self._http2.drain()
            self._connections.close_waiting()

    async def _enforce_grace(self, connections: trio.CancelScope) -> None:
        """Cut what outlives the grace period, or everything if the front itself is cancelled."""
        try:
            await self._site.draining.wait()
            with trio.CancelScope(deadline=trio.current_time() + self._site.config.grace):
                await self._connections.wait_empty()
        finally:
            self._connections.cut()
            connections.cancel()

    async def _handle(self, stream: trio.SocketStream) -> None:
        """Serve a connection, whatever happens on it."""
        _notice_silent_death(stream)
        if not self._connections.admit():
            await self._turn_away(stream)
            return
        with self._connections.track(stream) as connection:
            try:
                await self._speak(stream, connection)
            except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as group:
                error = str(group.exceptions[0])
                log.debug("a connection broke", client=connection.peer, error=error)
            except* Exception:
                log.exception("a connection failed", client=connection.peer)

    async def _speak(self, stream: trio.SocketStream, connection: Connection) -> None:
        if self._ssl_context is None:
            connection.enter(Phase.IDLE)
            await Http1(stream, connection, self._site).run()
            return
        secure = trio.SSLStream(stream, self._ssl_context, server_side=True, https_compatible=True)
        with trio.move_on_after(self._site.config.tls_handshake_timeout) as scope:
            await secure.do_handshake()
        if scope.cancelled_caught:
            log.debug("a TLS handshake took too long", client=connection.peer)
        elif secure.selected_alpn_protocol() == "h2":
            connection.enter(Phase.HTTP2)
            await self._http2.serve(secure)
        else:
            connection.enter(Phase.IDLE)
            await Http1(secure, connection, self._site).run()

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        """Tell a connection over the limit to come back, where that is cheap."""
        if self._ssl_context is not None or self._turning_away >= MAX_TURNED_AWAY:
            return
        self._turning_away += 1
        wire = Wire(stream, max_head_bytes=self._site.config.max_head_bytes)
        try:
            await wire.answer_problem(
                503,
                "The server has as many connections as it takes; try again in a moment.",
                make_request_id(),
                ((b"retry-after", b"1"),),
            )
            await wire.linger()
        except PeerGone:
            pass
        finally:
            self._turning_away -= 1


def _notice_silent_death(stream: trio.SocketStream) -> None:
    """Have the kernel find out when a client vanished without a word (RFC 9293 §3.8.4).

    trunk/1 has its own sign of life; plain WebSockets and slow downloads have only this.
    """
    with suppress(OSError):  # already gone: the first read tells
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


async def serve(
    listeners: Sequence[trio.SocketListener],
    app: ASGIApp,
    routes: Routes,
    hosts: HostPolicy,
    *,
    config: FrontConfig | None = None,
    ssl_context: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[Front] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` and the WebSockets of `routes` on `listeners` until `Front.stop`.

    Args:
      listeners: Open listeners, which this takes over and closes.
      app: The ASGI app for everything that is not a WebSocket.
      routes: Which paths are WebSockets, and what runs them.
      hosts: The names and origins that are let in.
      config: Limits and deadlines.
      ssl_context: Serve TLS with this context (see `proxy.tls`), and HTTP/2 too.
      task_status: Reports the `Front` once connections are being accepted.

    Raises:
      proxy.asgi.LifespanError: the app failed to start up or shut down.
      OSError: a listener broke.

    Cancellation: ends every connection at once.
    """
    config = config or FrontConfig()
    site = Site(app, routes, hosts, config)
    async with lifespan(app, site.state, config.lifespan_timeout):
        await Front(site, ssl_context).run(listeners, task_status)
