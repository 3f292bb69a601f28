"""The screen after some output; what it should be was checked against the page's terminal.

(tests/web/test_screens.py compares the two on anything.)
"""

from __future__ import annotations

import time
import tracemalloc

import pytest

from relay.endpoint import TerminalSize
from relay.screen import Terminal
from relay.screen.attributes import PALETTE, PLAIN, Flag, Link
from relay.screen.terminal import MAX_COLUMNS, MAX_ROWS
from tests.testing.terminal_output import rows_of, text_of

SIZE = TerminalSize(10, 4)


def shown(output: bytes, size: TerminalSize = SIZE) -> Terminal:
    terminal = Terminal(size)
    terminal.feed(output)
    return terminal


# Output, the rows of the screen (what is below them is empty), and the cursor as column, row.
DRAWN: dict[str, tuple[bytes, list[str], tuple[int, int]]] = {
    "text": (b"one\r\ntwo", ["one", "two"], (3, 1)),
    "wrap": (b"0123456789abc", ["0123456789", "abc"], (3, 1)),
    "last column": (b"0123456789", ["0123456789"], (10, 0)),
    "no wrap": (b"\x1b[?7l0123456789abc", ["012345678c"], (10, 0)),
    "scroll": (b"1\r\n2\r\n3\r\n4\r\n5", ["2", "3", "4", "5"], (1, 3)),
    "line feed alone": (b"ab\ncd", ["ab", "··cd"], (4, 1)),
    "new line mode": (b"\x1b[20hab\ncd", ["ab", "cd"], (2, 1)),
    "backspace": (b"abc\b\bX", ["aXc"], (2, 0)),
    "tab": (b"a\tb", ["a·······b"], (9, 0)),
    "tab stops": (b"\x1b[3g\x1b[3G\x1bH\r\tx", ["··x"], (3, 0)),
    "tabs back": (b"\x1b[10G\x1b[Zx", ["········x"], (9, 0)),
    "position": (b"\x1b[2;3Hx", ["", "··x"], (3, 1)),
    "position too far": (b"\x1b[99;99Hx", ["", "", "", "·········x"], (10, 3)),
    "relative": (b"\x1b[2B\x1b[3Cx\x1b[A\x1b[2Dy", ["", "··y", "···x"], (3, 1)),
    "columns and rows": (b"\x1b[5Gx\x1b[3dy\x1b[2`z", ["····x", "", "·z···y"], (2, 2)),
    "wide": ("日本x".encode(), ["日本x"], (5, 0)),
    "wide does not fit": ("123456789日".encode(), ["123456789", "日"], (2, 1)),
    "half a wide one": ("日本\x1b[2Gx".encode(), ["·x本"], (2, 0)),
    "the other half": ("日本\x1b[3Gx".encode(), ["日x"], (3, 0)),
    "combined": ("e\u0301x".encode(), ["e\u0301x"], (2, 0)),
    "erase line": (b"abcdef\x1b[3G\x1b[K", ["ab"], (2, 0)),
    "erase line before": (b"abcdef\x1b[3G\x1b[1K", ["···def"], (2, 0)),
    "erase below": (b"a\r\nb\r\nc\x1b[2;1H\x1b[J", ["a"], (0, 1)),
    "erase above": (b"a\r\nb\r\nc\x1b[2;1H\x1b[1J", ["", "", "c"], (0, 1)),
    "erase all": (b"a\r\nb\x1b[2J", [], (1, 1)),
    "erase characters": (b"abcdef\x1b[2G\x1b[2X", ["a··def"], (1, 0)),
    "insert characters": (b"abcdef\x1b[2G\x1b[2@", ["a··bcdef"], (1, 0)),
    "delete characters": (b"abcdef\x1b[2G\x1b[2P", ["adef"], (1, 0)),
    "insert mode": (b"abc\x1b[4h\x1b[1Gxy", ["xyabc"], (2, 0)),
    "insert lines": (b"a\r\nb\r\nc\x1b[2;1H\x1b[L", ["a", "", "b", "c"], (0, 1)),
    "delete lines": (b"a\r\nb\r\nc\x1b[2;1H\x1b[M", ["a", "c"], (0, 1)),
    "scroll up and down": (b"a\r\nb\r\nc\x1b[S", ["b", "c"], (1, 2)),
    "scroll down": (b"a\r\nb\x1b[T", ["", "a", "b"], (1, 1)),
    "margins": (b"a\r\nb\r\nc\r\nd\x1b[2;3r\x1b[3;1H\nx", ["a", "c", "x", "d"], (1, 2)),
    "reverse index": (b"a\r\nb\x1b[1;1H\x1bMx", ["x", "a", "b"], (1, 0)),
    "origin": (b"\x1b[2;4r\x1b[?6h\x1b[1;1Hx", ["", "x"], (1, 1)),
    "saved cursor": (b"ab\x1b7\x1b[3;3Hx\x1b8y", ["aby", "", "··x"], (3, 0)),
    "line drawing": (b"\x1b(0lqk\x1b(Blqk", ["┌─┐lqk"], (6, 0)),
    "shift out": (b"\x1b)0\x0eq\x0fq", ["─q"], (2, 0)),
    "repeat": (b"ab\x1b[3b\x1b[3b", ["abbbb"], (5, 0)),
    "alignment": (b"\x1b#8", ["E" * 10] * 4, (0, 0)),
    "alternate": (b"main\x1b[?1049halt", ["····alt"], (7, 0)),
    "back from it": (b"main\x1b[?1049h\x1b[Halt\x1b[?1049l!", ["main!"], (5, 0)),
    "reset": (b"abc\x1b[?1049h\x1bcd", ["d"], (1, 0)),
    "reverse wrap": (b"\x1b[?45h0123456789ab\b\b\bX", ["012345678X", "ab"], (10, 0)),
    "columns": (b"abc\r\ndef\x1b[1;2H\x1b[1'}", ["a·bc", "d·ef"], (1, 0)),
    "questions": (b"a\x1b[c\x1b[6n\x1b]11;?\x07\x1bP$qm\x1b\\b", ["ab"], (2, 0)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn(name: str) -> None:
    output, rows, cursor = DRAWN[name]
    terminal = shown(output)
    assert rows_of(terminal) == [*rows, *[""] * (SIZE.rows - len(rows))]
    assert (terminal.page.x, terminal.page.y) == cursor


@pytest.mark.parametrize("name", DRAWN)
def test_bytes_one_by_one(name: str) -> None:
    output, _, _ = DRAWN[name]
    terminal = Terminal(SIZE)
    for i in range(len(output)):
        terminal.feed(output[i : i + 1])
    whole = shown(output)
    assert rows_of(terminal) == rows_of(whole)
    assert (terminal.page.x, terminal.page.y) == (whole.page.x, whole.page.y)


def test_history_and_what_it_is_bounded_by() -> None:
    terminal = shown(b"".join(b"line %d\r\n" % n for n in range(3000)))
    history = [text_of(line.cells) for line in terminal.main.history_lines()]
    assert len(history) == 1000
    assert history[-1] == "line 2996"
    terminal.feed(b"\x1b[3J")
    assert terminal.main.history_lines() == []
    assert rows_of(terminal)[0] == "line 2997"


def test_attributes_and_links() -> None:
    terminal = shown(b"\x1b[1;38;5;200mA\x1b]8;id=1;https://x.org/\x07B\x1b[0mC\x1b]8;;\x07D")
    assert terminal.page.lines[0].attributes[:4] == [
        PLAIN._replace(foreground=PALETTE + 200, flags=Flag.BOLD),
        PLAIN._replace(
            foreground=PALETTE + 200, flags=Flag.BOLD, link=Link("id=1", "https://x.org/")
        ),
        PLAIN._replace(link=Link("id=1", "https://x.org/")),
        PLAIN,
    ]


def test_what_is_erased_or_scrolled_in_has_the_background() -> None:
    terminal = shown(b"\x1b[4;1H\x1b[41;1m\n\x1b[1;1Hab\x1b[K")
    red = PLAIN._replace(background=1)
    assert terminal.page.lines[3].attributes == [red] * 10
    assert terminal.page.lines[0].attributes[2:] == [red] * 8


def test_modes() -> None:
    terminal = shown(
        b"\x1b[?1h\x1b[?1000h\x1b[?1003h\x1b[?1006h\x1b[?2004h\x1b[?25l\x1b[?9999h\x1b="
    )
    assert terminal.modes.changed() == {
        1: True, 1003: True, 1006: True, 2004: True, 25: False, 66: True
    }  # fmt: skip
    terminal.feed(b"\x1b[?1000l")  # the mouse is off, whichever way it was on
    assert 1003 not in terminal.modes.changed()
    terminal.feed(b"\x1b[!p")
    assert terminal.modes.changed() == {1006: True}


RESIZED: dict[str, tuple[bytes, TerminalSize, list[str], list[str], tuple[int, int]]] = {
    # Output, new size, history, screen, cursor.
    "wider": (b"0123456789abcdef\r\n$ ", TerminalSize(20, 4), [], ["0123456789abcdef", "$ "], (2, 1)),
    "narrower": (b"0123456789\r\n$ ", TerminalSize(5, 4), [], ["01234", "56789", "$ "], (2, 2)),
    "into the history": (
        b"0123456789\r\nb\r\nc\r\n$ ", TerminalSize(5, 4), ["01234"], ["56789", "b", "c", "$ "], (2, 3)
    ),
    "lower": (b"1\r\n2\r\n3\r\n4", TerminalSize(10, 2), ["1", "2"], ["3", "4"], (1, 1)),
    "lower with room": (b"1\r\n2", TerminalSize(10, 2), [], ["1", "2"], (1, 1)),
    "higher": (b"1\r\n2\r\n3\r\n4\r\n5", TerminalSize(10, 5), [], ["1", "2", "3", "4", "5"], (1, 4)),
    "higher with room": (b"1\r\n2", TerminalSize(10, 6), [], ["1", "2"], (1, 1)),
    "wide characters": (
        "日本語日本\r\n$ ".encode(), TerminalSize(5, 4), [], ["日本", "語日", "本", "$ "], (2, 3)
    ),
    "the cursor's line": (b"0123456789abcd", TerminalSize(5, 4), [], ["01234", "abcd"], (4, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", RESIZED)
def test_resizing(name: str) -> None:
    output, size, history, rows, cursor = RESIZED[name]
    terminal = shown(output)
    terminal.resize(size)
    assert [text_of(line.cells) for line in terminal.main.history_lines()] == history
    assert rows_of(terminal) == [*rows, *[""] * (size.rows - len(rows))]
    assert (terminal.page.x, terminal.page.y) == cursor
    for line in [*terminal.main.history_lines(), *terminal.main.lines]:
        assert len(line.cells) == len(line.attributes) == size.columns


def test_there_and_back() -> None:
    text = b"".join(b"a line that is too long for %d\r\n" % n for n in range(20))
    terminal = shown(text)
    before = [text_of(line.cells) for line in terminal.main.history_lines()] + rows_of(terminal)
    for size in (TerminalSize(33, 4), TerminalSize(7, 4), SIZE):
        terminal.resize(size)
    after = [text_of(line.cells) for line in terminal.main.history_lines()] + rows_of(terminal)
    assert after == before


@pytest.mark.parametrize(
    ("size", "takes"),
    [
        (TerminalSize(80, 24), True),
        (TerminalSize(MAX_COLUMNS, 100), True),
        (TerminalSize(MAX_COLUMNS, MAX_ROWS), False),
        (TerminalSize(1, 24), False),
        (TerminalSize(MAX_COLUMNS + 1, 24), False),
        (TerminalSize(65535, 65535), False),
    ],
)
def test_sizes_that_are_kept(size: TerminalSize, takes: bool) -> None:
    assert Terminal.takes(size) is takes
    terminal = shown(b"x" * 3000 + b"\x1b[99999;99999H!", size)
    assert terminal.columns <= MAX_COLUMNS
    assert terminal.rows <= MAX_ROWS


HOSTILE = [
    b"\x1b[99999999999L", b"\x1b[99999999999M", b"\x1b[99999999999S", b"\x1b[99999999999T",
    b"\x1b[99999999999@", b"\x1b[99999999999P", b"\x1b[99999999999X", b"a\x1b[99999999999b",
    b"\x1b[99999999999I", b"\x1b[99999999999Z", b"\x1b[99999999999'}", b"\x1b[9999999999 @",
    b"\x1b[" + b"1;" * 5000 + b"m", b"\x1b[" + b"9" * 5000 + b"m", b"e" + "\u0301".encode() * 5000,
    b"\x1b]8;;" + b"x" * 50_000 + b"\x07y", b"\x1b]2;" + b"t" * 50_000 + b"\x07",
    b"\x1b[>1u" * 5000, b"\x1b]4;1;red;" + b"2;blue;" * 5000 + b"\x07",
]  # fmt: skip


@pytest.mark.parametrize("output", HOSTILE, ids=lambda output: repr(output[:14]))
def test_no_sequence_costs_much(output: bytes) -> None:
    terminal = Terminal(TerminalSize(80, 24))
    began = time.process_time()
    terminal.feed(output * 3)
    assert time.process_time() - began < 2.0  # some milliseconds; endless if counts were believed
    assert all(len(cell) <= 16 for line in terminal.page.lines for cell in line.cells)


@pytest.mark.parametrize(
    ("output", "most"),
    [
        (b"a line of ordinary text with words in it\r\n" * 3000, 1024 * 1024),
        (b"".join(b"\x1b[38;2;%d;%d;%dmx" % (n % 256, n // 7 % 256, n // 3) for n in range(768))
         * 250, 8 * 1024 * 1024),
        ("e\u0301\u0302\u0303".encode() * 150_000, 8 * 1024 * 1024),
    ],
)  # fmt: skip
def test_memory(output: bytes, most: int) -> None:
    """What docs/topics/memory.md says."""
    tracemalloc.start()
    try:
        terminal = Terminal(TerminalSize(120, 40))
        for start in range(0, len(output), 65536):
            terminal.feed(output[start : start + 65536])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(terminal.main.history) == 1000
    assert peak < most
