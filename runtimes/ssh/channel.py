"""The Trio side of an SSH channel: buffers with bounds, and nothing of any library.

Theory of operation
-------------------
The bridge calls `feed`, `end_output`, `exited` and `lost` as things arrive, and gives a `Wire` to
send by.  All of that happens in one thread and without waiting, so there are no locks.

**Receiving.**  A channel is not read while one of its buffers holds `BUFFER_BYTES` or more.  The
library keeps what still arrives then, but renews its window as soon as it hands over one piece of
that; pausing again at that point would let one more window arrive with each round, without end.  So a
pause ends by taking *everything* that it has kept, however much, and only then is it looked whether
to pause again.  Thus at most `BUFFER_BYTES` and one window are here and one window there:
`MOST_HELD_BYTES` in all.  Output and error output share the window: who leaves one of them unread
for more than `BUFFER_BYTES` holds up the other too.

**Sending.**  The library takes whatever it is given, so a slice is given only while it has less than
its high-water mark.  Beyond that what is on the way is bounded by the window that the server grants.
"""

from __future__ import annotations

from typing import Protocol

import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, ExitStatus, TerminalSize

WINDOW_BYTES = 1024 * 1024
"""What the server may send on a channel without being asked for more (RFC 4254 § 5.2)."""
BUFFER_BYTES = 512 * 1024
"""Bytes in one buffer from which on the channel is not read."""
MOST_HELD_BYTES = BUFFER_BYTES + 2 * WINDOW_BYTES
"""What can be held of one channel at the same time, wherever."""
HIGH_WATER_BYTES = 64 * 1024
LOW_WATER_BYTES = 16 * 1024

_SLICE_BYTES = 32 * 1024


class Wire(Protocol):
    """What the library offers of an open channel."""

    def write(self, data: bytes) -> None:
        """Send `data`; OSError if the channel is closed."""

    def write_eof(self) -> None:
        """End the input."""

    def pause_reading(self) -> None:
        """Hand over nothing for now."""

    def resume_reading(self) -> None:
        """Hand over what was kept, within this call, and go on."""

    def resize(self, size: TerminalSize) -> None:
        """Set the size of the terminal."""

    def close(self) -> None:
        """Close it, once what was written has been sent; further output is thrown away."""

    def abort(self) -> None:
        """Close it at once."""


