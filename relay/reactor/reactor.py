"""One task that waits for many sockets and moves their bytes with plain functions.

Theory of operation
===================

Under Trio, each wait for a socket is a pass through the scheduler: tens of microseconds, several times
what the system calls cost.  Where many connections do little each, that is all the time there is.  So
the sockets of the fast path are registered, once and edge-triggered, with an epoll of their own.  An
epoll is itself a file that can be waited for: one Trio task waits for it, asks it who is ready, and
calls the *pumps* of those, which read and write until the kernel says EAGAIN.

What stays with Trio: handshakes, deadlines, cancellation, who owns what.  A connection's own task sleeps
meanwhile (`relay.reactor.bridge`), and unregisters its sockets when it is cancelled.

**Fairness.**  A pump stops after a slice, though there may be more; it then waits its turn in `_ready`.
After `TURN_BYTES` all pumps together, the other tasks of the process get theirs.

**Edges.**  The kernel tells only of changes.  A pump therefore remembers what it was told
(`readable`, `blocked`) until a system call says otherwise.  After a short read the
socket is empty, unless the end of the stream is known to be there too (`hung_up`): no other edge would
tell of that.

**Spinning.**  With `spin`, the reactor asks again for that long before it goes to sleep, if only a few
sockets are active: half the delay of an echo, for a processor that is kept busy while there is traffic.

A pump that fails is a bug of ours: its connection ends, the others go on.
"""

from __future__ import annotations

import select
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog
import trio

from relay.reactor.pipes import Pipes
from relay.service_nursery import open_service_nursery

TURN_BYTES = 1024 * 1024
"""Bytes that all pumps move before the other tasks of the process get a turn: under a millisecond."""

CALL_COST = 4 * 1024
"""What one turn of a pump counts for at least, in bytes."""

EVENTS = 512
"""The most that epoll is asked to tell at once."""

SPIN_SOCKETS = 4
"""Spinning stops where more sockets than this are active: then somebody is always ready."""

SPIN_ROUNDS = 32
"""How many times as long as `spin` it may go on at a stretch, before other tasks get their turn."""

BUFFER_BYTES = 256 * 1024
"""The most that one read takes."""

SHORT_READ = 4 * 1024
"""A read of less than this has probably emptied the socket.  After a longer one, asking again is cheaper
than a pass through the scheduler would be: there is more by then where the peer is fast."""

HEADROOM = 256
"""What a buffer has in front of or behind that: frame headers, and what an earlier read left over."""

_HANGUP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_READ = select.EPOLLIN | _HANGUP
_WRITE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

logger = structlog.get_logger(__name__)


class Pump(ABC):
    """Moves bytes one way, from one socket to another.

    Attributes:
      readable: The source may have something (or its end), as far as is known.
      writable: There is a point in reading, because the sink may take it.
      blocked: The sink said EAGAIN; the pump gets a turn when it takes something again.
      hung_up: The source's end (or an error) is behind what can be read.
      sink_broke: The connection of the sink is broken, though no write has told.
      queued: It waits its turn.
    """

    __slots__ = ("blocked", "hung_up", "queued", "readable", "sink_broke", "writable")

    def __init__(self) -> None:
        self.readable = True
        self.writable = True
        self.blocked = False
        self.hung_up = False
        self.sink_broke = False
        self.queued = False

    @abstractmethod
    def pump(self) -> int:
        """Move a slice; return what work that was, in bytes: what they and their framing cost to move.

        Sets `readable` to false where a read said EAGAIN, `blocked` to true where a write did, and
        `writable` to false where it holds as much as it may.  With `readable` and `writable` still true
        it gets another turn.
        """

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """`pump` raised `error`, which it must not: end the connection."""


@dataclass(frozen=True, slots=True)
class ReactorStatistics:
    """A snapshot: sockets registered, pumps that wait their turn, pipes in use, turns, and
    their work in bytes (see `Pump.pump`)."""

    sockets: int
    waiting: int
    pipes: int
    turns: int
    work: int


