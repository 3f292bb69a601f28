"""Connections to servers in a sandbox: streams of kind `tcp` and `vnc`.

A program of the sandbox connects, inside, and its input and output are the connection.  That reaches the
sandbox's loopback, which is what a port means (docs/spec/trunk-1.md § 6), whether or not it has a
network.  The sandbox's own address is not used: a server on the loopback does not listen there, and
seen from here that address may belong to somebody else.

What a program cannot tell is told as well as possible: it fails when the connection broke.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, Endpoint, ExitStatus, SocketEnd, TerminalSize
from runtimes.exec_inside.endpoint import ExecEndpoint
from runtimes.signals import signal_number

_ENDING = frozenset({"HUP", "INT", "QUIT", "TERM", "KILL", "ABRT"})


class ConnectorEndpoint(Endpoint):
    """A connection through `process`, which it owns.

    `on_closed` is called once, with this endpoint, when everything has been freed.
    """

    def __init__(
        self, process: ExecEndpoint, on_closed: Callable[[ConnectorEndpoint], None]
    ) -> None:
        self._process = process
        self._on_closed = on_closed
        self._input_ended = False
        self._signal: str | None = None
        self._closed = False

    @property
    def pid(self) -> None:
        """None: the process is no part of the sandbox's own."""
        return

    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        """As `Endpoint.receive`.

        Raises:
          ValueError: there is no such channel here, or `max_bytes` is less than 1.
        """
        if channel is not Channel.OUTPUT:
            raise ValueError(f"this endpoint has no output channel {channel!r}")
        data = await self._process.receive(channel, max_bytes)
        if not data and self._signal is None:
            status = await self._process.wait()
            if status.code != 0 and self._signal is None:
                raise trio.BrokenResourceError("the connection was reset")
        return data

    async def send(self, data: Buffer) -> None:
        """As `Endpoint.send`."""
        await self._process.send(data)

    async def send_eof(self) -> None:
        """As `Endpoint.send_eof`."""
        self._input_ended = True
        await self._process.send_eof()

    async def wait(self) -> ExitStatus:
        """As `Endpoint.wait`: until the connection is over."""
        status = await self._process.wait()
        if self._signal is not None:
            return ExitStatus(signal=self._signal)
        if status.code != 0:
            return ExitStatus(code=SocketEnd.BROKEN)
        return ExitStatus(code=SocketEnd.IN_ORDER if self._input_ended else SocketEnd.INPUT_LEFT)

    def resize(self, size: TerminalSize) -> None:
        """As `Endpoint.resize`: there is no terminal."""

    def send_signal(self, name: str) -> None:
        """As `Endpoint.send_signal`; signals that would end no process do nothing."""
        signal_number(name)
        if name in _ENDING and self._signal is None and not self._closed:
            self._signal = name
            self._process.break_off()

    async def aclose(self) -> None:
        """As `Endpoint.aclose`."""
        first = not self._closed
        self._closed = True
        try:
            await self._process.aclose()
        finally:
            if first:
                self._on_closed(self)
