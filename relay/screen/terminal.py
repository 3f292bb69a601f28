"""A terminal without a window: takes output and knows what it would look like.

It does what the page's terminal does (a subset of xterm, see docs/topics/screens.md), so that both come to the
same screen, and answers no question.  Every sequence costs at most about a screen's worth of work, whatever
its parameters: counts are bounded by the size, which is bounded by `MAX_COLUMNS` and `MAX_ROWS`.
"""

from __future__ import annotations

from functools import lru_cache

from relay.endpoint import TerminalSize
from relay.screen.attributes import PLAIN, Link, Pen, pen_for
from relay.screen.charsets import NAMES, SLOTS, Charsets
from relay.screen.controls import CONTROLS, ESCAPES
from relay.screen.lines import EMPTY, TAIL, Line
from relay.screen.modes import ORIGIN, Modes
from relay.screen.page import Page, SavedCursor
from relay.screen.parser import Handler, Parser
from relay.screen.sequences import SEQUENCES, Parameters, Sequence
from relay.screen.settings import Settings
from relay.screen.widths import NARROW, width_of

MAX_COLUMNS, MAX_ROWS = 500, 250
MAX_CELLS = 64 * 1024
"""Larger terminals are not kept: nobody looks at one, and a cell takes 16 bytes, or 200 at the worst."""
_MOST = 99_999
_SCREENS = frozenset({47, 1047, 1049})
_PREFIXES = "<=>?"


@lru_cache(maxsize=4096)
def _look_up(sequence: str) -> tuple[Sequence | None, Parameters]:
    """Return what a control sequence does, and its parameters.

    A parameter that is missing is 0, sub-parameters are dropped.
    """
    prefix = sequence[0] if sequence[0] in _PREFIXES else ""
    rest = sequence[len(prefix) :].lstrip("0123456789:;")
    parameters = sequence[len(prefix) : len(sequence) - len(rest)]
    groups = (group.partition(":")[0] for group in parameters.split(";")[:32])
    numbers = [min(int(group[-9:]), _MOST) if group else 0 for group in groups]
    return SEQUENCES.get(prefix + rest), numbers


