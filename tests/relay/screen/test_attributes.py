from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.screen.attributes import (
    PALETTE,
    PLAIN,
    RGB,
    Attributes,
    Flag,
    Link,
    apply_sgr,
    erased,
    sgr,
)

COLOURS = st.one_of(
    st.just(-1),
    st.integers(0, 15),
    st.integers(PALETTE, PALETTE + 255),
    st.integers(RGB, RGB + 0xFFFFFF),
)
UNDERLINE_COLOURS = COLOURS.filter(lambda colour: colour < 0 or colour >= PALETTE)
ATTRIBUTES = st.builds(
    Attributes,
    COLOURS,
    COLOURS,
    st.integers(0, 255),
    st.integers(0, 5),
    UNDERLINE_COLOURS,
    st.none(),
)


@given(ATTRIBUTES, ATTRIBUTES)
def test_what_is_written_down_is_read_back(before: Attributes, wanted: Attributes) -> None:
    sequence = sgr(wanted)
    assert sequence.startswith("\x1b[")
    assert sequence.endswith("m")
    assert apply_sgr(before, sequence[2:-1]) == wanted


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("", PLAIN),
        ("0", PLAIN),
        ("1;3;31;42", Attributes(1, 2, Flag.BOLD | Flag.ITALIC)),
        ("90;107", Attributes(8, 15)),
        ("38;5;200;1", Attributes(PALETTE + 200, flags=Flag.BOLD)),
        ("38;2;1;2;3;4", Attributes(RGB + 0x010203, underline=1)),
        ("38:2:1:2:3", Attributes(RGB + 0x010203)),
        ("38:2::1:2:3", Attributes(RGB + 0x010203)),
        ("48:5:17", Attributes(background=PALETTE + 17)),
        ("38;5", Attributes(PALETTE)),  # cut off: what is missing is 0
        ("38", PLAIN),
        ("4:3;58:5:9", Attributes(underline=3, underline_colour=PALETTE + 9)),
        ("4:9", Attributes(underline=1)),
        ("21", Attributes(underline=2)),
        ("4;24", PLAIN),
        ("1;2;22", PLAIN),
        ("31;39;42;49", PLAIN),
        ("999999999999;31", Attributes(1)),
        (";".join(["1"] * 40), Attributes(flags=Flag.BOLD)),
    ],
)
def test_sgr(parameters: str, expected: Attributes) -> None:
    assert apply_sgr(PLAIN, parameters) == expected


def test_a_reset_keeps_the_link() -> None:
    linked = PLAIN._replace(link=Link("", "https://example.org"), flags=int(Flag.BOLD))
    assert apply_sgr(linked, "0") == linked._replace(flags=0)


def test_erasing_leaves_the_background_only() -> None:
    assert erased(4) == Attributes(background=4)
