from __future__ import annotations

import pytest

from relay.screen.widths import NARROW, width_of


@pytest.mark.parametrize(
    ("characters", "width"),
    [
        ("aé~ñ─│█⠿→£\u00ad¿ЖΩאع", 1),
        ("日本語。한Ａ🚀😀🧪", 2),
        ("\u0301\u200d\ufe0f\u200b\u1160\u20dd", 0),
        ("\u2764\u263a\u2122\U0001f972", 1),  # narrow for the page's terminal
    ],
)
def test_widths(characters: str, width: int) -> None:
    assert [width_of(character) for character in characters] == [width] * len(characters)


def test_what_matches_as_narrow_is_narrow() -> None:
    every = (chr(code) for code in range(0x20, 0x3000) if not 0x7F <= code < 0xA0)
    assert [c for c in every if NARROW.fullmatch(c) and width_of(c) != 1] == []
    assert NARROW.fullmatch("plain text with ─│ boxes, é and ü")
