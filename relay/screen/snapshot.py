"""Writes down how a fresh terminal of the same size gets to look like a `Terminal`.

Theory of operation
-------------------

History and main screen are written from the top, line by line, so that the history ends up where it
belongs.  A line that was wrapped is made to wrap again, because a terminal remembers that: by the
character that begins the next line, or, where that would leave traces (erased cells, a coloured
background), by a blank that is erased afterwards.  Cells that were never written are stepped over, not
filled with blanks.  The alternate screen, if it is shown, is drawn over that row by row.

Then come the things that are not cells: tab stops, margins, the saved cursor, modes, and at last the cursor.
If the output has stopped right behind a character, that character is what the snapshot ends with: the next
one may combine with it, repeat it, or have to wrap.  The unfinished sequence or character that the output has
stopped in (if it has) comes after everything.

A snapshot is made of sequences that set something: no terminal answers any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from relay.endpoint import TerminalSize
from relay.screen.attributes import DEFAULT_COLOUR, PLAIN, Attributes, Flag, erased, sgr
from relay.screen.charsets import ASCII, Charsets
from relay.screen.lines import EMPTY, HISTORY, TAIL, Line
from relay.screen.modes import KEYPAD
from relay.screen.page import Page, default_tabs
from relay.screen.terminal import Terminal

FRESH = b"\x18\x1bc\x1b[?25h\x1b[20l"
"""Resets a terminal that may be reset whole: ends what is unfinished, then everything (RIS), and what
some do not count as that."""
MAX_SNAPSHOT = 768 * 1024
"""Bytes.  A screen that takes more, every cell in another colour, is not worth it."""
HISTORY_BYTES = 384 * 1024
"""About how many of them are for the history."""
_DRAWN = Flag.INVERSE | Flag.STRUCK | Flag.OVERLINE
"""What shows on a blank, too."""
_DESIGNATE = "()*+"
_USE = ("\x0f", "\x0e", "\x1bn", "\x1bo")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What brings a freshly reset terminal of `size` to where the output is at offset `at`.

    `is_patchy`: it shows a full-screen program of whose output the beginning was gone, so that parts of
    the screen may be missing until the program draws them anew.
    """

    at: int
    size: TerminalSize
    data: bytes
    is_patchy: bool = False


class SnapshotTooLarge(Exception):
    """The screen takes more than `MAX_SNAPSHOT` bytes."""


def _no_pause() -> None:
    """Go on at once."""