class Terminal(Handler):
    """The state of a terminal.  `feed` it output."""

    def __init__(self, size: TerminalSize) -> None:
        columns, rows = _bounded(size)
        self.columns, self.rows = columns, rows
        self._parser = Parser(self)
        self.settings = Settings()
        self._make_fresh()
        self.is_whole = True
        """Whether everything on the screen was drawn by output that was fed."""

    def reset(self) -> None:
        """Put everything back (RIS)."""
        self._make_fresh()
        self.settings.reset()
        self.is_whole = True

    def _make_fresh(self) -> None:
        self.main = Page(self.columns, self.rows, has_history=True)
        self._alternate: Page | None = None  # until a program shows it
        self.page = self.main
        self.modes = Modes()
        self.use_charsets(Charsets())
        self.use_pen(pen_for(PLAIN))
        self.last_width = 0
        """Columns of the character that was just drawn; 0 after anything else."""

    @staticmethod
    def takes(size: TerminalSize) -> bool:
        """Tell whether a terminal of this size is kept."""
        columns, rows = size.columns, size.rows
        fits = 2 <= columns <= MAX_COLUMNS and rows <= MAX_ROWS
        return fits and columns * rows <= MAX_CELLS

    @property
    def held(self) -> bytes:
        """The beginning of a sequence that is not complete yet."""
        return self._parser.held

    @property
    def is_alternate(self) -> bool:
        """Whether the alternate screen is shown."""
        return self.page is not self.main

    @property
    def scrolls_whole(self) -> bool:
        """Whether a line feed in the last row moves the whole screen, and no mode changes lines."""
        page = self.page
        return page.top == 0 and page.bottom == page.rows - 1 and not self.modes.new_line

    def skip_lines(self, count: int) -> None:
        """Count lines that have scrolled by without being looked at."""
        if self.page.has_history:
            self.page.scrolled += count

    def feed(self, data: bytes) -> None:
        """Take output."""
        self._parser.feed(data)

    def resize(self, size: TerminalSize) -> None:
        """Change the size."""
        columns, rows = _bounded(size)
        if (columns, rows) != (self.columns, self.rows):
            self.columns, self.rows = columns, rows
            self.main.resize(columns, rows)
            if self._alternate is not None:
                self._alternate.resize(columns, rows)

    # ---------------------------------------------------------------- text

    def text(self, text: str) -> None:
        """See `Handler`."""
        if self._charset is not None:
            text = text.translate(self._charset)
        page = self.page
        line = page.lines[page.y]
        x = page.x
        if 0 < x < self.columns and line.cells[x] == TAIL:
            line.set_empty(x - 1, self.attributes)
        if text.isascii() or NARROW.fullmatch(text):
            self.last_width = 1
            end = x + len(text)
            if end <= self.columns and not self.modes.insert:
                line.cells[x:end] = text
                line.attributes[x:end] = [self.attributes] * (end - x)
                page.x = end
            else:
                self._draw_narrow(text)
                line = page.lines[page.y]
        else:
            self._draw(text)
            line = page.lines[page.y]
        if page.x < self.columns and line.cells[page.x] == TAIL:
            line.set_empty(page.x, self.attributes)

    def _draw_narrow(self, text: str) -> None:
        page, attributes, columns = self.page, self.attributes, self.columns
        position, end = 0, len(text)
        while position < end:
            if page.x >= columns:
                if not self.modes.autowrap:
                    position = end - 1  # each overwrites the one before, in the last column
                    self._back_to_last_column()
                else:
                    self._wrap()
            count = min(columns - page.x, end - position)
            line = page.lines[page.y]
            x = page.x
            if self.modes.insert:
                line.insert(x, count, attributes)
            line.cells[x : x + count] = text[position : position + count]
            line.attributes[x : x + count] = [attributes] * count
            page.x = x + count
            position += count

    def _draw(self, text: str) -> None:
        page, attributes, columns = self.page, self.attributes, self.columns
        for character in text:
            width = width_of(character)
            if width == 0:
                if self.last_width:
                    page.lines[page.y].combine(page.x, character)
                continue
            self.last_width = width
            if page.x + width > columns:
                if self.modes.autowrap:
                    line = page.lines[page.y]
                    for x in range(page.x, columns):
                        line.set_empty(x, attributes)
                    self._wrap()
                else:
                    self._back_to_last_column()
                    if width == 2:
                        continue
            line = page.lines[page.y]
            if self.modes.insert:
                line.insert(page.x, width, attributes)
            line.cells[page.x] = character
            line.attributes[page.x] = attributes
            page.x += 1
            if width == 2:
                line.cells[page.x] = TAIL
                line.attributes[page.x] = attributes
                page.x += 1

    def _back_to_last_column(self) -> None:
        page = self.page
        page.x = self.columns - 1
        if self.line.cells[page.x] == TAIL:
            self.line.set_empty(page.x - 1, self.attributes)

    def use_charsets(self, charsets: Charsets) -> None:
        """Change the character sets."""
        self.charsets = charsets
        self._charset = charsets.current

    def _wrap(self) -> None:
        page = self.page
        page.x = 0
        if page.y == page.bottom:
            page.scroll(self.erased, wrapped=True)
        else:
            page.y = min(page.y + 1, self.rows - 1)
            page.lines[page.y].wrapped = True

    # ---------------------------------------------------------------- control characters

    def control(self, character: str) -> None:
        """See `Handler`."""
        act = CONTROLS.get(character)
        if act is not None:
            act(self)
        self.last_width = 0

    # ---------------------------------------------------------------- escape sequences

    def escape(self, sequence: str) -> None:
        """See `Handler`."""
        self.last_width = 0
        if sequence[0] in SLOTS:
            if sequence[1:] in NAMES:
                self.use_charsets(self.charsets.designate(SLOTS[sequence[0]], sequence[1]))
            return
        act = ESCAPES.get(sequence)
        if act is not None:
            act(self)

    def save_cursor(self) -> None:
        """DECSC."""
        page = self.page
        page.saved = SavedCursor(page.x, page.scrolled + page.y, self.attributes, self.charsets)

    def restore_cursor(self) -> None:
        """DECRC."""
        page = self.page
        saved = page.saved
        page.x, page.y = saved.x, page.saved_row()
        self.use_pen(pen_for(saved.attributes._replace(link=self.attributes.link)))
        self.use_charsets(saved.charsets)
        self.restrict()

    # ---------------------------------------------------------------- control sequences

    def csi(self, sequence: str) -> None:
        """See `Handler`."""
        width, self.last_width = self.last_width, 0
        act, numbers = _look_up(sequence)
        if act is not None:
            act(self, numbers)
        elif sequence[-1] == "m" and sequence[0] not in _PREFIXES:
            self.use_pen(self._pen.after(sequence[:-1]))
        elif sequence[-1] == "b" and (sequence[0] == "b" or sequence[0].isdigit()):
            self._repeat(numbers[0] or 1, width)
        else:
            name = sequence.lstrip("0123456789:;")
            if sequence[0] in _PREFIXES:
                name = sequence[0] + sequence[1:].lstrip("0123456789:;")
            self.settings.csi(name, numbers)

    def _repeat(self, count: int, width: int) -> None:
        page = self.page
        if width and page.x >= width:
            text = page.lines[page.y].cells[page.x - width]
            if text not in {EMPTY, TAIL}:
                self.text(text * min(count, self.columns * self.rows))
        self.last_width = 0

    def use_pen(self, pen: Pen) -> None:
        """Change how characters are written, and what erasing leaves behind."""
        self._pen = pen
        self.attributes = pen.attributes
        self.erased = pen.erased

    def restrict(self, columns: int | None = None) -> None:
        """Bring the cursor back within `columns` and the screen, or the margins."""
        page = self.page
        if page.x < 0 or page.x >= self.columns or self.modes.origin or not 0 <= page.y < self.rows:
            page.restrict(columns or self.columns, origin=self.modes.origin)

    def go_to(self, x: int, y: int) -> None:
        """Put the cursor somewhere, in origin mode counted from the top margin."""
        page = self.page
        page.x, page.y = x, y + (page.top if self.modes.origin else 0)
        self.restrict()

    def move(self, x: int, y: int) -> None:
        """Move the cursor."""
        self.restrict()
        page = self.page
        self.go_to(page.x + x, page.y + y)

    @property
    def line(self) -> Line:
        """The line with the cursor."""
        return self.page.lines[self.page.y]

    def osc(self, body: str) -> None:
        """See `Handler`."""
        self.last_width = 0
        number, separator, rest = body.partition(";")
        if number == "8" and separator:
            self._link(rest)
        else:
            self.settings.osc(number, rest)

    def _link(self, body: str) -> None:
        parameters, separator, uri = body.partition(";")
        if separator:
            link = Link(parameters, uri) if uri and len(body) <= 4096 else None
            self.use_pen(pen_for(self.attributes._replace(link=link)))

    # ---------------------------------------------------------------- modes and screens

    def set_private_modes(self, modes: Parameters, *, on: bool) -> None:
        """DECSET and DECRST."""
        for mode in modes:
            if mode == 2 and on:
                self.use_charsets(Charsets(used=self.charsets.used))
            elif mode == 1048 or (mode == 1049 and on):
                self.save_cursor() if on else self.restore_cursor()
            if mode in _SCREENS:
                self._show_screen(alternate=on)
                if mode == 1049 and not on:
                    self.restore_cursor()
            self.modes.set(mode, on=on)
            if mode == ORIGIN:
                self.go_to(0, 0)

    def _show_screen(self, *, alternate: bool) -> None:
        if alternate is self.is_alternate:
            return
        old = self.page
        if alternate:
            new = Page(self.columns, self.rows, has_history=False)
            if self._alternate is not None:
                new.saved = self._alternate.saved
            self._alternate = new
            for line in new.lines:
                line.fill(EMPTY, self.erased)
            self.is_whole = True
        else:
            new = self.main
        new.x, new.y = old.x, old.y
        self.page = new


def _bounded(size: TerminalSize) -> tuple[int, int]:
    return min(max(size.columns, 2), MAX_COLUMNS), min(size.rows, MAX_ROWS)