class RemoteChannel:
    """An open channel; made by the bridge."""

    def __init__(self) -> None:
        self._wire: Wire | None = None
        self._buffers = {Channel.OUTPUT: bytearray(), Channel.ERROR: bytearray()}
        self._arrived = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()
        self._is_paused = False
        self._is_resuming = False
        self._is_full = False
        self._output_ended = False
        self._input_ended = False
        self._discarding = False
        self._status: ExitStatus | None = None
        self._loss: str | None = None
        self._exited = trio.Event()
        self._closed = trio.Event()
        self.received = 0
        """Bytes that have arrived since it was opened."""

    # ---------------------------------------------------------------- called by the bridge

    def opened(self, wire: Wire) -> None:
        """Take note of what to send by."""
        self._wire = wire

    def feed(self, data: bytes, channel: Channel) -> None:
        """Take what has arrived."""
        self.received += len(data)
        if not self._discarding and not self._output_ended:
            self._buffers[channel] += data
            self._arrived.unpark_all()
            if not self._is_resuming:
                self._pause_when_full()

    def end_output(self) -> None:
        """Take note that no more output comes."""
        self._output_ended = True
        self._arrived.unpark_all()

    def exited(self, status: ExitStatus) -> None:
        """Take note of how the process has ended; output may still come."""
        if self._status is None:
            self._status = status
        self._exited.set()
        self._arrived.unpark_all()
        self._writable.unpark_all()

    def set_full(self, *, is_full: bool) -> None:
        """Take note whether the library takes no more for now."""
        self._is_full = is_full
        if not is_full:
            self._writable.unpark_all()

    def lost(self, reason: str | None) -> None:
        """Take note that the channel is closed; `reason` None: in order."""
        if not self._output_ended:
            self._loss = reason
        self._wire = None
        self._output_ended = True
        self._closed.set()
        self._exited.set()
        self._arrived.unpark_all()
        self._writable.unpark_all()

    # ---------------------------------------------------------------- receiving

    def _pause_when_full(self) -> None:
        if self._wire is not None and not self._is_paused and self.is_held_up:
            self._is_paused = True
            self._wire.pause_reading()

    def _resume_when_possible(self) -> None:
        if self._wire is None or not self._is_paused or self.is_held_up:
            return
        self._is_resuming = True
        try:
            self._is_paused = False
            self._wire.resume_reading()
        finally:
            self._is_resuming = False
        self._pause_when_full()

    @property
    def is_held_up(self) -> bool:
        """Whether a buffer is full, so that nothing more is read."""
        return any(len(buffer) >= BUFFER_BYTES for buffer in self._buffers.values())

    @property
    def output_ended(self) -> bool:
        """Whether no more output comes; some may still wait to be received."""
        return self._output_ended

    @property
    def loss(self) -> str | None:
        """Why the output ended before its end; None: it did not, or nobody knows."""
        return self._loss

    def take(self, channel: Channel, max_bytes: int) -> bytes:
        """Return 1..`max_bytes` of what waits, ``b""`` if nothing does."""
        buffer = self._buffers[channel]
        with memoryview(buffer) as view:
            piece = bytes(view[:max_bytes])
        del buffer[: len(piece)]
        self._resume_when_possible()
        return piece

    async def wait_for_news(self) -> None:
        """Wait until something arrives, the output ends, or the process does."""
        await self._arrived.park()

    async def receive(self, channel: Channel, max_bytes: int) -> bytes:
        """Wait for 1..`max_bytes` of output; ``b""`` at its end.

        Raises:
          trio.BrokenResourceError: it was cut off; says why.

        Cancellation: safe; no byte is lost.
        """
        while not self._buffers[channel]:
            if self._output_ended:
                if self._loss is not None:
                    raise trio.BrokenResourceError(self._loss)
                return b""
            await self._arrived.park()
        return self.take(channel, max_bytes)

    def discard(self) -> None:
        """Throw away what waits, and whatever still comes."""
        self._discarding = True
        for buffer in self._buffers.values():
            buffer.clear()
        self._resume_when_possible()
        self._arrived.unpark_all()
        self._writable.unpark_all()

    def statistics(self) -> dict[Channel, int]:
        """Return how many bytes of each channel wait for a reader."""
        return {channel: len(buffer) for channel, buffer in self._buffers.items()}

    # ---------------------------------------------------------------- sending

    async def send(self, data: Buffer) -> None:
        """Send all of `data`.

        Raises:
          trio.BrokenResourceError: the channel is closed, or the process has ended.
          trio.ClosedResourceError: `send_eof` or `discard` was called.

        Cancellation: some, all or none of it may have been sent.
        """
        self._writable_wire()
        with memoryview(data).cast("B") as view:
            for start in range(0, len(view), _SLICE_BYTES):
                while self._is_full and not self._exited.is_set() and not self._discarding:
                    await self._writable.park()
                wire = self._writable_wire()
                try:
                    wire.write(bytes(view[start : start + _SLICE_BYTES]))
                except OSError as error:
                    raise trio.BrokenResourceError("the other side has closed it") from error
        await trio.lowlevel.checkpoint_if_cancelled()

    def _writable_wire(self) -> Wire:
        if self._input_ended or self._discarding:
            raise trio.ClosedResourceError
        if self._wire is None or self._exited.is_set():
            raise trio.BrokenResourceError(self._loss or "the other side has ended it")
        return self._wire

    def send_eof(self) -> None:
        """End the input; what was sent before comes first.  Idempotent."""
        if not self._input_ended:
            self._input_ended = True
            if self._wire is not None:
                self._wire.write_eof()

    def resize(self, size: TerminalSize) -> None:
        """Set the size of the terminal; in force before what is sent later."""
        if self._wire is not None and not self._exited.is_set():
            self._wire.resize(size)

    # ---------------------------------------------------------------- the end

    @property
    def status(self) -> ExitStatus | None:
        """How the process has ended; None: it has not, or nobody knows."""
        return self._status

    async def wait_exited(self) -> None:
        """Wait until the process has ended, or the channel is closed."""
        await self._exited.wait()

    async def wait_closed(self) -> None:
        """Wait until the channel is closed."""
        await self._closed.wait()

    @property
    def is_closed(self) -> bool:
        """Whether the channel is closed on both sides."""
        return self._closed.is_set()

    def close(self) -> None:
        """Close it.  What waits can still be received."""
        self.end_output()
        if self._wire is not None:
            self._wire.close()

    def abort(self) -> None:
        """Close it at once; what was sent but is still here is thrown away."""
        self.end_output()
        if self._wire is not None:
            self._wire.abort()
