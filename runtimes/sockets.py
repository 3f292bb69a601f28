"""An endpoint over a connected socket: streams of kind `tcp` and `vnc`.

How the two directions end
--------------------------
Each ends by itself, and Linux tells how:

* Reading gives the end of file: the other side has ended the output, in order.
* An error of the connection (ECONNRESET, ETIMEDOUT, ...) cuts both directions.  The kernel reports it
  once, to whoever reads or writes first, so it is remembered: what is still in the receive buffer is
  read, and then the output has broken, although the kernel now says end of file.
* EPIPE means that the other side takes no more input.  It says nothing about the output, because a
  reset that comes after the end of the output is reported as EPIPE too.

The connection is over when both directions are.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from enum import Enum, auto

import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, Endpoint, ExitStatus, SocketEnd, TerminalSize
from relay.transport import SocketTransport
from runtimes.signals import signal_number

_CLOSING = frozenset({"HUP", "INT", "QUIT", "TERM"})
_RESETTING = frozenset({"ABRT", "KILL"})

# With this a closed TCP socket sends RST.
_NO_LINGER = struct.pack("ii", 1, 0)

# Seconds between attempts while the backlog of a Unix socket is full.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.1


class _Direction(Enum):
    """What has become of one direction."""

    OPEN = auto()
    ENDED = auto()
    BROKEN = auto()


class SocketEndpoint(Endpoint):
    """A connection to a server in the sandbox.  Takes over `stream`.

    `on_closed` is called once, with this endpoint, when the socket has been closed.
    """

    def __init__(
        self, stream: trio.SocketStream, on_closed: Callable[[SocketEndpoint], None]
    ) -> None:
        self._socket = stream.socket
        self._transport = SocketTransport(stream)
        self._on_closed = on_closed
        self._input = _Direction.OPEN
        self._output = _Direction.OPEN
        self._is_cut = False
        self._closing = False
        self._free = False
        self._signal: str | None = None
        self._ended = trio.Event()

    @property
    def pid(self) -> None:
        """None: there is no process."""
        return

    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        """As `Endpoint.receive`.

        Raises:
          ValueError: there is no such channel here, or `max_bytes` is less than 1.
        """
        if channel is not Channel.OUTPUT:
            raise ValueError(f"this endpoint has no output channel {channel!r}")
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing:
            raise trio.ClosedResourceError
        data: Buffer = b""
        if not self._free and self._output is _Direction.OPEN:
            try:
                data = await self._transport.receive(max_bytes)
            except trio.BrokenResourceError as error:
                self._broke(error)
            except trio.ClosedResourceError:
                if self._closing:
                    raise
        if not data:
            self._output_ended()
        return data

    def _output_ended(self) -> None:
        """Note the end of the output.

        Raises:
          trio.BrokenResourceError: it was cut off.
        """
        if self._output is _Direction.OPEN:
            cut = self._is_cut and self._signal is None
            self._output = _Direction.BROKEN if cut else _Direction.ENDED
            self._look_whether_over()
        if self._output is _Direction.BROKEN:
            raise trio.BrokenResourceError("the connection was reset")

    async def send(self, data: Buffer) -> None:
        """As `Endpoint.send`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing or self._input is _Direction.ENDED:
            raise trio.ClosedResourceError
        if self._free or self._input is _Direction.BROKEN:
            raise trio.BrokenResourceError("the connection is over")
        try:
            await self._transport.send((data,))
        except trio.BrokenResourceError as error:
            self._broke(error)
            raise
        except trio.ClosedResourceError:
            if self._closing:
                raise
            raise trio.BrokenResourceError("the connection was closed by a signal") from None

    async def send_eof(self) -> None:
        """As `Endpoint.send_eof`."""
        await trio.lowlevel.checkpoint()
        if self._free or self._input is not _Direction.OPEN:
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # ENOTCONN: it was reset meanwhile
            self._input = _Direction.BROKEN
        else:
            self._input = _Direction.ENDED
        self._look_whether_over()

    def _broke(self, error: trio.BrokenResourceError) -> None:
        """Take note of an error that the kernel has reported."""
        cause = error.__cause__
        self._input = _Direction.BROKEN
        if not (isinstance(cause, OSError) and cause.errno == errno.EPIPE):
            self._is_cut = True
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        if _Direction.OPEN not in (self._input, self._output):
            self._ended.set()

    async def wait(self) -> ExitStatus:
        """As `Endpoint.wait`: until both directions are over."""
        await self._ended.wait()
        if self._signal is not None:
            return ExitStatus(signal=self._signal)
        if self._output is _Direction.BROKEN:
            return ExitStatus(code=SocketEnd.BROKEN)
        if self._input is _Direction.BROKEN:
            return ExitStatus(code=SocketEnd.INPUT_LEFT)
        return ExitStatus(code=SocketEnd.IN_ORDER)

    def resize(self, size: TerminalSize) -> None:
        """As `Endpoint.resize`: there is no terminal."""

    def send_signal(self, name: str) -> None:
        """As `Endpoint.send_signal`; signals that would end no process do nothing."""
        signal_number(name)
        if name in _CLOSING or name in _RESETTING:
            self._end(name)

    def _end(self, name: str) -> None:
        """Close the socket; whoever waits on it is woken."""
        if not self._ended.is_set():
            self._signal = name
            self._ended.set()
        if not self._free:
            self._free = True
            if name in _RESETTING:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._socket.close()
            self._on_closed(self)

    async def aclose(self) -> None:
        """As `Endpoint.aclose`; what was sent before is still delivered by the kernel."""
        self._closing = True
        self._end("HUP")
        await trio.lowlevel.checkpoint()


