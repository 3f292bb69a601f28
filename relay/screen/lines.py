"""One line of a screen: a character and its attributes for each column.

A cell holds one string: `EMPTY` where nothing was ever written (or it was erased), `TAIL` for the right
half of a wide character, else the character with what is combined with it.
"""

from __future__ import annotations

from itertools import groupby

from relay.screen.attributes import PLAIN, Attributes
from relay.screen.widths import width_of

EMPTY = "\0"
TAIL = "\1"
MAX_COMBINED = 16
"""Characters in one cell; more marks on top of one another are not drawn anyway."""


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
    """A line of the history, at rest: about a byte a character instead of sixteen."""

    __slots__ = ("_cells", "_runs", "_width", "wrapped")

    def __init__(self, line: Line) -> None:
        self.wrapped = line.wrapped
        self._width = len(line.cells)
        text = "".join(line.cells)
        # Where every cell is one character, the text alone tells them apart.
        self._cells = text if len(text) == self._width else tuple(line.cells)
        first = line.attributes[0]
        if line.attributes.count(first) == self._width:
            self._runs: tuple[tuple[Attributes, int], ...] = ((first, self._width),)
        else:
            self._runs = tuple((look, len(list(run))) for look, run in groupby(line.attributes))

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 100 + 4 * len(self._cells) + 80 * len(self._runs)

    def unpack(self) -> Line:
        """Return the line as it was."""
        line = Line(0, wrapped=self.wrapped)
        line.cells = list(self._cells)
        for attributes, count in self._runs:
            line.attributes += [attributes] * count
        return line


def fits(cell: str, column: int, columns: int) -> bool:
    """Tell whether `cell` ends within a line of `columns`."""
    return cell in {EMPTY, TAIL} or column + width_of(cell[0]) <= columns
