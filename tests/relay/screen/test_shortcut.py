from __future__ import annotations

import random

import pytest

from relay.endpoint import TerminalSize
from relay.screen import Terminal
from relay.screen.lines import HISTORY
from relay.screen.shortcut import LEAST_SKIPPED, Shortcut
from tests.testing.terminal_output import rows_of, text_of

SIZE = TerminalSize(40, 6)
LINES = HISTORY + 2 * SIZE.rows


def pause() -> None:
    """Nobody waits here."""


def floods(chance: random.Random) -> bytes:
    """Return lines and lines, plain or coloured, and now and then something else."""
    pieces = [b"\x1b[?2004h$ \x1b[32mcat\x1b[m big\r\n"]
    for _ in range(chance.randrange(1, 4)):
        kind = chance.randrange(4)
        for n in range(chance.choice((10, 1500, 3000))):
            line = [
                b"line %d" % n,
                b"\x1b[%dmcolour\x1b[0m %d" % (31 + n % 7, n),
                b"\x1b[7mlong %d " % n + b"x" * (n % 90) + b"\x1b[m",
                "日本語 %d \tx\b".encode() % n,
            ][kind]
            pieces.append(line + b"\r\n")
        pieces.append(
            chance.choice((b"", b"\x1b[44m", b"\x1b]0;title\x07", b"\x1b[3;5r\x1b[r\x1b[6;1H"))
        )
    pieces.append(b"$ ")
    return b"".join(pieces)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_skipped_did_not_matter(seed: int) -> None:
    data = floods(random.Random(seed))
    whole, quick = Terminal(SIZE), Terminal(SIZE)
    whole.feed(data)
    shortcut = Shortcut(data, LINES, pause)
    position = skipped = 0
    while position < len(data):
        if quick.scrolls_whole and not quick.held:
            start, lines = shortcut.skip_from(position)
            assert start >= position
            quick.skip_lines(lines)
            skipped += start - position
            position = start
        quick.feed(data[position : position + 1000])
        position += 1000
    assert rows_of(quick) == rows_of(whole)
    ours, theirs = quick.main.history_lines(), whole.main.history_lines()
    assert [text_of(line.cells) for line in ours] == [text_of(line.cells) for line in theirs]
    assert [line.attributes for line in ours] == [line.attributes for line in theirs]
    assert (quick.page.x, quick.page.y) == (whole.page.x, whole.page.y)
    assert quick.attributes == whole.attributes
    if len(data) > 200_000:
        assert skipped > 0


def test_little_is_not_skipped() -> None:
    data = b"line\r\n" * (LINES + 100)
    assert Shortcut(data, LINES, pause).skip_from(0) == (0, 0)
    assert LEAST_SKIPPED > 600


def test_what_is_no_line_is_not_skipped() -> None:
    data = b"progress\r" * 10_000
    assert Shortcut(data, LINES, pause).skip_from(0) == (0, 0)


def test_colours_that_are_never_reset_are_not_skipped() -> None:
    data = b"\x1b[31mred\r\n" * 5000
    assert Shortcut(data, LINES, pause).skip_from(0) == (0, 0)