async def new_socket(family: int) -> trio.socket.SocketType:
    """Make a socket in the server's own network."""
    return trio.socket.socket(family, socket.SOCK_STREAM)


async def connect_to_port(
    port: int, make: Callable[[int], Awaitable[trio.socket.SocketType]] = new_socket
) -> trio.SocketStream:
    """Connect to a server on the loopback, IPv4 or IPv6; it is the one of who makes the sockets.

    `make` makes one of an address family.

    Raises:
      OSError: it cannot be reached.

    Cancellation: nothing is left open.
    """
    try:
        return await _connect(socket.AF_INET, ("127.0.0.1", port), make)
    except OSError as error:
        if error.errno != errno.ECONNREFUSED or not socket.has_ipv6:
            raise
    try:
        return await _connect(socket.AF_INET6, ("::1", port), make)
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # no IPv6 here
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused") from error
        raise


async def connect_to_path(path: str) -> trio.SocketStream:
    """Connect to a server on a Unix socket.

    Raises:
      OSError: it cannot be reached.

    Cancellation: nothing is left open.
    """
    return await _connect(socket.AF_UNIX, path, new_socket)


async def _connect(
    family: int,
    address: tuple[str, int] | str,
    make: Callable[[int], Awaitable[trio.socket.SocketType]],
) -> trio.SocketStream:
    with ExitStack() as stack:
        connection = await make(family)
        stack.callback(connection.close)
        if family == socket.AF_UNIX:
            await _connect_unix(connection, address)
        else:
            await connection.connect(address)
            if connection.getsockname() == connection.getpeername():
                # Without a listener, TCP can connect a port of the dynamic range to itself.
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        stack.pop_all()
        return trio.SocketStream(connection)


async def _connect_unix(connection: trio.socket.SocketType, path: tuple[str, int] | str) -> None:
    """Connect, waiting for a place in the backlog: EAGAIN does not mean "in progress" here."""
    raw = socket.socket(fileno=connection.fileno())
    try:
        await trio.lowlevel.checkpoint()
        for pause in growing_pauses():
            try:
                raw.connect(path)
            except BlockingIOError:
                await trio.sleep(pause)
            else:
                return
    finally:
        raw.detach()


def growing_pauses() -> Iterator[float]:
    """Yield the seconds between one attempt and the next, for as long as one goes on asking."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)
