"""The connections of one sandbox.

A sandbox has connections of its own, rather than all sandboxes of a host sharing one: a session's end
and a session's loss are then nobody else's, and the work of one never waits behind another's bytes in
one TCP connection.  OpenSSH allows ten processes on a connection (MaxSessions), so there are as many
connections as are needed: when the server refuses one more process, the next connection is used, or made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from relay.endpoint import TerminalSize
from runtimes.ssh.channel import RemoteChannel
from runtimes.ssh.errors import ChannelRefused, Unreachable
from runtimes.ssh.host import SshHost

if TYPE_CHECKING:
    from runtimes.ssh.bridge import Bridge, SshConnection

MAX_CONNECTIONS = 16
"""Connections of one sandbox: 160 processes at the same time with OpenSSH's defaults."""

_DEFAULT_TERM = "xterm-256color"


class _Lane:
    """A connection, and the processes that run on it."""

    def __init__(self, connection: SshConnection) -> None:
        self.connection = connection
        self.running: set[RemoteChannel] = set()
        self._refused_at: int | None = None

    def note_refusal(self) -> None:
        """Take note that one more process was refused."""
        self._refused_at = len(self.running)

    @property
    def is_full(self) -> bool:
        """Whether the server would refuse one more process, as far as is known.

        It may have refused because it had not noticed an end that we had; so whenever one of the
        processes has ended since, it is asked again.
        """
        self.running = {channel for channel in self.running if not channel.is_closed}
        if self._refused_at is not None and len(self.running) < self._refused_at:
            self._refused_at = None
        return self._refused_at is not None


class Connections:
    """Opens channels.  Nothing is connected to before `open`."""

    def __init__(self, bridge: Bridge, host: SshHost) -> None:
        self._bridge = bridge
        self._host = host
        self._lanes: list[_Lane] = []
        self._opening = trio.Lock()
        self._closed = False

    @property
    def loss(self) -> str | None:
        """Why the first connection is no more, and with it the sandbox; None: it is there."""
        return self._lanes[0].connection.loss if self._lanes else None

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self._lanes)

    async def open(self) -> None:
        """Make the first connection.

        Raises:
          Unreachable: it cannot be made; says why.
        """
        await self._add_lane()

    async def _add_lane(self) -> _Lane:
        if self._closed:
            raise Unreachable("the session is ending")
        lane = _Lane(await self._bridge.connect(self._host))
        self._lanes.append(lane)
        return lane

    async def open_process(
        self, command: str, terminal: TerminalSize | None = None, term: str = _DEFAULT_TERM
    ) -> RemoteChannel:
        """As `SshConnection.open_process`, on whichever connection has room.

        Raises:
          ChannelRefused: the server does not want to.
          Unreachable: there is no connection (any more).
        """
        # One after another: while it is found out how many fit, nobody else opens more.
        async with self._opening:
            self._refuse_when_lost()
            self._lanes[1:] = [lane for lane in self._lanes[1:] if lane.connection.is_usable]
            tried = 0
            while True:
                lane = await self._lane(tried)
                if not lane.is_full:
                    try:
                        channel = await lane.connection.open_process(command, terminal, term)
                    except ChannelRefused as error:
                        if not error.is_full or not lane.running:
                            raise
                        lane.note_refusal()
                    else:
                        lane.running.add(channel)
                        return channel
                tried += 1

    async def _lane(self, index: int) -> _Lane:
        if index < len(self._lanes):
            return self._lanes[index]
        if index >= MAX_CONNECTIONS:
            raise ChannelRefused(
                f"{self._host} takes no more processes of this session: there are"
                f" {MAX_CONNECTIONS} connections with as many as it allows on each (MaxSessions)",
                is_full=True,
            )
        return await self._add_lane()

    async def open_port(self, port: int) -> RemoteChannel:
        """Connect to a port on the machine's loopback, IPv4 or IPv6.  Raises: as `open_process`."""
        try:
            return await self._first(lambda connection: connection.open_port("127.0.0.1", port))
        except ChannelRefused as refused:
            try:
                return await self._first(lambda connection: connection.open_port("::1", port))
            except ChannelRefused:
                raise refused from None

    async def open_path(self, path: str) -> RemoteChannel:
        """As `SshConnection.open_path`."""
        return await self._first(lambda connection: connection.open_path(path))

    async def _first(
        self, do: Callable[[SshConnection], Awaitable[RemoteChannel]]
    ) -> RemoteChannel:
        self._refuse_when_lost()
        return await do(self._lanes[0].connection)

    def _refuse_when_lost(self) -> None:
        if self._closed or not self._lanes:
            raise Unreachable("the session is ending")
        if self.loss is not None:
            raise Unreachable(self.loss)

    async def aclose(self) -> None:
        """Close all of them.  Cancellation: at once."""
        self._closed = True
        async with trio.open_nursery() as nursery:
            for lane in self._lanes:
                nursery.start_soon(lane.connection.aclose)
