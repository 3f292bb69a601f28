"""A connection on a live carrier: one task reads, one writes, one watches the clock.

The reader never waits for the writer: what a frame asks for is done in place by a plain function,
or handed to another task.  The writer pulls (`Connection.next_send`) whenever the carrier can take
more.

A link ends because of its carrier, of its peer, or of this side.  In the last case the reader stops
at once and the writer gets a moment to finish what it is sending, what is queued, and GOAWAY.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import trio

from relay.carrier import Carrier
from relay.protocol.connection import Connection, Event, MessageReceived
from relay.protocol.errors import RemoteProtocolError
from relay.protocol.messages import GoAway
from relay.protocol.reasons import CloseReason
from relay.wakeup import Wakeup

PING_AFTER = 10.0
"""Seconds of silence after which the peer is asked for a sign of life (§ 3)."""
DEAD_AFTER = 30.0
"""Seconds of silence after which the link is dead (§ 3)."""
STALLED_AFTER = 60.0
"""Seconds that the carrier may take for one unit before the peer counts as a slow reader."""
FAREWELL = 2.0
"""Seconds that the last frames of a closing link may take."""
LEAVE_AFTER = 10.0
"""Seconds in which a peer that sent GOAWAY must have closed the link (§ 3)."""
TURN_BYTES = 32 * 1024
TURN = 0.002
"""After so many bytes, if they took so many seconds, other tasks get a turn: tiny frames are dear."""


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """Why a link ended.  `by_peer` tells who said so; `retry_after` is in seconds."""

    reason: CloseReason
    message: str = ""
    by_peer: bool = False
    retry_after: float | None = None


class Link:
    """Runs a connection on a carrier until either ends."""

    def __init__(self, carrier: Carrier, connection: Connection) -> None:
        self.carrier = carrier
        self.connection = connection
        self._wakeup = Wakeup()
        self._end: LinkEnd | None = None
        self._is_closing = False
        self._leave_at = math.inf
        self._last_received = 0.0
        self._send_began: float | None = None
        self._reading = trio.CancelScope()
        self._writing = trio.CancelScope()

    def wake(self) -> None:
        """Say that the connection has something to send."""
        self._wakeup.set()

    def close(
        self, reason: CloseReason, message: str = "", retry_after: float | None = None
    ) -> None:
        """Begin to close: say why with GOAWAY, then end `run`.  The first reason counts.

        A peer that said GOAWAY before gets no answer; the link ends all the same.
        """
        if self._end is None:
            self._end = LinkEnd(reason, message, retry_after=retry_after)
            self.connection.go_away(reason, message, retry_after)
        self._reading.cancel()

    async def run(self, handle: Callable[[Event], None]) -> LinkEnd:
        """Move bytes until the link ends, calling `handle` for each event; return why it ended.

        `handle` must not wait; a RemoteProtocolError from it closes the link.  The carrier is
        closed when this returns or raises.

        Cancellation: closes the carrier at once, without GOAWAY; `close` is the graceful way.
        """
        self._last_received = trio.current_time()
        self.connection.ping(self._last_received)  # the round trip is what windows are tuned by
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                with self._reading:
                    async with trio.open_nursery() as watched:
                        watched.start_soon(self._watch)
                        await self._read(handle)
                        watched.cancel_scope.cancel()
                end = self._end or LinkEnd(CloseReason.CONNECTION_LOST)
                self._finish_writing(end)
        finally:
            await self._close_carrier()
        return end

    async def _read(self, handle: Callable[[Event], None]) -> None:
        try:
            while data := await self.carrier.receive():
                self._last_received = trio.current_time()
                await self._take_in(memoryview(data), handle)
        except RemoteProtocolError as error:
            self.close(error.reason, str(error))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lost(f"receiving: {error}")
        else:
            self._lost("ended by the peer")

    async def _take_in(self, data: memoryview, handle: Callable[[Event], None]) -> None:
        connection = self.connection
        began = self._last_received
        for start in range(0, len(data), TURN_BYTES):
            for event in connection.receive_data(data[start : start + TURN_BYTES], began):
                if isinstance(event, MessageReceived) and isinstance(event.message, GoAway):
                    self._received_goaway(event.message)
                handle(event)
            if connection.has_output:
                self._wakeup.set()
            if (now := trio.current_time()) - began > TURN:
                began = now
                await trio.lowlevel.checkpoint()

    async def _write(self) -> None:
        with self._writing:
            while True:
                buffers = self.connection.next_send()
                if not buffers:
                    if self._is_closing:
                        return
                    await self._wakeup.wait()
                    continue
                self._send_began = trio.current_time()
                try:
                    await self.carrier.send(buffers)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    if self._end is None:  # the reader may still find a GOAWAY that tells why
                        await trio.sleep(FAREWELL)
                    self._lost(f"sending: {error}")
                    self._reading.cancel()
                    return
                self._send_began = None

    async def _watch(self) -> None:
        """Notice a silent peer, one that does not read, and one that does not go."""
        while True:
            now = trio.current_time()
            if now >= self._last_received + DEAD_AFTER:
                self._lost(f"nothing came for {DEAD_AFTER:.0f} s")
                self._reading.cancel()
                return
            if self._send_began is not None and now >= self._send_began + STALLED_AFTER:
                self.close(CloseReason.SLOW_READER, f"nothing was read for {STALLED_AFTER:.0f} s")
                return
            if now >= self._leave_at:
                self._reading.cancel()
                return
            if now >= self._last_received + PING_AFTER:
                self.connection.ping(now)
                self._wakeup.set()
                await trio.sleep(1.0)
            else:
                await trio.sleep_until(self._last_received + PING_AFTER)

    def _received_goaway(self, message: GoAway) -> None:
        if self._end is None:
            self._end = LinkEnd(message.reason, message.message, True, message.retry_after)
            self._leave_at = trio.current_time() + LEAVE_AFTER

    def _lost(self, message: str) -> None:
        if self._end is None:
            self._end = LinkEnd(CloseReason.CONNECTION_LOST, message)

    def _finish_writing(self, end: LinkEnd) -> None:
        """Let the writer finish, if it was this side that ended the link; else there is no use."""
        if end.by_peer or end.reason is CloseReason.CONNECTION_LOST:
            self._writing.cancel()
            return
        self._is_closing = True
        self._wakeup.set()
        self._writing.deadline = trio.current_time() + FAREWELL
        self._writing.shield = True

    async def _close_carrier(self) -> None:
        reason = self._end.reason if self._end else None
        with trio.move_on_after(FAREWELL, shield=True):
            await self.carrier.aclose(reason)
