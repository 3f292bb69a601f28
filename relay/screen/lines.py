"""One line of a screen: a character and its attributes for each column.

A cell holds one string: `EMPTY` where nothing was ever written (or it was erased), `TAIL` for the right
half of a wide character, else the character with what is combined with it.
"""

from __future__ import annotations

from array import array
from itertools import groupby

from relay.screen.attributes import PLAIN, Attributes, Link

EMPTY = "\0"
TAIL = "\1"
_JOINT = "\2"
MAX_COMBINED = 16
"""Characters in one cell; more marks on top of one another are not drawn anyway."""

HISTORY = 1000
"""Lines that are remembered once they have left the screen."""
HISTORY_CELLS = 200_000
"""The same in cells: of very long lines, fewer are remembered."""


class Line:
    """A line; both lists are as long as the screen is wide.

    `wrapped`: it continues the line above, which was too long.
    """

    __slots__ = ("attributes", "cells", "wrapped")

    def __init__(
        self, columns: int, attributes: Attributes = PLAIN, *, wrapped: bool = False
    ) -> None:
        self.cells = [EMPTY] * columns
        self.attributes = [attributes] * columns
        self.wrapped = wrapped

    def is_wide(self, column: int) -> bool:
        """Tell whether a wide character begins in `column`."""
        return column + 1 < len(self.cells) and self.cells[column + 1] == TAIL

    def used(self) -> int:
        """Return how many columns there are up to the last that was written."""
        cells = self.cells
        for column in range(len(cells) - 1, -1, -1):
            if cells[column] != EMPTY:
                return column + 1
        return 0

    def set_empty(self, column: int, attributes: Attributes) -> None:
        """Empty one cell."""
        self.cells[column] = EMPTY
        self.attributes[column] = attributes

    def combine(self, column: int, character: str) -> None:
        """Put a mark on the character that ends before `column`."""
        if column and self.cells[column - 1] == TAIL:
            column -= 1
        if column and self.cells[column - 1] != EMPTY:
            cell = self.cells[column - 1]
            if len(cell) < MAX_COMBINED:
                self.cells[column - 1] = cell + character

    def erase(self, start: int, end: int, attributes: Attributes) -> None:
        """Empty the cells of `start` .. `end`, and the other halves of what is cut in two."""
        cells = self.cells
        end = min(end, len(cells))
        if end <= start:
            return
        if start and cells[start] == TAIL:
            self.set_empty(start - 1, attributes)
        if end < len(cells) and cells[end] == TAIL:
            self.set_empty(end, attributes)
        cells[start:end] = [EMPTY] * (end - start)
        self.attributes[start:end] = [attributes] * (end - start)

    def fill(self, cell: str, attributes: Attributes) -> None:
        """Put the same in every column; the line no longer continues another."""
        self.cells = [cell] * len(self.cells)
        self.attributes = [attributes] * len(self.cells)
        self.wrapped = False

    def insert(self, column: int, count: int, attributes: Attributes) -> None:
        """Make `count` empty cells in `column`; what is pushed over the edge is lost."""
        cells = self.cells
        width = len(cells)
        count = min(count, width - column)
        if cells[column] == TAIL and column:
            self.set_empty(column - 1, attributes)
            cells[column] = EMPTY
        cells[column:column] = [EMPTY] * count
        self.attributes[column:column] = [attributes] * count
        half = cells[width] == TAIL
        del cells[width:]
        del self.attributes[width:]
        if half:
            self.set_empty(width - 1, attributes)

    def delete(self, column: int, count: int, attributes: Attributes) -> None:
        """Take `count` cells out from `column` on; empty ones come in at the end."""
        cells = self.cells
        count = min(count, len(cells) - column)
        if cells[column] == TAIL and column:
            self.set_empty(column - 1, attributes)
        del cells[column : column + count]
        del self.attributes[column : column + count]
        cells += [EMPTY] * count
        self.attributes += [attributes] * count
        if cells[column] == TAIL:
            self.set_empty(column, attributes)

    def resize(self, columns: int) -> None:
        """Cut the line off, or append empty cells."""
        missing = columns - len(self.cells)
        if missing > 0:
            self.cells += [EMPTY] * missing
            self.attributes += [PLAIN] * missing
        elif missing < 0:
            half = self.cells[columns] == TAIL
            del self.cells[columns:]
            del self.attributes[columns:]
            if half:
                self.set_empty(columns - 1, PLAIN)


class PackedLine:
    """A line of the history: some bytes a character instead of sixteen, or a few hundred at the worst."""

    __slots__ = ("_columns", "_is_joined", "_links", "_looks", "_text", "wrapped")

    def __init__(self, line: Line) -> None:
        self.wrapped = line.wrapped
        self._columns = len(line.cells)
        text = "".join(line.cells)
        # Where every cell is one character, the text alone tells them apart.
        self._is_joined = len(text) != self._columns
        self._text = _JOINT.join(line.cells) if self._is_joined else text
        self._links: tuple[Link | None, ...] = ()
        self._looks: Attributes | array[int]
        first = line.attributes[0]
        if line.attributes.count(first) == self._columns:
            self._looks = first
        else:
            self._looks, self._links = _pack_attributes(line.attributes)

    def unpack(self) -> Line:
        """Return the line as it was."""
        line = Line(0, wrapped=self.wrapped)
        line.cells = self._text.split(_JOINT) if self._is_joined else list(self._text)
        if isinstance(self._looks, Attributes):
            line.attributes = [self._looks] * self._columns
        else:
            line.attributes = _unpack_attributes(self._looks, self._links)
        return line


def _pack_attributes(
    attributes: list[Attributes],
) -> tuple[array[int], tuple[Link | None, ...]]:
    """Return runs of the same attributes, seven numbers each, and the links."""
    numbers = array("i")
    links: dict[Link | None, int] = {}
    for look, run in groupby(attributes):
        link = links.setdefault(look.link, len(links))
        numbers.extend((len(list(run)), *look[:5], link))
    return numbers, tuple(links)


def _unpack_attributes(numbers: array[int], links: tuple[Link | None, ...]) -> list[Attributes]:
    attributes: list[Attributes] = []
    for at in range(0, len(numbers), 7):
        count, foreground, background, flags, underline, colour, link = numbers[at : at + 7]
        look = Attributes(foreground, background, flags, underline, colour, links[link])
        attributes += [look] * count
    return attributes


def history_limit(columns: int) -> int:
    """Return how many lines of this width are remembered."""
    return min(HISTORY, HISTORY_CELLS // columns)
