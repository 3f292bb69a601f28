from __future__ import annotations

import random

import pytest

from relay.screen.attributes import PLAIN, Attributes, Link, erased
from relay.screen.lines import (
    EMPTY,
    HISTORY,
    HISTORY_CELLS,
    MAX_COMBINED,
    TAIL,
    Line,
    PackedLine,
    history_limit,
)
from tests.testing.terminal_output import text_of

RED = erased(1)


def line_of(text: str) -> Line:
    """Return a line; "·" is an empty cell, and behind 日 comes its right half."""
    cells: list[str] = []
    for character in text:
        cells += [EMPTY] if character == "·" else [character]
        if character == "日":
            cells.append(TAIL)
    line = Line(len(cells))
    line.cells = cells
    return line


@pytest.mark.parametrize(
    ("before", "start", "end", "after"),
    [
        ("abcdef", 1, 3, "a··def"),
        ("abcdef", 4, 99, "abcd"),
        ("a日b日c", 2, 3, "a··b日c"),  # from the middle of a wide character
        ("a日b日c", 3, 5, "a日···c"),  # to the middle of one
        ("a日c", 0, 4, ""),
        ("abc", 2, 2, "abc"),
    ],
)
def test_erasing(before: str, start: int, end: int, after: str) -> None:
    line = line_of(before)
    line.erase(start, end, RED)
    assert text_of(line.cells) == after
    assert all(
        look == RED for cell, look in zip(line.cells, line.attributes, strict=True) if cell == EMPTY
    )


@pytest.mark.parametrize(
    ("before", "column", "count", "after"),
    [
        ("abcdef", 1, 2, "a··bcd"),
        ("abcdef", 5, 9, "abcde"),
        ("abc日", 0, 1, "·abc"),  # half of it would be over the edge
        ("日abcd", 1, 1, "···abc"),
    ],
)
def test_inserting(before: str, column: int, count: int, after: str) -> None:
    line = line_of(before)
    width = len(line.cells)
    line.insert(column, count, RED)
    assert text_of(line.cells) == after
    assert len(line.cells) == len(line.attributes) == width


@pytest.mark.parametrize(
    ("before", "column", "count", "after"),
    [
        ("abcdef", 1, 2, "adef"),
        ("abcdef", 3, 99, "abc"),
        ("日abcd", 1, 1, "·abcd"),
        ("a日bcd", 1, 1, "a·bcd"),
    ],
)
def test_deleting(before: str, column: int, count: int, after: str) -> None:
    line = line_of(before)
    width = len(line.cells)
    line.delete(column, count, RED)
    assert text_of(line.cells) == after
    assert len(line.cells) == len(line.attributes) == width


def test_combining() -> None:
    line = line_of("a日·")
    line.combine(1, "\u0301")
    line.combine(3, "\u0302")
    line.combine(4, "\u0303")  # there is nothing to put it on
    line.combine(0, "\u0304")
    assert line.cells == ["a\u0301", "日\u0302", TAIL, EMPTY]
    for _ in range(100):
        line.combine(1, "\u0301")
    assert len(line.cells[0]) == MAX_COMBINED


def test_resizing() -> None:
    line = line_of("ab日c")
    line.resize(3)
    assert line.cells == ["a", "b", EMPTY]
    line.resize(5)
    assert line.cells == ["a", "b", EMPTY, EMPTY, EMPTY]
    assert line.attributes == [PLAIN] * 5


@pytest.mark.parametrize("seed", range(50))
def test_a_packed_line_is_the_same(seed: int) -> None:
    chance = random.Random(seed)
    looks = [
        PLAIN,
        RED,
        Attributes(0x1FFFFFF, 0x100, 255, 5, 0x1000000),
        PLAIN._replace(link=Link("id=1", "https://example.org")),
    ]
    line = Line(40, wrapped=chance.random() < 0.5)
    for x in range(40):
        line.cells[x] = chance.choice(("a", EMPTY, "é", "日", "e\u0301"))
        line.attributes[x] = looks[0] if seed % 5 == 0 else chance.choice(looks)
        if line.cells[x - 1] == "日" and x:
            line.cells[x] = TAIL
    back = PackedLine(line).unpack()
    assert (back.cells, back.attributes, back.wrapped) == (
        line.cells,
        line.attributes,
        line.wrapped,
    )


def test_long_lines_are_remembered_less() -> None:
    assert history_limit(80) == HISTORY
    assert history_limit(500) * 500 <= HISTORY_CELLS
