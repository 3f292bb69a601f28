"""What the control sequences do (ECMA-48 § 8.3, DEC VT510, xterm's ctlseqs), but for SGR and REP.

Each function takes the terminal and the parameters of the sequence; a parameter that is missing is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from relay.screen.attributes import PLAIN, pen_for
from relay.screen.charsets import Charsets
from relay.screen.lines import EMPTY
from relay.screen.page import SavedCursor

if TYPE_CHECKING:
    from relay.screen.terminal import Terminal

Parameters = list[int]
Sequence = Callable[["Terminal", Parameters], None]


def _up(terminal: Terminal, numbers: Parameters) -> None:
    page, count = terminal.page, numbers[0] or 1
    room = page.y - page.top
    terminal.move(0, -(min(room, count) if room >= 0 else count))


def _down(terminal: Terminal, numbers: Parameters) -> None:
    page, count = terminal.page, numbers[0] or 1
    room = page.bottom - page.y
    terminal.move(0, min(room, count) if room >= 0 else count)


def _forward(terminal: Terminal, numbers: Parameters) -> None:
    terminal.move(numbers[0] or 1, 0)


def _backward(terminal: Terminal, numbers: Parameters) -> None:
    terminal.move(-(numbers[0] or 1), 0)


def _next_line(terminal: Terminal, numbers: Parameters) -> None:
    _down(terminal, numbers)
    terminal.page.x = 0


def _previous_line(terminal: Terminal, numbers: Parameters) -> None:
    _up(terminal, numbers)
    terminal.page.x = 0


def _column(terminal: Terminal, numbers: Parameters) -> None:
    terminal.go_to((numbers[0] or 1) - 1, terminal.page.y)


def _row(terminal: Terminal, numbers: Parameters) -> None:
    terminal.go_to(terminal.page.x, (numbers[0] or 1) - 1)


def _down_relative(terminal: Terminal, numbers: Parameters) -> None:
    terminal.move(0, numbers[0] or 1)


def _position(terminal: Terminal, numbers: Parameters) -> None:
    column = numbers[1] or 1 if len(numbers) > 1 else 1
    row = numbers[0] or 1
    page = terminal.page
    if terminal.modes.origin:
        terminal.go_to(column - 1, row - 1)
    else:  # the same, but nothing is done as often
        page.x = column - 1 if column <= page.columns else page.columns - 1
        page.y = row - 1 if row <= page.rows else page.rows - 1


def _tab_forward(terminal: Terminal, numbers: Parameters) -> None:
    page = terminal.page
    if page.x < page.columns:
        for _ in range(min(numbers[0] or 1, page.columns)):
            page.x = page.next_tab()


def _tab_backward(terminal: Terminal, numbers: Parameters) -> None:
    page = terminal.page
    if page.x < page.columns:
        for _ in range(min(numbers[0] or 1, page.columns)):
            page.x = page.previous_tab()


def _clear_tabs(terminal: Terminal, numbers: Parameters) -> None:
    if numbers[0] == 0:
        terminal.page.tabs.discard(terminal.page.x)
    elif numbers[0] == 3:
        terminal.page.tabs.clear()


def _erase_display(terminal: Terminal, numbers: Parameters) -> None:
    terminal.restrict(terminal.columns + 1)
    page = terminal.page
    match numbers[0]:
        case 0:
            _erase_line(terminal, [0])
            for line in page.lines[page.y + 1 :]:
                line.fill(EMPTY, terminal.erased)
        case 1:
            _erase_line(terminal, [1])
            terminal.line.wrapped = False
            if page.x + 1 >= page.columns and page.y + 1 < page.rows:
                page.lines[page.y + 1].wrapped = False
            for line in page.lines[: page.y]:
                line.fill(EMPTY, terminal.erased)
        case 2:
            for line in page.lines:
                line.fill(EMPTY, terminal.erased)
            terminal.is_whole = True
        case 3:
            page.forget_history()


def _erase_line(terminal: Terminal, numbers: Parameters) -> None:
    terminal.restrict(terminal.columns + 1)
    line, x, columns = terminal.line, terminal.page.x, terminal.columns
    match numbers[0]:
        case 0:
            line.erase(x, columns, terminal.erased)
            if x == 0:
                line.wrapped = False
        case 1:
            line.erase(0, x + 1, terminal.erased)
        case 2:
            line.erase(0, columns, terminal.erased)
            line.wrapped = False


def _insert_lines(terminal: Terminal, numbers: Parameters) -> None:
    _move_lines(terminal, numbers[0] or 1, down=True)


def _delete_lines(terminal: Terminal, numbers: Parameters) -> None:
    _move_lines(terminal, numbers[0] or 1, down=False)


def _move_lines(terminal: Terminal, count: int, *, down: bool) -> None:
    terminal.restrict()
    page = terminal.page
    if page.top <= page.y <= page.bottom:
        page.move_lines(page.y, count, terminal.erased, down=down)
        page.x = 0


def _insert_characters(terminal: Terminal, numbers: Parameters) -> None:
    terminal.restrict()
    terminal.line.insert(terminal.page.x, numbers[0] or 1, terminal.erased)


def _delete_characters(terminal: Terminal, numbers: Parameters) -> None:
    terminal.restrict()
    terminal.line.delete(terminal.page.x, numbers[0] or 1, terminal.erased)


def _erase_characters(terminal: Terminal, numbers: Parameters) -> None:
    terminal.restrict()
    x = terminal.page.x
    terminal.line.erase(x, x + (numbers[0] or 1), terminal.erased)


def _scroll_up(terminal: Terminal, numbers: Parameters) -> None:
    page = terminal.page
    page.move_lines(page.top, numbers[0] or 1, terminal.erased, down=False)


def _scroll_down(terminal: Terminal, numbers: Parameters) -> None:
    page = terminal.page
    page.move_lines(page.top, numbers[0] or 1, PLAIN, down=True)


def _columns(terminal: Terminal, x: int, count: int, *, insert: bool) -> None:
    """Insert or delete columns in every line between the margins."""
    page = terminal.page
    if page.top <= page.y <= page.bottom:
        for line in page.lines[page.top : page.bottom + 1]:
            change = line.insert if insert else line.delete
            change(x % page.columns, count, terminal.erased)
            line.wrapped = False


def _scroll_left(terminal: Terminal, numbers: Parameters) -> None:
    _columns(terminal, 0, numbers[0] or 1, insert=False)


def _scroll_right(terminal: Terminal, numbers: Parameters) -> None:
    _columns(terminal, 0, numbers[0] or 1, insert=True)


def _insert_columns(terminal: Terminal, numbers: Parameters) -> None:
    _columns(terminal, terminal.page.x, numbers[0] or 1, insert=True)


def _delete_columns(terminal: Terminal, numbers: Parameters) -> None:
    _columns(terminal, terminal.page.x, numbers[0] or 1, insert=False)


def _set_modes(terminal: Terminal, numbers: Parameters) -> None:
    _change_modes(terminal, numbers, on=True)


def _reset_modes(terminal: Terminal, numbers: Parameters) -> None:
    _change_modes(terminal, numbers, on=False)


def _change_modes(terminal: Terminal, numbers: Parameters, *, on: bool) -> None:
    if 4 in numbers:
        terminal.modes.insert = on
    if 20 in numbers:
        terminal.modes.new_line = on


def _set_private_modes(terminal: Terminal, numbers: Parameters) -> None:
    terminal.set_private_modes(numbers, on=True)


def _reset_private_modes(terminal: Terminal, numbers: Parameters) -> None:
    terminal.set_private_modes(numbers, on=False)


def _soft_reset(terminal: Terminal, _numbers: Parameters) -> None:
    page = terminal.page
    page.top, page.bottom = 0, page.rows - 1
    page.saved = SavedCursor(y=page.scrolled)
    terminal.modes.soft_reset()
    terminal.use_charsets(Charsets())
    terminal.use_pen(pen_for(PLAIN))
    terminal.settings.soft_reset()


def _margins(terminal: Terminal, numbers: Parameters) -> None:
    page = terminal.page
    top = numbers[0] or 1
    bottom = numbers[1] if len(numbers) > 1 else 0
    if not 0 < bottom <= page.rows:
        bottom = page.rows
    if bottom > top:
        page.top, page.bottom = top - 1, bottom - 1
        terminal.go_to(0, 0)


def _save_cursor(terminal: Terminal, _numbers: Parameters) -> None:
    terminal.save_cursor()


def _restore_cursor(terminal: Terminal, _numbers: Parameters) -> None:
    terminal.restore_cursor()


SEQUENCES: Mapping[str, Sequence] = {
    "@": _insert_characters,
    " @": _scroll_left,
    "A": _up,
    " A": _scroll_right,
    "B": _down,
    "C": _forward,
    "D": _backward,
    "E": _next_line,
    "F": _previous_line,
    "G": _column,
    "H": _position,
    "I": _tab_forward,
    "J": _erase_display,
    "?J": _erase_display,
    "K": _erase_line,
    "?K": _erase_line,
    "L": _insert_lines,
    "M": _delete_lines,
    "P": _delete_characters,
    "S": _scroll_up,
    "T": _scroll_down,
    "X": _erase_characters,
    "Z": _tab_backward,
    "`": _column,
    "a": _forward,
    "d": _row,
    "e": _down_relative,
    "f": _position,
    "g": _clear_tabs,
    "h": _set_modes,
    "?h": _set_private_modes,
    "l": _reset_modes,
    "?l": _reset_private_modes,
    "!p": _soft_reset,
    "r": _margins,
    "s": _save_cursor,
    "u": _restore_cursor,
    "'}": _insert_columns,
    "'~": _delete_columns,
}
"""Prefix, intermediates and final byte of a sequence, and what it does."""
