"""What is noted of a terminal while nobody asks for its screen: sizes, and modes whose setting is gone.

A program that draws for hours sets its modes once, at its start.  When somebody joins later than that, the
bytes that said so have left the ring, and without them its keys would not work.  So what the ring drops is
searched (not parsed) for the few sequences that matter.  A stream whose ring has room pays nothing.
"""

from __future__ import annotations

import re
from collections import deque

from relay.endpoint import TerminalSize
from relay.screen.modes import DEFAULTS, KEYPAD, MOUSE, MOUSE_REPORTS, SOFT

_ALTERNATE = frozenset({47, 1047, 1049})
_SETTING = re.compile(rb"\x1b(?:\[\?([0-9;]{1,32})([hl])|([c=>])|\[!(p))")
"""ESC c and the keypad's (=, >) are noticed only close to one of the others."""
_LONGEST = 40
"""Bytes of the longest sequence that is looked for."""
_BEFORE = 16
"""Bytes before such a sequence in which there may be a reset."""
_MOST_HITS = 128
"""Settings that are looked at in one piece; what is set so often is set again in the last of them."""
MAX_SIZES = 64
"""Sizes that are remembered; of more, the oldest are forgotten."""


class TerminalLog:
    """Sizes with the offsets at which they came, and what dropped bytes have set."""

    def __init__(self, size: TerminalSize) -> None:
        self._first = size
        self._changes: deque[tuple[int, TerminalSize]] = deque()
        self._lost: LostSettings | None = None

    @property
    def size(self) -> TerminalSize:
        """The size now."""
        return self._changes[-1][1] if self._changes else self._first

    def resized(self, offset: int, size: TerminalSize) -> None:
        """Note that output from `offset` on is for another size."""
        if size == self.size:
            return
        self._changes.append((offset, size))
        if len(self._changes) > MAX_SIZES:
            _, self._first = self._changes.popleft()

    def size_at(self, offset: int) -> TerminalSize:
        """Return the size that the byte before `offset` was written for."""
        size = self._first
        for changed, new in self._changes:
            if changed >= offset:
                break
            size = new
        return size

    def changes(self, start: int, end: int) -> list[tuple[int, TerminalSize]]:
        """Return the changes of size at the offsets `start` .. `end`, the last one included."""
        return [change for change in self._changes if start <= change[0] <= end]

    def dropping(self, data: bytes) -> None:
        """Look through bytes that the ring is about to drop."""
        if self._lost is None:
            self._lost = LostSettings()
        self._lost.feed(data)

    def settings(self) -> bytes:
        """Return the sequences that set what the dropped bytes have set."""
        return b"" if self._lost is None else self._lost.sequences()


class LostSettings:
    """What was set by bytes that are gone.  `feed` them in order."""

    def __init__(self) -> None:
        self._modes: dict[int, bool] = {}
        self._alternate = False
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Look through bytes that are about to be forgotten.

        On the event loop, and of a flood each byte: so it is looked for single bytes first, which
        takes 20 us/MiB, and only around them for sequences.
        """
        data = self._tail + data
        done = 0
        hits = _hits(data)
        for hit in hits:
            # Programs reset (ESC c) just before they set modes, and set the keypad just behind.
            for found in _SETTING.finditer(data, max(done, hit - _BEFORE), hit + _LONGEST):
                self._set(found)
                done = found.end()
        # What may go on is looked at again with what comes next; to set a thing twice does no harm.
        near = len(data) - _LONGEST
        tail = hits[-1] if hits and hits[-1] >= near else data.rfind(b"\x1b", max(near, 0))
        self._tail = data[tail:] if tail >= 0 else b""

    def _set(self, found: re.Match[bytes]) -> None:
        numbers, on, single, soft = found.groups()
        if numbers is not None:
            for number in numbers.split(b";"):
                if number:
                    self._set_mode(int(number), on=on == b"h")
        elif soft is not None:
            for mode in SOFT:
                self._modes.pop(mode, None)
        elif single == b"c":
            self._modes.clear()
            self._alternate = False
        else:
            self._set_mode(KEYPAD, on=single == b"=")

    def _set_mode(self, mode: int, *, on: bool) -> None:
        if mode in _ALTERNATE:
            self._alternate = on
        elif mode in DEFAULTS:
            for group in (MOUSE, MOUSE_REPORTS):
                if mode in group:
                    for other in group:
                        self._modes.pop(other, None)
            self._modes[mode] = on

    def sequences(self) -> bytes:
        """Return what sets a fresh terminal like that."""
        changed = ((mode, on) for mode, on in self._modes.items() if on != DEFAULTS[mode])
        screen = b"\x1b[?1049h" if self._alternate else b""
        return screen + b"".join(
            b"\x1b[?%d%c" % (mode, b"h" if on else b"l") for mode, on in changed
        )


def _hits(data: bytes) -> list[int]:
    """Return where there may be a setting, in order: the last ones, where there are very many."""
    hits: list[int] = []
    for mark in (b"?", b"!"):
        if data.find(mark) < 0:
            continue
        position = len(data)
        for _ in range(_MOST_HITS):
            position = data.rfind(b"\x1b[" + mark, 0, position)
            if position < 0:
                break
            hits.append(position)
    return sorted(hits)
