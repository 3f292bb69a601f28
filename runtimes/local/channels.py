"""The byte sequences of a child: non-blocking descriptors, system call first.

Theory of operation
-------------------
A read or write is tried at once; only when the kernel says EAGAIN does the task wait.  That saves
two scheduler passes on each call, but a call that always succeeds would never let another task
run, so each end has a share of bytes after which it yields.  It yields *before* touching the
descriptor: a cancelled read has taken nothing.

**When does output end?**  When every process that can write to it has closed it: end of file on a
pipe, EIO on a terminal.  But a background process may hold it open long after the command the user
asked for has ended, and nobody wants to wait for that.  So once the child has ended:

1. everything that is there is read, however long the reader takes: no byte that was written before
   the end is lost;
2. when nothing is there, the reader waits `linger` seconds for more (a pipeline's last words),
   and again after each piece, but at most `_LINGER_ROUNDS` times as long in all;
3. then the channel has ended, whoever still holds it.

Each waiting end sleeps on a small epoll set of its own, which holds the descriptor and the child's
pidfd, so that it wakes for data and for the end of the child.
"""

from __future__ import annotations

import errno
import os
import select

import trio

from relay.carrier import Buffer
from runtimes.process import ProcessHandle

# Bytes after which an end lets other tasks run, and what a tiny call counts as.
_SHARE = 256 * 1024
_LEAST_COST = 2048

# A single read asks for no more than this: `os.read` allocates what it asks for.
_LARGEST_READ = 256 * 1024

_LINGER_ROUNDS = 5


class _End:
    """What reading and writing have in common.  Does not own `fd`: close the end before it."""

    def __init__(self, fd: int, process: ProcessHandle, events: int) -> None:
        self._fd = fd
        self._process = process
        self._closed = False
        self._share = _SHARE
        self._either = select.epoll(2)
        try:
            self._either.register(fd, events)
            self._either.register(process.ended_fd, select.EPOLLIN)
        except BaseException:
            self._either.close()
            raise

    async def _begin(self) -> None:
        """Checkpoint; let others run when the share is used up."""
        if self._closed:
            raise trio.ClosedResourceError
        if self._share > 0:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._share = _SHARE
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError

    def _charge(self, count: int) -> None:
        self._share -= max(count, _LEAST_COST)

    async def _wait_for_either(self) -> None:
        """Wait until the descriptor is ready or the child has ended."""
        await self._wait(self._either.fileno())

    async def _wait(self, fd: int) -> None:
        self._share = _SHARE
        await trio.lowlevel.wait_readable(fd)
        if self._closed:  # after the wake-up, before this task's turn: `fd` may be another's now
            raise trio.ClosedResourceError

    def close(self) -> None:
        """Wake whoever waits here with `trio.ClosedResourceError`.  Idempotent."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._either.fileno())
            trio.lowlevel.notify_closing(self._fd)
            self._either.close()


class OutputReader(_End):
    """The reading end of an output.  `linger` is in seconds; see the theory of operation."""

    def __init__(self, fd: int, process: ProcessHandle, linger: float) -> None:
        super().__init__(fd, process, select.EPOLLIN)
        self._linger = linger
        self._last_call: float | None = None
        self._at_end = False

    async def receive(self, max_bytes: int) -> bytes:
        """As `relay.endpoint.Endpoint.receive`."""
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        await self._begin()
        while True:
            # Asked before reading: what is written before the end is read after it.
            ended = self._process.poll() is not None
            data = self._read(max_bytes)
            if data or self._at_end:
                self._charge(len(data))
                return data
            if not ended:
                await self._wait_for_either()
            else:
                await self._wait_for_stragglers()

    def _read(self, max_bytes: int) -> bytes:
        """Take what is there, up to `max_bytes`; notice the end."""
        pieces: list[bytes] = []
        room = max_bytes
        while room and not self._at_end:
            try:
                piece = os.read(self._fd, min(room, _LARGEST_READ))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.EIO:  # a terminal that no process has open any more
                    raise
                piece = b""
            if piece:
                pieces.append(piece)
                room -= len(piece)
            else:
                self._at_end = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _wait_for_stragglers(self) -> None:
        """The child has ended and nothing is there: wait a little, or call it the end."""
        now = trio.current_time()
        if self._last_call is None:
            self._last_call = now + self._linger * _LINGER_ROUNDS
        with trio.move_on_at(min(now + self._linger, self._last_call)):
            await self._wait(self._fd)
            return
        self._at_end = True


class InputWriter(_End):
    """The writing end of an input."""

    def __init__(self, fd: int, process: ProcessHandle) -> None:
        super().__init__(fd, process, select.EPOLLOUT)

    async def send(self, data: Buffer) -> None:
        """As `relay.endpoint.Endpoint.send`."""
        await self._begin()
        with memoryview(data).cast("B") as view:
            written = 0
            while written < len(view):
                if self._process.poll() is not None:
                    raise trio.BrokenResourceError("the process has ended")
                try:
                    count = os.write(self._fd, view[written:])
                except BlockingIOError:
                    await self._wait_for_either()
                except OSError as error:
                    if error.errno not in (errno.EPIPE, errno.EIO):
                        raise
                    raise trio.BrokenResourceError("the process has closed its input") from error
                else:
                    written += count
                    self._charge(count)
                    if self._share <= 0:
                        await self._begin()


async def discard(fd: int) -> None:
    """Read to the end and keep nothing.  No `OutputReader` may be open on `fd`."""
    while True:
        try:
            if not os.read(fd, _LARGEST_READ):
                return
        except BlockingIOError:
            await trio.lowlevel.wait_readable(fd)
        else:
            await trio.lowlevel.checkpoint()
