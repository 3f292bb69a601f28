"""How characters look: colours, weight, underline, link (ECMA-48 § 8.3.117 SGR; xterm's ctlseqs).

Attributes are immutable, so that cells can share them; what an SGR sequence makes of them is
remembered, because programs use few of them over and over.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntFlag
from functools import lru_cache
from typing import NamedTuple

DEFAULT_COLOUR = -1
PALETTE = 0x100
"""Added to a colour of the 256: it is told apart from the first 16, which themes name otherwise."""
RGB = 0x1000000
"""Added to a colour of 24 bits."""
MAX_PARAMETERS = 32
MAX_REMEMBERED = 64
"""Changes that a pen remembers."""


class Flag(IntFlag):
    """What is on or off."""

    BOLD = 1
    DIM = 2
    ITALIC = 4
    BLINK = 8
    INVERSE = 16
    INVISIBLE = 32
    STRUCK = 64
    OVERLINE = 128


class Link(NamedTuple):
    """A hyperlink (OSC 8): `parameters` as they were given, such as ``id=1``, and where it leads."""

    parameters: str
    uri: str


class Attributes(NamedTuple):
    """How a character looks.

    A colour is `DEFAULT_COLOUR`, 0..15, `PALETTE` + 0..255 or `RGB` + 0..0xffffff.  `underline` is
    0 for none, 1 single, 2 double, 3 curly, 4 dotted, 5 dashed.
    """

    foreground: int = DEFAULT_COLOUR
    background: int = DEFAULT_COLOUR
    flags: int = 0
    underline: int = 0
    underline_colour: int = DEFAULT_COLOUR
    link: Link | None = None


PLAIN = Attributes()

_ON = {
    1: Flag.BOLD, 2: Flag.DIM, 3: Flag.ITALIC, 5: Flag.BLINK, 7: Flag.INVERSE,
    8: Flag.INVISIBLE, 9: Flag.STRUCK, 53: Flag.OVERLINE,
}  # fmt: skip
_OFF = {
    22: Flag.BOLD | Flag.DIM, 23: Flag.ITALIC, 25: Flag.BLINK, 27: Flag.INVERSE,
    28: Flag.INVISIBLE, 29: Flag.STRUCK, 55: Flag.OVERLINE,
}  # fmt: skip
_COLOURS = {38: "foreground", 48: "background", 58: "underline_colour"}
_DEFAULTS = {39: "foreground", 49: "background", 59: "underline_colour"}


def apply_sgr(attributes: Attributes, parameters: str) -> Attributes:
    """Return what ``CSI parameters m`` makes of `attributes`; what is not known changes nothing."""
    now = attributes._asdict()
    groups = [_numbers(group) for group in parameters.split(";")[:MAX_PARAMETERS]]
    position = 0
    while position < len(groups):
        group = groups[position]
        position += 1
        code = group[0]
        if code == 0:
            now = PLAIN._replace(link=attributes.link)._asdict()
        elif code in _ON:
            now["flags"] |= _ON[code]
        elif code in _OFF:
            now["flags"] &= ~_OFF[code]
        elif code == 4:
            style = group[1] if len(group) > 1 else 1
            now["underline"] = style if 0 <= style <= 5 else 1
        elif code in {21, 24}:
            now["underline"] = 2 if code == 21 else 0
        elif code in _COLOURS:
            if len(group) > 1:
                colour = _colour_of_group(group)
            else:
                colour, used = _colour_of_list([group[0] for group in groups[position:]])
                position += used
            if colour is not None:
                now[_COLOURS[code]] = colour
        elif code in _DEFAULTS:
            now[_DEFAULTS[code]] = DEFAULT_COLOUR
        else:
            _apply_basic_colour(now, code)
    now["flags"] = int(now["flags"])
    return Attributes(**now)


def _apply_basic_colour(now: dict[str, object], code: int) -> None:
    for first, key, colour in (
        (30, "foreground", 0),
        (40, "background", 0),
        (90, "foreground", 8),
        (100, "background", 8),
    ):
        if first <= code < first + 8:
            now[key] = colour + code - first


def _numbers(group: str) -> list[int]:
    """Return a parameter and its sub-parameters; an empty one is 0, an empty sub-parameter -1."""
    first, *rest = group.split(":")
    return [_number(first, 0), *(_number(text, -1) for text in rest)]


def _number(text: str, otherwise: int) -> int:
    return int(text[-9:]) if text else otherwise  # what is longer is nonsense anyway


def _colour_of_group(group: list[int]) -> int | None:
    """Return the colour of ``38:5:n``, ``38:2:r:g:b`` or ``38:2:space:r:g:b``."""
    mode, *values = group[1:]
    if mode == 5:
        return PALETTE + (max(values[0], 0) & 0xFF if values else 0)
    if mode != 2:
        return None
    # With a place for the colour space, which is the first of four; three are the colour alone.
    return _rgb(values[1:] if len(values) > 3 else values)


def _colour_of_list(values: list[int]) -> tuple[int | None, int]:
    """Return the colour of ``38;5;n`` or ``38;2;r;g;b`` and how many parameters it took."""
    if not values:
        return None, 0
    if values[0] == 5:
        return PALETTE + (values[1] & 0xFF if len(values) > 1 else 0), 2
    if values[0] == 2:
        return _rgb(values[1:4]), 4
    return None, 1


def _rgb(values: list[int]) -> int:
    red, green, blue = ([max(value, 0) & 0xFF for value in values[:3]] + [0, 0, 0])[:3]
    return RGB + (red << 16 | green << 8 | blue)


@lru_cache(maxsize=4096)
def sgr(attributes: Attributes) -> str:
    """Return the sequence that makes a terminal write with just these attributes (but the link)."""
    codes = ["0", *(str(code) for code, flag in _ON.items() if attributes.flags & flag)]
    if attributes.underline:
        codes.append("4" if attributes.underline == 1 else f"4:{attributes.underline}")
    codes += _colour_codes(attributes.foreground, 30, 90, "38")
    codes += _colour_codes(attributes.background, 40, 100, "48")
    codes += _underline_codes(attributes.underline_colour)
    return f"\x1b[{';'.join(codes)}m" if len(codes) > 1 else "\x1b[m"


def _colour_codes(colour: int, dark: int, bright: int, wide: str) -> Iterator[str]:
    if colour >= RGB:
        yield f"{wide};2;{colour >> 16 & 0xFF};{colour >> 8 & 0xFF};{colour & 0xFF}"
    elif colour >= PALETTE:
        yield f"{wide};5;{colour - PALETTE}"
    elif colour >= 8:
        yield str(bright + colour - 8)
    elif colour >= 0:
        yield str(dark + colour)


def _underline_codes(colour: int) -> Iterator[str]:
    """Yield with colons: who does not know this code skips it whole."""
    if colour >= RGB:
        yield f"58:2::{colour >> 16 & 0xFF}:{colour >> 8 & 0xFF}:{colour & 0xFF}"
    elif colour >= PALETTE:
        yield f"58:5:{colour - PALETTE}"


class Pen:
    """Attributes to write with, and what they become: programs change between a few all the time.

    `erased` are those of cells that are erased with this pen: only the background counts.
    """

    __slots__ = ("_after", "attributes", "erased")

    def __init__(self, attributes: Attributes = PLAIN) -> None:
        self.attributes = attributes
        self.erased = erased(attributes.background)
        self._after: dict[str, Pen] = {}

    def after(self, parameters: str) -> Pen:
        """Return the pen after ``CSI parameters m``."""
        pen = self._after.get(parameters)
        if pen is None:
            if len(self._after) >= MAX_REMEMBERED:
                self._after.clear()
            pen = self._after[parameters] = pen_for(apply_sgr(self.attributes, parameters))
        return pen


@lru_cache(maxsize=256)
def erased(background: int) -> Attributes:
    """Return the attributes of cells that are erased with this background."""
    return PLAIN if background == DEFAULT_COLOUR else Attributes(background=background)


@lru_cache(maxsize=1024)
def pen_for(attributes: Attributes) -> Pen:
    """Return a pen that writes with `attributes`."""
    return Pen(attributes)
