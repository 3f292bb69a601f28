"""What a terminal remembers besides its screens: title, cursor style, colours, keyboard protocols.

All of it is bounded, and only what cannot be a question is kept: a snapshot must not ask anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_TITLE = 1024
"""Characters."""
MAX_KEYBOARD = 16
"""Entries on the stack of the kitty keyboard protocol."""
_COLOUR = re.compile(r"[#A-Za-z0-9:./ -]{1,64}\Z")
_SPECIAL = ("10", "11", "12")
"""OSC numbers of the colours of text, background and cursor."""


class Settings:
    """The settings of one terminal."""

    def __init__(self) -> None:
        self.title = ""
        self.cursor_style = 0
        self._colours: dict[str, str] = {}
        self._keyboard: list[int] = []
        self._other_keys = 0

    def reset(self) -> None:
        """Put everything back but the title and the colours, as a full reset does."""
        self.cursor_style = 0
        self._keyboard = []
        self._other_keys = 0

    def soft_reset(self) -> None:
        """Put back what DECSTR does."""
        self.cursor_style = 0

    def csi(self, name: str, numbers: list[int]) -> None:
        """Act on a control sequence; one that sets nothing here is ignored."""
        match name:
            case " q":
                self.cursor_style = numbers[0] if 0 <= numbers[0] <= 6 else self.cursor_style
            case ">u":
                self._keyboard = [*self._keyboard, numbers[0]][-MAX_KEYBOARD:]
            case "<u":
                del self._keyboard[max(len(self._keyboard) - (numbers[0] or 1), 0) :]
            case "=u":
                self._change_keyboard(numbers[0], numbers[1] if len(numbers) > 1 else 1)
            case ">m" if numbers[0] == 4:
                self._other_keys = numbers[1] if len(numbers) > 1 else 0
            case _:
                pass

    def _change_keyboard(self, flags: int, how: int) -> None:
        now = self._keyboard.pop() if self._keyboard else 0
        self._keyboard.append({1: flags, 2: now | flags, 3: now & ~flags}.get(how, now))

    def osc(self, number: str, body: str) -> None:
        """Act on an operating system command."""
        if number in {"0", "2"}:
            self.title = body[:MAX_TITLE]
        elif number == "4":
            parts = body.split(";")
            for index, colour in zip(parts[::2], parts[1::2], strict=False):
                if index.isascii() and index.isdigit() and len(index) < 4 and int(index) < 256:
                    self._set_colour(f"4;{int(index)}", colour)
        elif number in _SPECIAL:
            # More colours than one are for the numbers that follow.
            first = _SPECIAL.index(number)
            for special, colour in zip(_SPECIAL[first:], body.split(";"), strict=False):
                self._set_colour(special, colour)
        elif number == "104":
            for name in (
                [f"4;{index}" for index in body.split(";")] if body else list(self._colours)
            ):
                if name.startswith("4;"):
                    self._colours.pop(name, None)
        elif number in {"110", "111", "112"}:
            self._colours.pop(number[1:], None)

    def _set_colour(self, name: str, colour: str) -> None:
        if _COLOUR.match(colour):  # so it is no "?"
            self._colours[name] = colour

    def sequences(self) -> Iterator[str]:
        """Yield what brings a fresh terminal to these settings."""
        if self.title:
            yield f"\x1b]2;{self.title}\x1b\\"
        for name, colour in self._colours.items():
            yield f"\x1b]{name};{colour}\x1b\\"
        if self.cursor_style:
            yield f"\x1b[{self.cursor_style} q"
        if self._other_keys:
            yield f"\x1b[>4;{self._other_keys}m"
        for flags in self._keyboard:
            yield f"\x1b[>{flags}u"
