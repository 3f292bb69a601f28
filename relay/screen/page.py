"""One of the two screens of a terminal: its lines, history, cursor, margins and tab stops.

Rows and columns are counted from 0.  `x` may be equal to `columns`: the last column was written, and the
next character wraps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from relay.screen.attributes import PLAIN, Attributes
from relay.screen.charsets import USUAL, Charsets
from relay.screen.lines import Line, PackedLine, history_limit
from relay.screen.reflow import reflow

TAB = 8


@dataclass(frozen=True, slots=True)
class SavedCursor:
    """What DECSC saves.  `y` is counted from the first line there ever was."""

    x: int = 0
    y: int = 0
    attributes: Attributes = PLAIN
    charsets: Charsets = USUAL


class Page:
    """The lines of a screen; the alternate one has no history."""

    def __init__(self, columns: int, rows: int, *, has_history: bool) -> None:
        self.columns = columns
        self.rows = rows
        self.has_history = has_history
        self.lines = [Line(columns) for _ in range(rows)]
        self.history: deque[PackedLine] = deque(maxlen=history_limit(columns))
        self.scrolled = 0
        """How many lines have left the screen at the top."""
        self.x = 0
        self.y = 0
        self.top = 0
        self.bottom = rows - 1
        self.saved = SavedCursor()
        self.tabs = default_tabs(columns)

    # ---------------------------------------------------------------- scrolling

    def scroll(self, attributes: Attributes, *, wrapped: bool = False) -> None:
        """Move the lines between the margins up by one."""
        first = self.lines.pop(self.top)
        if self.top == 0 and self.has_history:
            self.history.append(PackedLine(first))
            self.scrolled += 1
        self.lines.insert(self.bottom, Line(self.columns, attributes, wrapped=wrapped))

    def scroll_back(self, attributes: Attributes) -> None:
        """Move the lines between the margins down by one."""
        self.lines.pop(self.bottom)
        self.lines.insert(self.top, Line(self.columns, attributes))

    def move_lines(self, row: int, count: int, attributes: Attributes, *, down: bool) -> None:
        """Insert (`down`) or delete lines in `row`, within the margins; nothing enters the history."""
        for _ in range(min(count, self.bottom - row + 1)):
            self.lines.pop(self.bottom if down else row)
            self.lines.insert(row if down else self.bottom, Line(self.columns, attributes))

    def forget_history(self) -> None:
        """Drop what has left the screen."""
        self.history.clear()
        self.scrolled = 0

    def history_lines(self, pause: Callable[[], None] = lambda: None) -> list[Line]:
        """Return the history, oldest first; `pause` is called after every line."""
        lines = []
        for line in self.history:
            lines.append(line.unpack())
            pause()
        return lines

    # ---------------------------------------------------------------- the cursor

    def restrict(self, columns: int, *, origin: bool) -> None:
        """Bring the cursor back within `columns` and the screen (or the margins)."""
        if self.x >= columns:
            self.x = columns - 1
        elif self.x < 0:
            self.x = 0
        first, last = (self.top, self.bottom) if origin else (0, self.rows - 1)
        if self.y > last:
            self.y = last
        elif self.y < first:
            self.y = first

    def saved_row(self) -> int:
        """Return the row of the screen where the saved cursor is now."""
        return max(self.saved.y - self.scrolled, 0)

    def next_tab(self) -> int:
        """Return the column of the next tab stop, or the last column."""
        stops = (x for x in range(self.x + 1, self.columns) if x in self.tabs)
        return next(stops, self.columns - 1)

    def previous_tab(self) -> int:
        """Return the column of the tab stop before, or 0."""
        stops = (x for x in range(min(self.x, self.columns) - 1, 0, -1) if x in self.tabs)
        return next(stops, 0)

    # ---------------------------------------------------------------- size

    def resize(self, columns: int, rows: int) -> None:
        """Change the size as the page's terminal does it.

        Fewer rows: empty lines below the cursor go first, then lines at the top leave for the history,
        from where they come back when there are more rows.  Other columns: lines that wrap are
        wrapped anew, except around the cursor, where the program will draw.
        """
        self._resize_rows(rows)
        self.x = min(self.x, columns - 1)
        self.saved = replace(self.saved, x=min(self.saved.x, columns - 1))
        self.top, self.bottom = 0, rows - 1
        if columns != self.columns:
            if self.has_history:
                reflow(self, columns)
            else:
                for line in self.lines:
                    line.resize(columns)
        self._extend_tabs(columns)
        self.columns = columns

    def _resize_rows(self, rows: int) -> None:
        while self.rows < rows:
            self.rows += 1
            if self.history and self.y == self.rows - 2:
                self.lines.insert(0, self.history.pop().unpack())
                self.scrolled -= 1
                self.y += 1
            else:
                self.lines.append(Line(self.columns))
        while self.rows > rows:
            self.rows -= 1
            if self.y < self.rows:
                self.lines.pop()
            else:
                self._push_top_line()
        self.y = min(self.y, rows - 1)

    def _push_top_line(self) -> None:
        """Let the first line leave the screen."""
        first = self.lines.pop(0)
        if self.has_history:
            self.history.append(PackedLine(first))
            self.scrolled += 1
        else:
            self.saved = replace(self.saved, y=max(self.saved.y - 1, 0))
        self.y = max(self.y - 1, 0)

    def _extend_tabs(self, columns: int) -> None:
        if columns in self.tabs:
            return  # the stops are those of a wider screen, before it was narrowed
        last = max((x for x in self.tabs if x < columns), default=0)
        self.tabs |= set(range(last, columns, TAB))


def default_tabs(columns: int) -> set[int]:
    """Return the tab stops of a fresh terminal."""
    return set(range(0, columns, TAB))