def take_snapshot(
    terminal: Terminal, history: int = HISTORY, pause: Callable[[], None] = _no_pause
) -> bytes:
    """Return the sequences, with at most `history` lines that have left the screen.

    `pause` is called after every line, for who has to let others work.

    Raises:
      SnapshotTooLarge: it would be more than `MAX_SNAPSHOT`.
    """
    writer = _Writer(terminal.columns, pause)
    writer.out += terminal.settings.sequences()
    lines = _last_lines(terminal.main.history_lines(pause), history, pause)
    writer.write_lines([*lines, *terminal.main.lines])
    writer.set_tabs(terminal.main)
    page = terminal.page
    if terminal.is_alternate:
        writer.set_margins(terminal.main)
        writer.save_cursor(terminal.main)
        writer.use(PLAIN)  # it is filled with the background
        writer.add("\x1b[?1047h")
        writer.write_rows(page.lines)
        writer.set_tabs(page)
    writer.save_cursor(page)
    writer.set_margins(page)
    _finish(writer, terminal)
    data = "".join(writer.out).encode() + terminal.held
    if len(data) > MAX_SNAPSHOT:
        if lines:
            return take_snapshot(terminal, len(lines) // 4, pause)
        raise SnapshotTooLarge(f"{len(data)} bytes for {terminal.columns}x{terminal.rows}")
    return data


def _last_lines(history: list[Line], most: int, pause: Callable[[], None]) -> list[Line]:
    """Return the last lines of the history, as many as there is room for."""
    room = HISTORY_BYTES
    first = len(history)
    while first > max(len(history) - most, 0):
        line = history[first - 1]
        changes = sum(a is not b for a, b in pairwise(line.attributes))
        room -= 2 + line.used() + 12 * changes
        if room < 0:
            break
        first -= 1
        pause()
    return history[first:]


def _finish(writer: _Writer, terminal: Terminal) -> None:
    """Write the modes and what the cursor is like."""
    page, modes = terminal.page, terminal.modes
    origin = modes.origin
    for mode, on in modes.changed().items():
        if mode == KEYPAD:
            writer.add("\x1b=")
        else:
            writer.add(f"\x1b[?{mode}{'h' if on else 'l'}")
    x, y = page.x, page.y - (page.top if origin else 0)
    last = _character_before(page)
    ends_with_it = (
        last is not None
        and (terminal.last_width > 0 or x >= terminal.columns)
        and terminal.charsets.current is None
        and not modes.insert
        and last[2] == terminal.attributes
    )
    if last is not None and x >= terminal.columns and not ends_with_it:
        writer.go_to(last[0], y)
        writer.use(last[2])
        writer.add(last[1])
    elif not ends_with_it:
        writer.go_to(min(x, terminal.columns - 1), y)
    writer.use(terminal.attributes)
    writer.designate(terminal.charsets)
    if modes.insert:
        writer.add("\x1b[4h")
    if modes.new_line:
        writer.add("\x1b[20h")
    if last is not None and ends_with_it:
        writer.go_to(last[0], y)
        writer.add(last[1])


def _character_before(page: Page) -> tuple[int, str, Attributes] | None:
    """Return the column, the text and the attributes of the character before the cursor."""
    line = page.lines[page.y]
    x = page.x - 1
    if x > 0 and line.cells[x] == TAIL:
        x -= 1
    if x < 0 or line.cells[x] in {EMPTY, TAIL}:
        return None
    return x, line.cells[x], line.attributes[x]


def _is_written(line: Line, x: int) -> bool:
    """Tell whether a character is written for a cell, or it is left as it is (or erased)."""
    return line.cells[x] != EMPTY or _shows_on_blank(line.attributes[x])


def _shows_on_blank(attributes: Attributes) -> bool:
    return bool(attributes.flags & _DRAWN or attributes.underline)


class _Writer:
    """Collects sequences, and knows with which attributes the terminal would write now."""

    def __init__(self, columns: int, pause: Callable[[], None]) -> None:
        self.out: list[str] = []
        self._columns = columns
        self._attributes = PLAIN
        self._pause = pause

    def add(self, text: str) -> None:
        self.out.append(text)

    def go_to(self, x: int, y: int) -> None:
        self.add(f"\x1b[{y + 1};{x + 1}H")

    def use(self, attributes: Attributes) -> None:
        """Write with these attributes from now on."""
        now = self._attributes
        if attributes is now or attributes == now:
            return
        if attributes.link != now.link:
            link = attributes.link
            self.add(f"\x1b]8;{link.parameters};{link.uri}\x1b\\" if link else "\x1b]8;;\x1b\\")
        if attributes[:5] != now[:5]:
            self.add(sgr(attributes))
        self._attributes = attributes

    # ---------------------------------------------------------------- lines

    def write_lines(self, lines: list[Line]) -> None:
        """Write lines one below the other, from the first row of the screen on."""
        covered = False  # a blank is in the first cell, which was needed to wrap
        for line, following in zip(lines, [*lines[1:], None], strict=True):
            self._pause()
            x = self.write_cells(line, covered=covered)
            covered = False
            if following is None:
                return
            if not following.wrapped:
                self._use_plain_background()
                self.add("\r\n")
            elif not self._wraps_by_itself(line, following):
                self._wrap(line, x)
                covered = True

    def _wraps_by_itself(self, line: Line, following: Line) -> bool:
        """Tell whether the first character of `following` makes the line wrap, and leaves no trace."""
        first = following.cells[0]
        if first == EMPTY or following.attributes[0].background != DEFAULT_COLOUR:
            return False
        if _is_written(line, -1):
            return True
        # A wide character does not fit in the last column, which is then left with its attributes.
        return (
            following.is_wide(0)
            and line.cells[-2] != EMPTY
            and line.attributes[-1] == PLAIN
            and not _shows_on_blank(following.attributes[0])
        )

    def _wrap(self, line: Line, x: int) -> None:
        """Make the line wrap by a blank, and come back to the first column below it."""
        full = _is_written(line, -1)
        self.use(PLAIN)
        if not full:
            if x < self._columns - 1:
                self.add(f"\x1b[{self._columns}G")
            self.add(" ")
        self.add(" \r")
        if not full:
            self.add(f"\x1b[A\x1b[{self._columns}G")
            self.use(erased(line.attributes[-1].background))
            self.add("\x1b[X\x1b[B\r")

    def _use_plain_background(self) -> None:
        """What scrolls in is filled with the background."""
        if self._attributes.background != DEFAULT_COLOUR:
            self.use(PLAIN)

    def write_rows(self, lines: list[Line]) -> None:
        """Draw the rows of a screen that is empty."""
        for y, line in enumerate(lines):
            self._pause()
            if line.used() or any(a is not PLAIN for a in line.attributes):
                self.go_to(0, y)
                self.write_cells(line)

    def write_cells(self, line: Line, *, covered: bool = False) -> int:
        """Write one line from its first column on; return the column where the cursor stays."""
        cells, attributes = line.cells, line.attributes
        columns = len(cells)
        if not covered and attributes.count(attributes[0]) == columns:
            text = "".join(cells)
            written = text.rstrip(EMPTY)
            if EMPTY not in written and (not text or attributes[0] is PLAIN):
                # Most lines: text in one look, and nothing behind it.
                self.use(attributes[0])
                self.add(written.replace(TAIL, ""))
                return line.used()
        x = at = 0  # `at` is where the terminal's cursor is
        while x < columns:
            end = x + 1
            look = attributes[x]
            empty = cells[x] == EMPTY
            while (
                end < columns
                and (attributes[end] is look or attributes[end] == look)
                and (cells[end] == EMPTY) is empty
            ):
                end += 1
            if empty and not _shows_on_blank(look):
                if look.background != DEFAULT_COLOUR or (covered and x == 0):
                    at = self._step(at, x)
                    self.use(erased(look.background))
                    self.add(f"\x1b[{end - x}X")
            else:
                at = self._step(at, x)
                self.use(look)
                text = "".join(cells[x:end])
                self.add(text.replace(TAIL, "").replace(EMPTY, " "))
                at = end
            x = end
        return at

    def _step(self, at: int, x: int) -> int:
        if x > at:
            self.add(f"\x1b[{x - at}C")
        return x

    # ---------------------------------------------------------------- what is not cells

    def set_tabs(self, page: Page) -> None:
        """Set the tab stops, if they are not the usual ones."""
        if {x for x in page.tabs if x < page.columns} == default_tabs(page.columns):
            return
        self.add("\x1b[3g")
        for x in sorted(x for x in page.tabs if x < page.columns):
            self.add(f"\x1b[{x + 1}G\x1bH")

    def set_margins(self, page: Page) -> None:
        if (page.top, page.bottom) != (0, page.rows - 1):
            self.add(f"\x1b[{page.top + 1};{page.bottom + 1}r")

    def save_cursor(self, page: Page) -> None:
        """Save a cursor, if the page has one."""
        saved = page.saved
        row = min(page.saved_row(), page.rows - 1)
        if (saved.x, row, saved.attributes, saved.charsets) == (0, 0, PLAIN, Charsets()):
            return
        self.go_to(min(saved.x, page.columns - 1), row)
        self.use(saved.attributes._replace(link=None))
        self.designate(saved.charsets)
        self.add("\x1b7")
        self.use(PLAIN)
        if saved.charsets != Charsets():
            self.add("".join(f"\x1b{slot}{ASCII}" for slot in _DESIGNATE) + _USE[0])

    def designate(self, charsets: Charsets) -> None:
        """Set the character sets; the terminal has the usual ones."""
        for slot, name in zip(_DESIGNATE, charsets.slots, strict=True):
            if name != ASCII:
                self.add(f"\x1b{slot}{name}")
        if charsets.used:
            self.add(_USE[charsets.used])
