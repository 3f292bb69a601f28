"""How many columns a character takes: 0, 1 or 2.

The widths are those of Unicode 12, which the page's terminal knows too: a newer emoji is 1 column wide
there, whatever the program thought, and a screen is right when it looks as it did.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_WIDE_SYMBOLS = (
    (0x1F004, 0x1F004), (0x1F0CF, 0x1F0CF), (0x1F18E, 0x1F18E), (0x1F191, 0x1F19A),
    (0x1F200, 0x1F202), (0x1F210, 0x1F23B), (0x1F240, 0x1F248), (0x1F250, 0x1F251),
    (0x1F260, 0x1F265), (0x1F300, 0x1F320), (0x1F32D, 0x1F335), (0x1F337, 0x1F37C),
    (0x1F37E, 0x1F393), (0x1F3A0, 0x1F3CA), (0x1F3CF, 0x1F3D3), (0x1F3E0, 0x1F3F0),
    (0x1F3F4, 0x1F3F4), (0x1F3F8, 0x1F43E), (0x1F440, 0x1F440), (0x1F442, 0x1F4FC),
    (0x1F4FF, 0x1F53D), (0x1F54B, 0x1F54E), (0x1F550, 0x1F567), (0x1F57A, 0x1F57A),
    (0x1F595, 0x1F596), (0x1F5A4, 0x1F5A4), (0x1F5FB, 0x1F64F), (0x1F680, 0x1F6C5),
    (0x1F6CC, 0x1F6CC), (0x1F6D0, 0x1F6D2), (0x1F6D5, 0x1F6D5), (0x1F6EB, 0x1F6EC),
    (0x1F6F4, 0x1F6FA), (0x1F7E0, 0x1F7EB), (0x1F90D, 0x1F971), (0x1F973, 0x1F976),
    (0x1F97A, 0x1F9A2), (0x1F9A5, 0x1F9AA), (0x1F9AE, 0x1F9CA), (0x1F9CD, 0x1F9FF),
    (0x1FA70, 0x1FA73), (0x1FA78, 0x1FA7A), (0x1FA80, 0x1FA82), (0x1FA90, 0x1FA95),
)  # fmt: skip
"""From Mahjong tiles to the newest pictographs, where assigned and unassigned lie side by side."""
_SYMBOLS = range(0x1F000, 0x1FB00)
_UNASSIGNED_WIDE = (range(0xFA6E, 0xFB00), range(0x20000, 0x2FFFE), range(0x30000, 0x3FFFE))
_SOFT_HYPHEN = "\xad"
_HANGUL_VOWELS = range(0x1160, 0x1200)
"""They are drawn over the consonant before them."""

NARROW = re.compile(
    "[\x20-\x7e\xa0-\xac\xae-\u02ff\u0370-\u0482\u1e00-\u200a\u2010-\u2027\u2030-\u205f"
    "\u2070-\u20cf\u2100-\u2319\u2500-\u25fc\u2800-\u2b1a\ufffd]*"
    # (2605 to 27bf, where emoji are strewn in, are looked up one by one)
)
"""Matches what certainly takes one column for each character; nearly everything does."""


@lru_cache(maxsize=4096)
def width_of(character: str) -> int:
    """Return the columns of one printable character."""
    code = ord(character)
    category = unicodedata.category(character)
    if code in _SYMBOLS:
        return 2 if any(first <= code <= last for first, last in _WIDE_SYMBOLS) else 1
    if category == "Cn":
        return 2 if any(code in wide for wide in _UNASSIGNED_WIDE) else 1
    if category in {"Mn", "Me"} or (category == "Cf" and character != _SOFT_HYPHEN):
        return 0
    if code in _HANGUL_VOWELS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
