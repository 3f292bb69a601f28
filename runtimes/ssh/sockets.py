"""Connections to servers on the remote machine: streams of kind `tcp` and `vnc`.

A port is one of the machine's loopback.  SSH tells less than a socket does: that a connection was reset
looks like an end in order, and that the server reads no more is told only when the connection is over.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, Endpoint, ExitStatus, SocketEnd, TerminalSize
from runtimes.signals import signal_number
from runtimes.ssh.channel import RemoteChannel

_CLOSING = frozenset({"HUP", "INT", "QUIT", "TERM"})
_RESETTING = frozenset({"ABRT", "KILL"})


class SocketEndpoint(Endpoint):
    """A connection.  Owns `channel`; `run` must be running.

    `on_closed` is called once, with this endpoint, when it has been closed.
    """

    def __init__(self, channel: RemoteChannel, on_closed: Callable[[SocketEndpoint], None]) -> None:
        self._channel = channel
        self._on_closed = on_closed
        self._sending = trio.Lock()
        self._input_ended = False
        self._output_read = False
        self._signal: str | None = None
        self._closing = False
        self._over = trio.Event()

    @property
    def pid(self) -> None:
        """None: there is no process."""
        return

    async def run(self) -> None:
        """See when the connection is over."""
        await self._channel.wait_closed()
        self._over.set()

    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        """As `Endpoint.receive`.

        Raises:
          ValueError: there is no such channel here, or `max_bytes` is less than 1.
        """
        if channel is not Channel.OUTPUT:
            raise ValueError(f"this endpoint has no output channel {channel!r}")
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        await trio.lowlevel.checkpoint()
        self._refuse_when_closed()
        data = await self._channel.receive(channel, max_bytes)
        self._refuse_when_closed()
        if not data:
            self._output_read = True
            self._look_whether_over()
        return data

    async def send(self, data: Buffer) -> None:
        """As `Endpoint.send`."""
        await trio.lowlevel.checkpoint()
        self._refuse_input()
        async with self._sending:
            self._refuse_input()
            try:
                await self._channel.send(data)
            except trio.ClosedResourceError:
                self._refuse_input()
                raise

    def _refuse_input(self) -> None:
        if self._signal is not None and not self._closing:
            raise trio.BrokenResourceError("the connection was closed by a signal")
        if self._closing or self._input_ended:
            raise trio.ClosedResourceError

    def _refuse_when_closed(self) -> None:
        if self._closing:
            raise trio.ClosedResourceError

    async def send_eof(self) -> None:
        """As `Endpoint.send_eof`."""
        await trio.lowlevel.checkpoint()
        if not self._input_ended and not self._closing:
            self._input_ended = True
            self._channel.send_eof()
            self._look_whether_over()

    def _look_whether_over(self) -> None:
        if self._output_read and self._input_ended:
            self._over.set()

    async def wait(self) -> ExitStatus:
        """As `Endpoint.wait`: until both directions are over."""
        await self._over.wait()
        if self._signal is not None:
            return ExitStatus(signal=self._signal)
        if self._channel.loss is not None:
            return ExitStatus(code=SocketEnd.BROKEN)
        return ExitStatus(code=SocketEnd.IN_ORDER if self._input_ended else SocketEnd.INPUT_LEFT)

    def statistics(self) -> dict[Channel, int]:
        """Return how many bytes wait for a reader."""
        return {Channel.OUTPUT: self._channel.statistics()[Channel.OUTPUT]}

    def resize(self, size: TerminalSize) -> None:
        """As `Endpoint.resize`: there is no terminal."""

    def send_signal(self, name: str) -> None:
        """As `Endpoint.send_signal`; signals that would end no process do nothing."""
        signal_number(name)
        if name in _CLOSING or name in _RESETTING:
            self._end(name)

    def _end(self, name: str) -> None:
        if not self._over.is_set():
            self._signal = name
            self._over.set()
        if name in _RESETTING:
            self._channel.abort()
        else:
            self._channel.close()
        self._channel.discard()

    async def aclose(self) -> None:
        """As `Endpoint.aclose`; what was sent before is still delivered, if it is taken."""
        first = not self._closing
        self._closing = True
        self._end("HUP")
        if first:
            self._on_closed(self)
        await trio.lowlevel.checkpoint()
