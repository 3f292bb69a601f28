from __future__ import annotations

import random

import pytest

from relay.endpoint import TerminalSize
from relay.screen import Terminal
from relay.screen.log import MAX_SIZES, TerminalLog

A, B, C = TerminalSize(80, 24), TerminalSize(100, 30), TerminalSize(120, 40)


def test_sizes_by_offset() -> None:
    log = TerminalLog(A)
    log.resized(10, B)
    log.resized(10, B)
    log.resized(20, C)
    assert log.size == C
    assert [log.size_at(offset) for offset in (0, 10, 11, 20, 21)] == [A, A, B, B, C]
    assert log.changes(0, 9) == []
    assert log.changes(10, 20) == [(10, B), (20, C)]


def test_sizes_are_bounded() -> None:
    log = TerminalLog(A)
    for n in range(1, 1000):
        log.resized(n, TerminalSize(n, n))
    assert len(log.changes(0, 1000)) == MAX_SIZES
    assert log.size_at(1000) == TerminalSize(999, 999)
    assert log.size_at(1) == TerminalSize(999 - MAX_SIZES, 999 - MAX_SIZES)


@pytest.mark.parametrize(
    ("dropped", "settings"),
    [
        (b"", b""),
        (b"nothing of note\r\n\x1b[31mred\x1b[m", b""),
        (b"\x1b[?1049h\x1b[?1h\x1b=", b"\x1b[?1049h\x1b[?1h\x1b[?66h"),
        (b"\x1b[?1049h\x1b[?1h\x1b[?1049l\x1b[?1l", b""),
        (b"\x1b[?1000;1006h\x1b[?25l", b"\x1b[?1000h\x1b[?1006h\x1b[?25l"),
        (b"\x1b[?1002h\x1b[?1003h", b"\x1b[?1003h"),
        (b"\x1b[?2004h\x1bc\x1b[!p\x1b[?3;4l", b""),  # what `reset` writes
        (b"\x1b[?2004h\x1b[?1006h\x1b[!p", b"\x1b[?1006h"),
        (b"\x1b[?31337h", b""),
    ],
)
def test_what_dropped_bytes_have_set(dropped: bytes, settings: bytes) -> None:
    log = TerminalLog(A)
    log.dropping(dropped)
    assert log.settings() == settings
    piecemeal = TerminalLog(A)
    for i in range(len(dropped)):
        piecemeal.dropping(dropped[i : i + 1])
    assert piecemeal.settings() == settings


@pytest.mark.parametrize("seed", range(50))
def test_it_sets_what_the_terminal_would_have(seed: int) -> None:
    chance = random.Random(seed)
    sequences = [
        b"\x1b[?%d%c" % (mode, letter)
        for mode in (1, 7, 25, 9, 1000, 1002, 1003, 1006, 1016, 1004, 2004, 1049, 47)
        for letter in b"hl"
    ]
    output = b"".join(
        chance.choice(
            (*sequences, b"\x1b[?1h\x1b=", b"\x1b[?1l\x1b>", b"text\r\n", b"\x1b[1;2H", b"\x1b[!p")
        )
        for _ in range(40)
    )
    terminal, seeded = Terminal(A), Terminal(A)
    terminal.feed(output)
    log = TerminalLog(A)
    cut = chance.randrange(len(output))
    log.dropping(output[:cut])
    log.dropping(output[cut:])
    seeded.feed(log.settings())
    assert seeded.modes.changed() == terminal.modes.changed()
    assert seeded.is_alternate == terminal.is_alternate
