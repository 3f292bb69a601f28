from __future__ import annotations

import random
from typing import Any

import pytest

from relay.endpoint import TerminalSize
from relay.replay_filter import ReplayFilter
from relay.screen import FRESH, Terminal, take_snapshot
from relay.screen.attributes import PLAIN, Attributes
from relay.screen.lines import EMPTY, Line
from relay.screen.page import Page
from relay.screen.snapshot import HISTORY_BYTES, MAX_SNAPSHOT, SnapshotTooLarge
from tests.testing.terminal_output import WORDS, wild_output

SIZES = (TerminalSize(20, 5), TerminalSize(10, 4), TerminalSize(33, 7), TerminalSize(8, 3))


def redrawn(terminal: Terminal) -> Terminal:
    """Return a fresh terminal that was given the snapshot."""
    other = Terminal(TerminalSize(terminal.columns, terminal.rows))
    other.feed(take_snapshot(terminal))
    return other


def look(cell: str, attributes: Attributes) -> tuple[str, Attributes]:
    """Return what a cell looks like: of an empty one only the background shows, mostly."""
    if cell == EMPTY:
        if attributes.underline or attributes.flags & 0b11010000:
            return " ", attributes  # drawn as a blank
        return cell, PLAIN._replace(background=attributes.background)
    return cell, attributes


def lines_of(lines: list[Line], *, with_wraps: bool) -> list[Any]:
    return [
        (
            [look(*cell) for cell in zip(line.cells, line.attributes, strict=True)],
            line.wrapped and n > 0 and with_wraps,
        )
        for n, line in enumerate(lines)
    ]


def page_of(page: Page) -> dict[str, Any]:
    saved = page.saved
    return {
        "lines": lines_of([*page.history_lines(), *page.lines], with_wraps=page.has_history),
        "margins": (page.top, page.bottom),
        "tabs": {x for x in page.tabs if x < page.columns},
        "saved": (
            min(saved.x, page.columns - 1), min(page.saved_row(), page.rows - 1),
            saved.attributes._replace(link=None), saved.charsets,
        ),
    }  # fmt: skip


def state_of(terminal: Terminal) -> dict[str, Any]:
    page = terminal.page
    state = {
        "main": page_of(terminal.main),
        "alternate": page_of(terminal.page) if terminal.is_alternate else None,
        "cursor": (page.x, page.y),
        "modes": terminal.modes.changed(),
        "insert": (terminal.modes.insert, terminal.modes.new_line),
        "charsets": terminal.charsets,
        "attributes": terminal.attributes,
        "settings": list(terminal.settings.sequences()),
        "held": terminal.held,
    }
    last = terminal.page.lines[page.y].cells[terminal.columns - 1]
    if page.x == terminal.columns and last == EMPTY:
        # The last column was written and then erased: nothing can bring a cursor there.
        state["cursor"] = (page.x - 1, page.y)
    return state


@pytest.mark.parametrize("seed", range(400))
def test_a_fresh_terminal_gets_to_the_same_state(seed: int) -> None:
    chance = random.Random(seed)
    size = chance.choice(SIZES)
    terminal = Terminal(size)
    for _ in range(chance.randrange(1, 4)):
        output = wild_output(chance, size)
        terminal.feed(output[: chance.randrange(len(output)) if chance.random() < 0.2 else None])
    other = redrawn(terminal)
    assert state_of(other) == state_of(terminal)
    # And it goes on the same.
    more = wild_output(chance, size)
    terminal.feed(more)
    other.feed(more)
    assert state_of(other)["main"]["lines"] == state_of(terminal)["main"]["lines"]


@pytest.mark.parametrize("seed", range(100))
def test_a_snapshot_asks_nothing(seed: int) -> None:
    chance = random.Random(seed)
    questions = (
        "\x1b[c", "\x1b[>c", "\x1b[=c", "\x1b[6n", "\x1b[?6n", "\x1b[5n", "\x1b]10;?\x07", "\x1b]11;?\x1b\\",
        "\x1b]4;1;?\x07", "\x1b]52;c;?\x07", "\x1b[?2026$p", "\x1bP$qm\x1b\\", "\x1bP+q544e\x1b\\",
        "\x1b[18t", "\x1b[>q", "\x1b[?u", "\x1bZ", "\x05", "\x1b_Gi=1,a=q;AAAA\x1b\\", "\x1b[?1;3;256S",
    )  # fmt: skip
    terminal = Terminal(chance.choice(SIZES))
    for _ in range(60):
        terminal.feed(
            chance.choice((*questions, *WORDS, "\r\n", "\x1b[?1049h", "\x1b[2J")).encode()
        )
    snapshot = take_snapshot(terminal)
    filtered = ReplayFilter()
    assert filtered.feed(snapshot) + filtered.flush() == snapshot
    assert b"?\x07" not in snapshot
    assert b"]52" not in snapshot


