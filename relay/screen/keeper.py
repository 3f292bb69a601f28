"""Keeps the screen of one terminal stream, on demand: off the event loop, in slices, with a time limit.

Theory of operation
-------------------

Nothing is parsed until somebody asks.  Then the ring is parsed from its oldest byte; the terminal and the
offset it is at are kept, so that whoever asks next costs the difference only.

Parsing is Python at work: it runs in a thread, one for all streams, and lets go of the interpreter after
every slice, so that the event loop gets it when it wants it.  The ring goes on meanwhile.  If it has run
away from the offset that was reached, the snapshot is of no use: its reader would miss the bytes in between.
Then only the end of the ring is parsed, and at last a few kilobytes in place, where nothing can run away.
What was skipped belongs to a flood, and the terminal keeps its modes across it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from relay.endpoint import TerminalSize
from relay.protocol.ring import ReplayRing
from relay.screen.lines import HISTORY
from relay.screen.log import TerminalLog
from relay.screen.shortcut import Shortcut
from relay.screen.snapshot import Snapshot, SnapshotTooLarge, take_snapshot
from relay.screen.terminal import Terminal

PATIENCE = 2.0
"""Seconds that a snapshot may take; then there is none."""
PIECE_BYTES = 256
"""What is parsed before the clock is looked at."""
SLICE = 0.0004
"""Seconds that the thread works before it lets go of the interpreter."""
BREATH = 0.0002
"""Seconds for which it lets go: longer than it takes to wake another thread up."""
TAIL_BYTES = 128 * 1024
"""How much of the ring is looked at when the ring has run away."""
IN_PLACE_BYTES = 16 * 1024
"""How much is parsed on the event loop when it has done so again: some milliseconds."""
BRIEF_HISTORY = 100
"""Lines of history in the snapshot of a terminal that is being flooded."""
_SYNCHRONISED = re.compile(rb"\n|(?=\x1b)")
"""Where parsing can begin when what came before is gone."""

logger = structlog.get_logger(__name__)
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("screens")


@dataclass(frozen=True, slots=True)
class ScreenStatistics:
    """What keeping a screen has cost: bytes parsed and skipped, snapshots made, requests given up.

    `offset` is where the screen is, `seconds` how long its makers have waited for it in all.
    """

    offset: int
    parsed: int
    skipped: int
    snapshots: int
    failures: int
    seconds: float


class ScreenKeeper:
    """Makes snapshots of one terminal, from the ring with its output and the log of its sizes."""

    def __init__(self, ring: ReplayRing, log: TerminalLog) -> None:
        self._ring = ring
        self._log = log
        self._terminal: Terminal | None = None
        self._offset = 0
        self._lock = trio.Lock()
        self._parsed = 0
        self._skipped = 0
        self._snapshots = 0
        self._failures = 0
        self._seconds = 0.0

    async def snapshot(self) -> Snapshot | None:
        """Return a snapshot at an offset that the ring still has; None if there cannot be one in time.

        Cancellation: safe; what has been parsed stays parsed.
        """
        began = trio.current_time()
        made = None
        with trio.move_on_after(PATIENCE):
            async with self._lock:
                made = await self._make()
        self._seconds += trio.current_time() - began
        if made is None:
            self._failures += 1
        else:
            self._snapshots += 1
        return made

    def statistics(self) -> ScreenStatistics:
        """Return a snapshot of the counters."""
        return ScreenStatistics(
            offset=self._offset,
            parsed=self._parsed,
            skipped=self._skipped,
            snapshots=self._snapshots,
            failures=self._failures,
            seconds=self._seconds,
        )

    async def _make(self) -> Snapshot | None:
        if not Terminal.takes(self._log.size):
            return None
        try:
            for history in (HISTORY, BRIEF_HISTORY):
                work = self._prepare(TAIL_BYTES if history < HISTORY else None)
                snapshot = await trio.to_thread.run_sync(
                    self._work, work, history, limiter=_shared_limiter()
                )
                if snapshot.at >= self._ring.start:
                    return snapshot
            return self._work_in_place()
        except SnapshotTooLarge as error:
            logger.info("no snapshot", reason=str(error))
        except Exception:
            # A bug here, met by what a program wrote, must end nothing: there is the raw replay.
            logger.exception("the screen failed")
            self._terminal = None
        return None

    # ---------------------------------------------------------------- on the event loop

    def _prepare(self, most: int | None) -> list[bytes | TerminalSize]:
        """Return what there is to parse: output and changes of size, in order.

        Sets the offset to where that begins.  `most` bounds what is looked at again after the ring
        has run away; None stands for a first attempt.
        """
        ring = self._ring
        lead = b""
        if self._terminal is None or (self._offset < ring.start and most is None):
            # Nothing is known, or not enough any more to be relied upon.
            self._terminal = Terminal(self._log.size_at(ring.start))
            self._offset = ring.start
            lead = self._log.settings()
            self._synchronise()
        elif self._offset < ring.start:
            start = max(ring.start, ring.end - (most or 0))
            self._terminal.feed(b"\x18")  # whatever sequence was broken off
            self._terminal.resize(self._log.size_at(start))
            self._skipped += start - self._offset
            self._offset = start
            self._synchronise()
        work: list[bytes | TerminalSize] = []
        if lead:
            self._terminal.feed(lead)
            self._terminal.is_whole = False
        offset = self._offset
        for changed, size in [*self._log.changes(offset, ring.end), (ring.end, None)]:
            if changed > offset:
                work.append(ring.read(offset, changed - offset))
                offset = changed
            if size is not None:
                work.append(size)
        return work

    def _synchronise(self) -> None:
        """Begin at a line or a sequence where the bytes before are gone."""
        if self._offset > 0:
            if self._terminal is not None:
                self._terminal.is_whole = False
            data = self._ring.read(self._offset, IN_PLACE_BYTES)
            found = _SYNCHRONISED.search(data)
            self._offset += found.end() if found else len(data)

    def _work_in_place(self) -> Snapshot:
        work = self._prepare(IN_PLACE_BYTES)
        return self._work(work, 0, in_place=True)

    # ---------------------------------------------------------------- in the thread

    def _work(
        self, work: list[bytes | TerminalSize], history: int, *, in_place: bool = False
    ) -> Snapshot:
        """Parse, and write the screen down.

        Raises:
          SnapshotTooLarge: it takes too many bytes.
        """
        terminal = self._terminal
        if terminal is None:
            raise AssertionError("nothing was prepared")
        breathe = _no_breath if in_place else _Breath()
        for part in work:
            if isinstance(part, TerminalSize):
                terminal.resize(part)
            else:
                self._parse(terminal, part, breathe)
        size = TerminalSize(terminal.columns, terminal.rows)
        data = take_snapshot(terminal, history, breathe)
        is_patchy = terminal.is_alternate and not terminal.is_whole
        return Snapshot(self._offset, size, data, is_patchy)

    def _parse(self, terminal: Terminal, data: bytes, breathe: Callable[[], None]) -> None:
        shortcut = Shortcut(data, 2 * terminal.rows + HISTORY, breathe)
        position = 0
        while position < len(data):
            if terminal.scrolls_whole and not terminal.held:
                start, lines = shortcut.skip_from(position)
                if start > position:
                    terminal.skip_lines(lines)
                    self._offset += start - position
                    self._skipped += start - position
                    position = start
            piece = data[position : position + PIECE_BYTES]
            terminal.feed(piece)
            position += len(piece)
            self._offset += len(piece)
            self._parsed += len(piece)
            breathe()


class _Breath:
    """Lets go of the interpreter now and then, and notices when nobody waits any more."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def __call__(self) -> None:
        if time.perf_counter() - self._since >= SLICE:
            trio.from_thread.check_cancelled()
            time.sleep(BREATH)
            self._since = time.perf_counter()


def _no_breath() -> None:
    """On the event loop nobody else can have the interpreter anyway."""


def _shared_limiter() -> trio.CapacityLimiter:
    """Return the limiter that lets one screen at a time be worked on."""
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(1)
        _limiter.set(limiter)
        return limiter
