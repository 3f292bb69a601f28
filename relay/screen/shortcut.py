"""Finds out how much of a flood need not be looked at.

Of plain output, lines that follow one another, only the last matter: what is on the screen, and the history
that is kept.  So a file that was printed costs what its last thousand lines cost.
"""

from __future__ import annotations

import re

LEAST_SKIPPED = 8 * 1024
"""Bytes; to skip less is not worth the search."""
_NOT_PLAIN = re.compile(
    rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]|\xc2[\x80-\x9f]|\x1b(?!\[[0-9;:]*[mK])"
)
"""What may do more than write text, colours and line ends."""


class Shortcut:
    """Looks ahead in one piece of output; positions must be asked for in growing order."""

    def __init__(self, data: bytes, lines: int) -> None:
        self._data = data
        self._lines = lines
        self._plain_until = 0

    def skip_from(self, position: int) -> tuple[int, int]:
        """Return from where to go on instead of `position`, and how many lines lie between.

        Nothing before that place has an effect on the last `lines` lines, provided that the whole
        screen scrolls (no margins) and that no sequence is unfinished at `position`.
        """
        data = self._data
        if position < self._plain_until:
            return position, 0  # nothing was found before, in the same stretch
        end = _NOT_PLAIN.search(data, position)
        stop = self._plain_until = end.start() if end else len(data)
        if stop - position < LEAST_SKIPPED:
            return position, 0
        start = stop
        for _ in range(self._lines):
            start = data.rfind(b"\r\n", position, start)
            if start - position < LEAST_SKIPPED:
                return position, 0
        if data.find(b"\x1b[", position, start) >= 0:
            # Colours: begin where they were reset last.
            start = max(
                data.rfind(b"\x1b[m", position, start), data.rfind(b"\x1b[0m", position, start)
            )
            if start - position < LEAST_SKIPPED:
                return position, 0
        return start, data.count(b"\r\n", position, start)
