"""Wraps the lines of a page anew for another width.

A text line that was too long lies on several lines of the screen; together they are a *paragraph*.  Each is
taken apart and laid out again.  The paragraph with the cursor in it is left alone, only cut or extended:
it is mostly the prompt, and the shell draws it anew itself.

What grows or shrinks moves the boundary between history and screen, so that the bottom of the screen stays
where it is; while there is no history, the cursor moves instead and empty lines at the bottom make the
difference.  So it is in the page's terminal, which has to arrive at the same lines.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from relay.screen.lines import EMPTY, TAIL, Line, PackedLine, history_limit

if TYPE_CHECKING:
    from relay.screen.page import Page


@dataclass(slots=True)
class _Layout:
    """Lines of history and screen in one list; `base` is where the screen begins."""

    lines: list[Line]
    base: int
    y: int
    saved: int
    """Row of the saved cursor, from the beginning of the screen (negative: above it)."""


def reflow(page: Page, columns: int) -> None:
    """Lay out the history and the screen of `page` in `columns`; its rows have been set before."""
    before = len(page.history)
    layout = _Layout(
        [*page.history_lines(), *page.lines], before, page.y, page.saved.y - page.scrolled
    )
    if columns > page.columns:
        _widen(layout, page.columns, columns, page.rows)
    else:
        _narrow(layout, page.columns, columns, page.rows)
    base, lines = layout.base, layout.lines
    lines += [Line(columns) for _ in range(base + page.rows - len(lines))]
    page.scrolled = max(page.scrolled + base - before, 0)
    page.history = deque(map(PackedLine, lines[:base]), maxlen=history_limit(columns))
    page.lines = lines[base : base + page.rows]
    page.y = layout.y
    page.saved = replace(page.saved, y=max(layout.saved + page.scrolled, 0))


def _paragraphs(lines: list[Line]) -> list[tuple[int, int]]:
    """Return where each paragraph begins and ends."""
    starts = [i for i, line in enumerate(lines) if i == 0 or not line.wrapped]
    return list(zip(starts, [*starts[1:], len(lines)], strict=True))


def _widen(layout: _Layout, old: int, new: int, rows: int) -> None:
    cursor = layout.base + layout.y
    lines: list[Line] = []
    for start, end in _paragraphs(layout.lines):
        paragraph = layout.lines[start:end]
        lines += paragraph if start <= cursor < end else _lay_out(paragraph, old, new)
    for line in lines:
        line.resize(new)
    removed = len(layout.lines) - len(lines)
    layout.lines = lines
    for _ in range(removed):
        if layout.base > 0:
            layout.base -= 1
            layout.saved += 1
        else:
            layout.y = max(layout.y - 1, 0)
            if len(lines) < rows:
                lines.append(Line(new))
    layout.saved -= removed


def _narrow(layout: _Layout, old: int, new: int, rows: int) -> None:
    lines = layout.lines
    length = len(lines)  # without what is given up at the bottom
    grown = 0
    laid_out: list[list[Line]] = []  # paragraphs, the last one first
    for start, end in reversed(_paragraphs(lines)):
        paragraph = lines[start:end]
        # (What moves the boundary below the cursor moves the cursor, too; where it was counts.)
        if not start <= layout.base + layout.y < end:
            paragraph = _lay_out(paragraph, old, new)
        laid_out.append(paragraph)
        added = len(paragraph) - (end - start)
        grown += added
        for _ in range(added):
            if layout.base > 0:
                if layout.base < length + grown - rows:
                    layout.base += 1
                    layout.saved -= 1
            elif layout.y < rows - 1:
                layout.y += 1
                length -= 1
            else:
                layout.base += 1
                layout.saved -= 1
        if added:
            layout.saved = min(layout.saved + added, rows - 1)
    layout.lines = [line for paragraph in reversed(laid_out) for line in paragraph]
    del layout.lines[length + grown :]
    for line in layout.lines:
        line.resize(new)


def _lay_out(paragraph: list[Line], old: int, new: int) -> list[Line]:
    """Return the lines of one paragraph in its new width."""
    if len(paragraph) == 1 and paragraph[0].used() <= new:
        return paragraph
    text = Line(0)
    for line, following in zip(paragraph, [*paragraph[1:], None], strict=True):
        size = line.used() if following is None else _filled(line, following, old)
        text.cells += line.cells[:size]
        text.attributes += line.attributes[:size]
    lines: list[Line] = []
    start = 0
    while start < len(text.cells) or not lines:
        end = start + new
        if end < len(text.cells) and text.cells[end] == TAIL:
            end -= 1  # a wide character does not fit in the last column
        line = Line(0, wrapped=bool(lines) or paragraph[0].wrapped)
        line.cells = text.cells[start:end]
        line.attributes = text.attributes[start:end]
        line.resize(new)
        lines.append(line)
        start = end
    return lines


def _filled(line: Line, following: Line, columns: int) -> int:
    """Return how many columns belong to the text of a line that goes on below."""
    if line.cells[columns - 1] == EMPTY and following.is_wide(0):
        return columns - 1  # left empty because the wide character did not fit
    return columns