@pytest.mark.parametrize(
    "unfinished",
    [b"\x1b", b"\x1b[6", b"\x1b]11;", b"\x1b]0;ti", b"\x1bP$q", b"\xe6\x97", b"\x1b[?"],
)
def test_it_ends_in_what_the_output_stopped_in(unfinished: bytes) -> None:
    terminal = Terminal(TerminalSize(20, 5))
    terminal.feed(b"text" + unfinished)
    assert take_snapshot(terminal).endswith(b"t" + unfinished)


def test_what_comes_next_combines_with_the_last_character() -> None:
    terminal = Terminal(TerminalSize(10, 3))
    terminal.feed(b"\x1b[31mcafe")
    other = redrawn(terminal)
    for one in (terminal, other):
        one.feed("\u0301\x1b[2b".encode())
        assert one.page.lines[0].cells[:6] == ["c", "a", "f", *["e\u0301"] * 3]
    terminal.feed(b"\x1b[2;1H0123456789")
    other = redrawn(terminal)
    other.feed(b"x")
    assert other.page.lines[1].cells[9] == "9"
    assert other.page.lines[2].cells[0] == "x"
    assert other.page.lines[2].wrapped


def test_a_full_screen_program_leaves_the_shell_as_it_was() -> None:
    terminal = Terminal(TerminalSize(20, 4))
    terminal.feed(b"$ vim\r\n\x1b[33m\x1b[?1049h\x1b[?1h\x1b[2J\x1b[Hediting\x1b[?25l")
    other = redrawn(terminal)
    for one in (terminal, other):
        one.feed(b"\x1b[?25h\x1b[?1l\x1b[?1049l$ ")
    assert state_of(other) == state_of(terminal)
    assert other.page.lines[0].cells[:5] == list("$ vim")


def test_history_is_bounded_in_lines_and_bytes() -> None:
    terminal = Terminal(TerminalSize(80, 24))
    terminal.feed(b"".join(b"line %d\r\n" % n for n in range(2000)))
    assert b"line 1700" not in take_snapshot(terminal, 100)
    assert b"line 1900" in take_snapshot(terminal, 100)
    colours = b"".join(
        b"\x1b[48;2;%d;%d;%dmx" % (n % 256, n // 7 % 256, n // 3 % 256) for n in range(100_000)
    )
    terminal.feed(colours)
    assert len(take_snapshot(terminal)) < HISTORY_BYTES * 3


def test_a_screen_that_takes_too_much_is_refused() -> None:
    terminal = Terminal(TerminalSize(500, 130))
    terminal.feed(
        b"".join(
            b"\x1b[38;2;%d;%d;%dmx" % (n % 256, n // 7 % 256, n // 3 % 256) for n in range(70_000)
        )
    )
    with pytest.raises(SnapshotTooLarge, match="500x130"):
        take_snapshot(terminal)
    assert MAX_SNAPSHOT < 1024 * 1024


def test_pauses_come_often() -> None:
    terminal = Terminal(TerminalSize(80, 24))
    terminal.feed(b"line\r\n" * 500)
    pauses = 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1

    take_snapshot(terminal, 400, pause)
    assert pauses > 800


def test_a_reset_before_it_makes_any_terminal_fresh() -> None:
    terminal = Terminal(TerminalSize(20, 5))
    terminal.feed(b"good\r\n\x1b[32mscreen")
    used = Terminal(TerminalSize(20, 5))
    used.feed(b"old\r\n" * 20 + b"\x1b[?1049h\x1b[20h\x1b[?25l\x1b[2;3r\x1b[44m\x1b]0;unfinis")
    used.feed(FRESH + take_snapshot(terminal))
    assert state_of(used) == state_of(terminal)
