"""Character sets that a program can designate (DEC VT510, "Character Sets").

Only ASCII is replaced.  Of the national sets, which nobody has used since there is UTF-8, a terminal is
told by a snapshot which one is designated; what was drawn with it is not replaced here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Charset = Mapping[int, str]

ASCII = "B"
_LINES = "0"
_REPLACED = {
    _LINES: ("`abcdefghijklmnopqrstuvwxyz{|}~", "◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·"),
    "A": ("#", "£"),
}
CHARSETS: Mapping[str, Charset] = {
    name: dict(zip(map(ord, old), new, strict=True)) for name, (old, new) in _REPLACED.items()
}
NAMES = frozenset("0AB4C5RQKYEZH7=6`")
"""What can be designated; anything else is no sequence that terminals know."""
SLOTS: Mapping[str, int] = {"(": 0, ")": 1, "-": 1, "*": 2, ".": 2, "+": 3}
"""The slot G0 to G3 that an intermediate byte designates."""


@dataclass(frozen=True, slots=True)
class Charsets:
    """The names of the sets in G0 to G3, and which of them is in use."""

    slots: tuple[str, str, str, str] = (ASCII,) * 4
    used: int = 0

    @property
    def current(self) -> Charset | None:
        """What to replace; None for nothing."""
        return CHARSETS.get(self.slots[self.used])

    def designate(self, slot: int, name: str) -> Charsets:
        """Return the sets with another one in `slot`."""
        slots = list(self.slots)
        slots[slot] = name
        return Charsets((slots[0], slots[1], slots[2], slots[3]), self.used)


USUAL = Charsets()
"""What a fresh terminal has."""
