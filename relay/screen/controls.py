"""What the control characters and the escape sequences do (ECMA-48 § 8.3, DEC VT510)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from relay.screen.charsets import ASCII, Charsets
from relay.screen.lines import EMPTY
from relay.screen.modes import KEYPAD

if TYPE_CHECKING:
    from relay.screen.terminal import Terminal

Control = Callable[["Terminal"], None]


def _return(terminal: Terminal) -> None:
    terminal.page.x = 0


def _line_feed(terminal: Terminal) -> None:
    page = terminal.page
    if terminal.modes.new_line:
        page.x = 0
    if page.y == page.bottom:
        page.scroll(terminal.erased)
    elif page.y < page.rows - 1:
        page.y += 1
        page.lines[page.y].wrapped = False
    if page.x >= page.columns:
        page.x -= 1


def _backspace(terminal: Terminal) -> None:
    page = terminal.page
    reverse = terminal.modes.reverse_wrap
    terminal.restrict(page.columns + reverse)
    line = page.lines[page.y]
    if page.x > 0:
        page.x -= 1
    elif reverse and line.wrapped and page.top < page.y <= page.bottom:
        line.wrapped = False
        page.y -= 1
        page.x = page.columns - 1
        if page.lines[page.y].cells[page.x] == EMPTY:
            page.x -= 1  # where a wide character did not fit
    terminal.restrict()


def _tab(terminal: Terminal) -> None:
    page = terminal.page
    if page.x < page.columns:
        page.x = page.next_tab()


def _index(terminal: Terminal) -> None:
    page = terminal.page
    terminal.restrict()
    if page.y == page.bottom:
        page.scroll(terminal.erased)
    else:
        page.y = min(page.y + 1, page.rows - 1)
    terminal.restrict()


def _next_line(terminal: Terminal) -> None:
    terminal.page.x = 0
    _index(terminal)


def _reverse_index(terminal: Terminal) -> None:
    page = terminal.page
    terminal.restrict()
    if page.y == page.top:
        page.scroll_back(terminal.erased)
    else:
        page.y -= 1
        terminal.restrict()


def _set_tab(terminal: Terminal) -> None:
    terminal.page.tabs.add(terminal.page.x)


def _save_cursor(terminal: Terminal) -> None:
    terminal.save_cursor()


def _restore_cursor(terminal: Terminal) -> None:
    terminal.restore_cursor()


def _full_reset(terminal: Terminal) -> None:
    terminal.reset()


def _set_keypad(terminal: Terminal, *, application: bool) -> None:
    terminal.modes.set(KEYPAD, on=application)


def _use_slot(terminal: Terminal, *, slot: int) -> None:
    terminal.use_charsets(Charsets(terminal.charsets.slots, slot))


def _use_ascii(terminal: Terminal) -> None:
    terminal.use_charsets(Charsets(terminal.charsets.slots).designate(0, ASCII))


def _alignment_pattern(terminal: Terminal) -> None:
    terminal.go_to(0, 0)
    page = terminal.page
    for line in page.lines[page.y :]:
        line.fill("E", terminal.attributes._replace(underline=0, link=None))
    terminal.go_to(0, 0)


CONTROLS: Mapping[str, Control] = {
    "\b": _backspace,
    "\t": _tab,
    "\n": _line_feed,
    "\v": _line_feed,
    "\f": _line_feed,
    "\r": _return,
    "\x0e": partial(_use_slot, slot=1),
    "\x0f": partial(_use_slot, slot=0),
    "\x84": _index,
    "\x85": _next_line,
    "\x88": _set_tab,
}
"""Control characters, C0 and C1; the others do nothing to the screen."""

ESCAPES: Mapping[str, Control] = {
    "7": _save_cursor,
    "8": _restore_cursor,
    "D": _index,
    "E": _next_line,
    "H": _set_tab,
    "M": _reverse_index,
    "=": partial(_set_keypad, application=True),
    ">": partial(_set_keypad, application=False),
    "c": _full_reset,
    "n": partial(_use_slot, slot=2),
    "o": partial(_use_slot, slot=3),
    "|": partial(_use_slot, slot=3),
    "}": partial(_use_slot, slot=2),
    "~": partial(_use_slot, slot=1),
    "%@": _use_ascii,
    "%G": _use_ascii,
    "#8": _alignment_pattern,
}
"""Intermediates and final byte of an escape sequence, and what it does."""
