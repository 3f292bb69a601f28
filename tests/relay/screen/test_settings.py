from __future__ import annotations

import pytest

from relay.endpoint import TerminalSize
from relay.screen import Terminal
from relay.screen.settings import MAX_KEYBOARD, MAX_TITLE


def settings_after(output: bytes) -> str:
    terminal = Terminal(TerminalSize(80, 24))
    terminal.feed(output)
    return "".join(terminal.settings.sequences())


@pytest.mark.parametrize(
    ("output", "sequences"),
    [
        (b"", ""),
        (b"\x1b]0;both\x07", "\x1b]2;both\x1b\\"),
        (b"\x1b]2;a;b\x1b\\", "\x1b]2;a;b\x1b\\"),
        (b"\x1b]1;icon only\x07", ""),
        (b"\x1b]4;1;red;2;rgb:00/ff/00\x07", "\x1b]4;1;red\x1b\\\x1b]4;2;rgb:00/ff/00\x1b\\"),
        (b"\x1b]4;1;red\x07\x1b]104;1\x07", ""),
        (b"\x1b]4;1;red\x07\x1b]104\x07", ""),
        (b"\x1b]10;#ffffff;#000000\x07", "\x1b]10;#ffffff\x1b\\\x1b]11;#000000\x1b\\"),
        (b"\x1b]11;blue\x07\x1b]111\x07", ""),
        (b"\x1b]11;?\x07\x1b]4;3;?\x07", ""),
        (b"\x1b]4;999;red\x07\x1b]4;x;red\x07", ""),
        (b"\x1b]11;\xc2\xa0\x07", ""),
        (b"\x1b[5 q", "\x1b[5 q"),
        (b"\x1b[5 q\x1b[0 q", ""),
        (b"\x1b[5 q\x1b[!p", ""),
        (b"\x1b[>1u\x1b[>5u\x1b[=2;2u", "\x1b[>1u\x1b[>7u"),
        (b"\x1b[>1u\x1b[>5u\x1b[<u", "\x1b[>1u"),
        (b"\x1b[>1u\x1b[<9u", ""),
        (b"\x1b[>4;2m", "\x1b[>4;2m"),
        (b"\x1b]2;t\x07\x1b[5 q\x1b[>1u\x1bc", "\x1b]2;t\x1b\\"),
        (b"\x1b]52;c;c2VjcmV0\x07\x1b]9;note\x07\x1b]7;file:///x\x07", ""),
    ],
)
def test_what_is_kept(output: bytes, sequences: str) -> None:
    assert settings_after(output) == sequences


def test_bounds() -> None:
    assert len(settings_after(b"\x1b]2;" + b"x" * 10_000 + b"\x07")) < MAX_TITLE + 10
    assert settings_after(b"\x1b[>1u" * 100).count("u") == MAX_KEYBOARD
    colours = b"".join(b"\x1b]4;%d;red\x07" % n for n in range(2000))
    assert settings_after(colours).count("red") == 256