class Reactor:
    """Serves registered sockets while `run` runs.  Made by `open_reactor`."""

    def __init__(self, epoll: select.epoll, spin: float) -> None:
        self._epoll = epoll
        self._spin = spin
        self._pumps: dict[int, tuple[Pump, Pump]] = {}
        self._ready: deque[Pump] = deque()
        self._turns = self._work = 0
        self.pipes = Pipes()
        # Shared by all: a pump that cannot get rid of what it read makes a copy.
        self.outgoing = memoryview(bytearray(HEADROOM + BUFFER_BYTES))
        self.incoming = memoryview(bytearray(HEADROOM + BUFFER_BYTES))
        # Where to read to, as readv(2) wants it: made once, since it is needed for every read.
        self.outgoing_place = [self.outgoing[HEADROOM:]]
        self.incoming_place = [self.incoming[:BUFFER_BYTES]]

    def register(self, descriptor: int, reads: Pump, writes: Pump) -> None:
        """Serve a socket: `reads` takes from it, `writes` gives to it.

        Both get a turn at once; that the socket is writable is the edge that wakes the task.
        """
        self._epoll.register(descriptor, _EVENTS)
        self._pumps[descriptor] = (reads, writes)
        self.schedule(reads)
        self.schedule(writes)

    def unregister(self, descriptor: int, reads: Pump) -> None:
        """Serve it no more.  Idempotent; harmless if the descriptor is somebody else's by now."""
        pair = self._pumps.get(descriptor)
        if pair is not None and pair[0] is reads:
            del self._pumps[descriptor]
            with suppress(OSError):  # it was closed under us, and is gone from there by itself
                self._epoll.unregister(descriptor)

    def schedule(self, pump: Pump) -> None:
        """Give `pump` a turn; from within another pump's."""
        if not pump.queued:
            pump.queued = True
            self._ready.append(pump)

    async def run(self) -> None:
        """Serve for ever.  Cancellation: stops between two turns; nothing is lost."""
        number = self._epoll.fileno()
        while True:
            if self._ready:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(number)
            active = self._collect()
            self._take_turns()
            if self._spin and 0 < active <= SPIN_SOCKETS:
                self._go_on_spinning()

    def _collect(self) -> int:
        """Ask who is ready; return how many sockets are."""
        events = self._epoll.poll(0, EVENTS)
        pumps = self._pumps
        ready = self._ready
        for descriptor, happened in events:
            pair = pumps.get(descriptor)
            if pair is None:
                continue
            reads, writes = pair
            if happened & _READ:
                if happened & _HANGUP:
                    reads.hung_up = True
                    if happened & select.EPOLLERR:
                        writes.sink_broke = True
                        self.schedule(writes)
                reads.readable = True
                if reads.writable and not reads.queued:
                    reads.queued = True
                    ready.append(reads)
            if happened & _WRITE and writes.blocked:
                writes.blocked = False
                writes.writable = True
                if not writes.queued:
                    writes.queued = True
                    ready.append(writes)
        return len(events)

    def _take_turns(self) -> None:
        """Let pumps move bytes, one after the other, until none can or the turn is over."""
        ready = self._ready
        left = TURN_BYTES
        while ready and left > 0:
            pump = ready.popleft()
            pump.queued = False
            try:
                work = pump.pump()
            except Exception as error:
                logger.exception("a pump failed")
                pump.fail(error)
                continue
            self._turns += 1
            self._work += work
            left -= max(work, CALL_COST)
            if pump.readable and pump.writable and not pump.queued:
                pump.queued = True
                ready.append(pump)

    def _go_on_spinning(self) -> None:
        until = time.perf_counter() + self._spin
        last = until + self._spin * SPIN_ROUNDS
        while not self._ready and (now := time.perf_counter()) < until:
            active = self._collect()
            if not active:
                continue
            if active > SPIN_SOCKETS:
                return
            self._take_turns()
            until = min(now + self._spin, last)

    def statistics(self) -> ReactorStatistics:
        """Return a snapshot."""
        return ReactorStatistics(
            sockets=len(self._pumps),
            waiting=len(self._ready),
            pipes=self.pipes.lent,
            turns=self._turns,
            work=self._work,
        )


@asynccontextmanager
async def open_reactor(*, spin: float = 0.0) -> AsyncIterator[Reactor]:
    """Run a reactor for as long as the block lasts; whoever has sockets there must be gone by then.

    Args:
      spin: Seconds for which it asks again before it sleeps; see above.  30 µs is a good value.
    """
    if not 0.0 <= spin <= 0.001:
        raise ValueError("spin must be in 0..0.001 seconds")
    with select.epoll() as epoll:
        reactor = Reactor(epoll, spin)
        async with open_service_nursery() as nursery:
            nursery.start_soon(reactor.run)
            try:
                yield reactor
            finally:
                reactor.pipes.close()
