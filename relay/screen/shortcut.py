"""Finds out how much of a flood need not be looked at.

Of plain output, lines that follow one another, only the last matter: what is on the screen, and the history
that is kept.  So a file that was printed costs what its last thousand lines cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable

LEAST_SKIPPED = 8 * 1024
"""Bytes; to skip less is not worth the search."""
WINDOW = 32 * 1024
"""Bytes that are looked at without a pause: a millisecond."""
_PLAIN = re.compile(
    rb"(?:[\x07-\x0d\x20-\x7e\x80-\xc1\xc3-\xff]+|\x1b\[[0-9;:]*[mK]|\xc2[^\x80-\x9f])*"
)
"""What does no more than write text, colours and line ends."""


class Shortcut:
    """Looks ahead in one piece of output; positions must be asked for in growing order.

    `pause` is called now and then, for who has to let others work.
    """

    def __init__(self, data: bytes, lines: int, pause: Callable[[], None]) -> None:
        self._data = data
        self._pause = pause
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
        stop = self._plain_until = self._end_of_plain(position)
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

    def _end_of_plain(self, position: int) -> int:
        """Return where something comes that is not plain."""
        while position < len(self._data):
            found = _PLAIN.match(self._data, position, position + WINDOW)
            end = found.end() if found else position
            if end == position:
                return position
            position = end  # at the end of the window a sequence may be cut: look at it again
            self._pause()
        return position
