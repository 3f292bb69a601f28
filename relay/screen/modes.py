"""The modes of a terminal that a program sets and a fresh terminal has to be told (xterm's ctlseqs).

Screens (47, 1047, 1048, 1049), margins and the cursor are not modes here: `Terminal` acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping

ORIGIN, AUTOWRAP, REVERSE_WRAP, SHOW_CURSOR = 6, 7, 45, 25
INSERT, NEW_LINE = 4, 20
KEYPAD = 66

DEFAULTS: Mapping[int, bool] = {
    1: False,  # application cursor keys
    ORIGIN: False,
    AUTOWRAP: True,
    12: False,  # blinking cursor
    SHOW_CURSOR: True,
    REVERSE_WRAP: False,
    KEYPAD: False,
    9: False,  # mouse: X10
    1000: False,  # mouse: buttons
    1002: False,  # mouse: dragging
    1003: False,  # mouse: every motion
    1004: False,  # focus
    1005: False,  # mouse reports in UTF-8
    1006: False,  # mouse reports as SGR
    1015: False,  # mouse reports as urxvt
    1016: False,  # mouse reports in pixels
    1007: False,  # wheel as cursor keys
    2004: False,  # bracketed paste
    2031: False,  # reports of dark and light
}
"""DEC private modes (``CSI ? n h``) that are kept, with what a fresh terminal has."""
MOUSE = frozenset({9, 1000, 1002, 1003})
"""One at a time: the last that was set."""
MOUSE_REPORTS = frozenset({1005, 1006, 1015, 1016})
"""One at a time, too."""
SOFT = frozenset({1, ORIGIN, AUTOWRAP, SHOW_CURSOR, REVERSE_WRAP, KEYPAD, 1004, 2004})
"""What a soft reset (DECSTR) puts back."""


class Modes:
    """What is set.  The modes that every step asks for are attributes."""

    def __init__(self) -> None:
        self._changed: dict[int, bool] = {}
        self.insert = False
        self.new_line = False
        self.origin = False
        self.autowrap = True
        self.reverse_wrap = False

    def __getitem__(self, mode: int) -> bool:
        return self._changed.get(mode, DEFAULTS[mode])

    def set(self, mode: int, *, on: bool) -> None:
        """Set or reset a private mode; one that is not kept changes nothing."""
        if mode not in DEFAULTS:
            return
        for group in (MOUSE, MOUSE_REPORTS):
            if mode in group:  # also off, whichever was on
                for other in group:
                    self._changed.pop(other, None)
        self._changed[mode] = on
        self._take_over()

    def soft_reset(self) -> None:
        """Put back what DECSTR does."""
        self.insert = False
        for mode in SOFT:
            self._changed.pop(mode, None)
        self._take_over()

    def _take_over(self) -> None:
        self.origin = self[ORIGIN]
        self.autowrap = self[AUTOWRAP]
        self.reverse_wrap = self[REVERSE_WRAP]

    def changed(self) -> dict[int, bool]:
        """Return the private modes that are not as in a fresh terminal."""
        return {mode: on for mode, on in self._changed.items() if on != DEFAULTS[mode]}
