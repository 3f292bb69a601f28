"""Bytes in and out of a Trio stream, as cheaply as the kernel allows.

Theory of operation
===================

`trio.SocketStream` goes through the scheduler for every receive and every send, and that costs
several times what the system call does.  `SocketTransport` makes the system call first and waits
only when the kernel says EAGAIN.  Such a loop would never let other tasks run while its peer is
fast, so it yields after every `BUDGET` bytes; a call is counted as `CALL_COST` bytes at least.

It uses the file descriptor of the Trio socket and nothing private.  The descriptor is asked for
anew before each call, because a closed socket answers -1 while a remembered number may already
belong to somebody else.  Trio has set TCP_NODELAY; a small TCP_NOTSENT_LOWAT keeps urgent frames from
waiting behind bulk in the kernel.

Reads allocate what they return, only once data is there, in a size that follows the flow: an idle
connection holds no buffer.  `StreamTransport` offers the same on any other stream (TLS, tests).
"""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress

import trio

from relay.carrier import Buffer

BUDGET = 512 * 1024
"""Bytes moved without giving other tasks a turn: well under a millisecond's work."""

CALL_COST = 4 * 1024
"""What one system call counts for at least, in bytes of the budget."""

READ_MIN = 8 * 1024
READ_MAX = 256 * 1024
"""How much one read asks for, in bytes; it doubles while reads come back full."""

JOIN_BELOW = 16 * 1024
"""Units up to this many bytes are copied together and written with one plain write."""

NOTSENT_BYTES = 128 * 1024
"""What the kernel takes of a socket's output beyond what the network does, in bytes: less, as Trio
has it, costs a fifth of the throughput; more, and urgent frames wait behind bulk."""

_MAX_BUFFERS = 512
"""Buffers in one vectored write; the kernel's limit (IOV_MAX) is 1024."""


class Transport(ABC):
    """A stream for one reading and one writing task at a time."""

    @abstractmethod
    async def receive(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Wait for bytes and return them; ``b""`` at the end of the stream.

        May return without a checkpoint while within its budget.

        Raises:
          trio.BrokenResourceError, trio.ClosedResourceError: as for a Trio stream.

        Cancellation: safe; no byte is lost.
        """

    @abstractmethod
    async def send(self, buffers: Sequence[Buffer]) -> None:
        """Send the concatenation of `buffers`, with as few system calls as possible.

        May return without a checkpoint while within its budget.

        Raises:
          trio.BrokenResourceError, trio.ClosedResourceError: as for a Trio stream.
          trio.BusyResourceError: another task is sending.

        Cancellation: some, all or none may have been sent.
        """

    @abstractmethod
    def send_nowait(self, data: Buffer) -> int:
        """Send what the kernel takes at once and return how many bytes; 0 if it cannot be told.

        Raises:
          trio.BrokenResourceError, trio.ClosedResourceError: as for a Trio stream.
        """

    @abstractmethod
    async def wait_writable(self) -> None:
        """Wait until a small send would probably not wait.  Cancellation: safe."""

    @abstractmethod
    async def send_eof(self) -> None:
        """Tell the peer that nothing more will come, where the stream has a way to say it."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the stream at once; idempotent."""


class SocketTransport(Transport):
    """System call first, wait on EAGAIN."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        if stream.socket.family != socket.AF_UNIX:
            with suppress(OSError):  # broken already: the first call tells
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_BYTES)
        self._read_size = READ_MIN
        self._received = 0
        self._sent = 0
        self._sending = False

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket underneath."""
        return self._socket

    def _descriptor(self) -> int:
        number = self._socket.fileno()
        if number < 0:
            raise trio.ClosedResourceError("this side closed the socket")
        return number

    async def receive(self, max_bytes: int | None = None) -> bytes:
        """See `Transport.receive`."""
        if self._received >= BUDGET:
            self._received = 0
            await trio.lowlevel.checkpoint()
        size = self._read_size if max_bytes is None else max_bytes
        while (data := self._read(size)) is None:
            self._received = 0
            await trio.lowlevel.wait_readable(self._socket)
        self._received += max(len(data), CALL_COST)
        if max_bytes is None:
            if len(data) == size:
                self._read_size = min(size * 2, READ_MAX)
            elif len(data) < size // 4:
                self._read_size = max(size // 2, READ_MIN)
        return data

    def _read(self, size: int) -> bytes | None:
        try:
            return os.read(self._descriptor(), size)
        except BlockingIOError:
            return None
        except OSError as error:
            raise trio.BrokenResourceError(f"the connection broke: {error}") from error

    async def send(self, buffers: Sequence[Buffer]) -> None:
        """See `Transport.send`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this connection")
        self._sending = True
        try:
            if self._sent >= BUDGET:
                self._sent = 0
                await trio.lowlevel.checkpoint()
            total = sum(map(len, buffers))
            if len(buffers) > 1 and (total <= JOIN_BELOW or len(buffers) > _MAX_BUFFERS):
                buffers = (b"".join(buffers),)
            self._sent += max(total, CALL_COST)
            while (gone := self._write(buffers)) < total:
                total -= gone
                buffers = _without_first(buffers, gone)
                self._sent = 0
                await trio.lowlevel.wait_writable(self._socket)
        finally:
            self._sending = False

    def _write(self, buffers: Sequence[Buffer]) -> int:
        try:
            if len(buffers) == 1:
                return os.write(self._descriptor(), buffers[0])
            return os.writev(self._descriptor(), buffers)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(f"the connection broke: {error}") from error

    def send_nowait(self, data: Buffer) -> int:
        """See `Transport.send_nowait`."""
        return self._write((data,))

    async def wait_writable(self) -> None:
        """See `Transport.wait_writable`."""
        self._descriptor()
        await trio.lowlevel.wait_writable(self._socket)

    async def send_eof(self) -> None:
        """See `Transport.send_eof`."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        await trio.aclose_forcefully(self._stream)


class StreamTransport(Transport):
    """Any Trio stream; a unit is copied together, since such streams take one buffer at a time."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `Transport.receive`."""
        return await self._stream.receive_some(READ_MAX if max_bytes is None else max_bytes)

    async def send(self, buffers: Sequence[Buffer]) -> None:
        """See `Transport.send`."""
        await self._stream.send_all(buffers[0] if len(buffers) == 1 else b"".join(buffers))

    def send_nowait(self, data: Buffer) -> int:
        """See `Transport.send_nowait`: such a stream cannot tell without waiting."""
        return 0

    async def wait_writable(self) -> None:
        """See `Transport.wait_writable`."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """See `Transport.send_eof`."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        await trio.aclose_forcefully(self._stream)


def open_transport(stream: trio.abc.Stream) -> Transport:
    """Return the fastest transport for `stream`, which it takes over."""
    if isinstance(stream, trio.SocketStream):
        return SocketTransport(stream)
    return StreamTransport(stream)


def _without_first(buffers: Sequence[Buffer], count: int) -> list[Buffer]:
    """Return `buffers` without the first `count` bytes of their concatenation."""
    rest: list[Buffer] = []
    for buffer in buffers:
        if count >= len(buffer):
            count -= len(buffer)
        else:
            rest.append(memoryview(buffer)[count:] if count else buffer)
            count = 0
    return rest
