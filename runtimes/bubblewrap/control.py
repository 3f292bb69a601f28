"""The server's end of the conversation with the init of a sandbox.

A reader and a writer, both in `run`.  A request waits for its reply; what needs none is queued.  What
runs inside is not trusted: whatever comes from there is bounded and checked, and who breaks the rules
of `runtimes.inside.messages` loses the sandbox.

Whoever gives up waiting for a reply leaves nothing behind: descriptors that come late are closed, and
a process that was started late is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import deque
from dataclasses import dataclass, field

import trio

from relay.endpoint import ExitStatus, StartError
from runtimes.bubblewrap.process import InsideProcess
from runtimes.inside.messages import (
    MAX_FDS,
    RECEIVE_BYTES,
    Decoder,
    MalformedMessage,
    Message,
    MessageTooLong,
    encode,
)
from runtimes.signals import signal_name

_MAX_QUEUED = 8 * 1024 * 1024
"""Bytes for an init that does not read."""

_LARGEST_REPLY = 64 * 1024
_FDS_AT_ONCE = 16 * MAX_FDS

_PATIENCE = 30.0
"""Seconds that a healthy init never needs for a reply."""

_KILL = ExitStatus(signal="KILL")


class InitLostError(StartError):
    """The init has ended, or is not to be talked to any more."""


@dataclass(slots=True)
class _Pending:
    """A request that was sent."""

    process: InsideProcess | None
    done: trio.Event = field(default_factory=trio.Event)
    abandoned: bool = False
    reply: Message | None = None
    fds: list[int] = field(default_factory=list)


class Control:
    """Talks over `connection`, which it takes over.  Nothing happens unless `run` runs."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._decoder = Decoder(_LARGEST_REPLY)
        self._descriptors: deque[int] = deque()
        self._outgoing: deque[bytes] = deque()
        self._queued = 0
        self._to_write = trio.Event()
        self._pending: dict[int, _Pending] = {}
        self._processes: dict[int, InsideProcess] = {}
        self._next_id = 1
        self._closed = False
        self.hung_up = False
        """Whether it was `close` that ended the conversation."""
        self.lost = trio.Event()
        """Set once nothing comes from the init any more."""
        self.greeted = trio.Event()
        """Set once the init has said hello, or is `lost`."""
        self.shells: tuple[str, ...] = ()
        """The login shells that there are inside; known once `greeted`."""

    async def run(self) -> None:
        """Read and write until the init is gone or `close` is called.

        Cancellation: counts as the loss of the init.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._lose()

    async def start(self, message: Message) -> tuple[InsideProcess, list[int]]:
        """Start a process; return it and its descriptors, which are the caller's.

        Raises:
          StartError: it cannot be started.

        Cancellation: nothing is left running.
        """
        try:
            process = InsideProcess(self)
        except OSError as error:
            raise StartError(f"the process can't be watched: {error.strerror}") from error
        try:
            _, fds = await self.ask(message, process=process)
        except BaseException:
            process.discard()
            raise
        return process, fds

    async def ask(
        self, message: Message, *, process: InsideProcess | None = None
    ) -> tuple[Message, list[int]]:
        """Return the reply and the descriptors that came with it, which are the caller's.

        Raises:
          InitLostError: the init is gone.
          StartError: it refuses; the message says why.

        Cancellation: what the reply would have brought is thrown away.
        """
        await trio.lowlevel.checkpoint()
        number = self._next_id
        self._next_id += 1
        pending = _Pending(process)
        self._queue({**message, "id": number})
        self._pending[number] = pending
        try:
            with trio.fail_after(_PATIENCE):
                await pending.done.wait()
        except trio.TooSlowError:
            self._abandon(pending)
            raise StartError("the sandbox does not answer") from None
        except BaseException:
            self._abandon(pending)
            raise
        if pending.reply is None:
            raise InitLostError("the sandbox has ended")
        if "error" in pending.reply:
            raise StartError(str(pending.reply["error"]))
        return pending.reply, pending.fds

    def tell(self, message: Message) -> None:
        """Send what needs no reply.  Does nothing when the init is gone, or does not read."""
        with contextlib.suppress(StartError):
            self._queue(message)

    def forget(self, process: InsideProcess) -> None:
        """Take note that nobody is interested in a process any more."""
        if self._processes.get(process.pid) is process:
            del self._processes[process.pid]
            self.tell({"do": "release", "pid": process.pid})

    def close(self) -> None:
        """Hang up; the init ends, and everything inside with it.  Idempotent."""
        self.hung_up = self.hung_up or not self._closed
        self._lose()

    def _queue(self, message: Message) -> None:
        if self.lost.is_set():
            raise InitLostError("the sandbox has ended")
        try:
            data = encode(message)
        except MessageTooLong as error:
            raise StartError(f"the command and its environment are too long: {error}") from error
        if self._queued + len(data) > _MAX_QUEUED:
            raise StartError("the sandbox takes no more requests now")
        self._queued += len(data)
        self._outgoing.append(data)
        self._to_write.set()

    async def _write(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write = trio.Event()
            while self._outgoing:
                data = memoryview(self._outgoing.popleft())
                self._queued -= len(data)
                while data:
                    try:
                        data = data[self._connection.send(data) :]
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(self._connection)
                    except OSError:  # the reader learns of it, too
                        return

    async def _read(self) -> None:
        while not self._closed:
            try:
                data, fds, _, _ = socket.recv_fds(
                    self._connection, RECEIVE_BYTES, _FDS_AT_ONCE, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                try:
                    await trio.lowlevel.wait_readable(self._connection)
                except trio.ClosedResourceError:
                    return
                continue
            except OSError:
                return
            self._descriptors.extend(fds)
            if not data:
                return
            try:
                for message in self._decoder.feed(data):
                    self._take(message)
            except (MalformedMessage, KeyError, TypeError, ValueError):
                return
            await trio.lowlevel.checkpoint()

    def _take(self, message: Message) -> None:
        fds = [self._descriptors.popleft() for _ in range(message.get("fds", 0))]
        for fd in fds:
            os.set_blocking(fd, False)
        if "exited" in message:
            process = self._processes.get(message["exited"])
            if process is not None:
                process.ended(_status(message))
        elif "hello" in message:
            self.shells = tuple(str(shell) for shell in message["hello"])
            self.greeted.set()
        elif "reply" in message:
            self._answer(self._pending.pop(message["reply"]), message, fds)
            fds = []
        for fd in fds:
            os.close(fd)

    def _answer(self, pending: _Pending, message: Message, fds: list[int]) -> None:
        pending.reply, pending.fds = message, fds
        if pending.process is not None and "pid" in message:
            pending.process.started(int(message["pid"]))
            self._processes[pending.process.pid] = pending.process
        pending.done.set()
        if pending.abandoned:
            self._abandon(pending)

    def _abandon(self, pending: _Pending) -> None:
        """Throw away what a request has brought, now or when it comes."""
        pending.abandoned = True
        for fd in pending.fds:
            os.close(fd)
        pending.fds = []
        if pending.process is not None and pending.process.pid:
            kill = int(signal.SIGKILL)
            self.tell({"do": "strike", "pid": pending.process.pid, "numbers": [kill]})
            self.forget(pending.process)

    def _lose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.lost.set()
        self.greeted.set()
        trio.lowlevel.notify_closing(self._connection)
        self._connection.close()
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors.clear()
        self._outgoing.clear()
        for pending in self._pending.values():
            pending.done.set()
        self._pending.clear()
        for process in tuple(self._processes.values()):
            process.ended(_KILL)


def _status(message: Message) -> ExitStatus:
    if "code" in message:
        return ExitStatus(code=int(message["code"]) & 0xFF)
    return ExitStatus(signal=signal_name(int(message["signal"])))
