from __future__ import annotations

import random

import pytest

from relay.endpoint import TerminalSize
from relay.screen.parser import MAX_HELD, Handler, Parser
from tests.testing.terminal_output import wild_output


class Recorder(Handler):
    """Writes down what the parser finds, joined so that cuts do not show."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def text(self, text: str) -> None:
        if self.found and self.found[-1].startswith("text "):
            self.found[-1] += text
        else:
            self.found.append(f"text {text}")

    def control(self, character: str) -> None:
        if character not in "\x18\x7f":
            self.found.append(f"control {character!r}")

    def csi(self, sequence: str) -> None:
        self.found.append(f"csi {sequence}")

    def escape(self, sequence: str) -> None:
        if sequence != "\\":  # the end of a string
            self.found.append(f"escape {sequence}")

    def osc(self, body: str) -> None:
        self.found.append(f"osc {body}")


def parse(*pieces: bytes) -> list[str]:
    recorder = Recorder()
    parser = Parser(recorder)
    for piece in pieces:
        parser.feed(piece)
    return recorder.found


FOUND = [
    (b"plain \xc3\xa9\r\n", ["text plain é", "control '\\r'", "control '\\n'"]),
    (b"\x1b[31;1mred", ["csi 31;1m", "text red"]),
    (b"\x1b[?25l\x1b[>0;1c\x1b[!p\x1b[2 q", ["csi ?25l", "csi >0;1c", "csi !p", "csi 2 q"]),
    (b"\x1b7\x1b(0\x1b#8\x1bM", ["escape 7", "escape (0", "escape #8", "escape M"]),
    (b"\x1b]0;a title\x07x\x1b]2;b\x1b\\", ["osc 0;a title", "text x", "osc 2;b"]),
    (b"\xc2\x9b5A\xc2\x9d2;c\xc2\x9c", ["csi 5A", "osc 2;c"]),
    (b"\x1bPq#0!~\x07\x1b\\\x1b_Gx\x1b\\\x1b^p\x1b\\\x1bXs\x1b\\y", ["text y"]),
    (b"\x1b[3\n1m", ["control '\\n'", "csi 31m"]),  # controls act in the middle of a sequence
    (b"\x1b\r[A\x1b\n(B", ["control '\\r'", "csi A", "control '\\n'", "escape (B"]),
    (b"\x1b[31\x18m", ["text m"]),  # CAN breaks off
    (b"\x1b[31\x1b[1m", ["csi 1m"]),  # and so does the next sequence
    (b"\x1b[3\xc3\xa9m", ["text m"]),
    (b"\x1b[1?2x\x1b[1 2x", []),  # malformed: ignored as a whole
    (b"\x1b]0;a\x18b", ["text b"]),  # a command that is broken off is not obeyed
    (b"\x1b]0;a\x1b[A", ["osc 0;a", "csi A"]),
    (b"a\xff\xc3b\xe2\x82c\xef\xbb\xbfd", ["text abcd"]),  # what is not UTF-8, and a BOM
]


@pytest.mark.parametrize(("output", "found"), FOUND)
def test_what_is_found(output: bytes, found: list[str]) -> None:
    assert parse(output) == found


@pytest.mark.parametrize(("output", "found"), FOUND)
def test_bytes_one_by_one(output: bytes, found: list[str]) -> None:
    assert parse(*(output[i : i + 1] for i in range(len(output)))) == found


@pytest.mark.parametrize("seed", range(200))
def test_cuts_change_nothing(seed: int) -> None:
    chance = random.Random(seed)
    output = wild_output(chance, TerminalSize(20, 5))
    if seed % 4 == 0:  # bytes of any kind
        output = bytes(
            chance.choice(b"\x1b\x1b[]0;mP_\\\x07\x18\x9b\xc2\xe2a?q") for _ in range(80)
        )
    cut = sorted(chance.randrange(len(output) + 1) for _ in range(5))
    pieces = [output[a:b] for a, b in zip([0, *cut], [*cut, len(output)], strict=True)]
    assert parse(*pieces) == parse(output)


@pytest.mark.parametrize(
    "unfinished",
    [
        b"\x1b",
        b"\x1b[",
        b"\x1b[38;5",
        b"\x1b]0;tit",
        b"\x1b]0;tit\x1b",
        b"\x1bPq",
        b"\xe6\x97",
        b"\x1b(",
    ],
)
def test_what_is_unfinished_is_held_as_it_came(unfinished: bytes) -> None:
    recorder = Recorder()
    parser = Parser(recorder)
    parser.feed(b"a" + unfinished)
    if unfinished == b"\x1b]0;tit\x1b":
        # ESC ends the title, whatever follows; it may itself begin a sequence.
        assert recorder.found == ["text a", "osc 0;tit"]
        assert parser.held == b"\x1b"
    else:
        assert recorder.found == ["text a"]
        assert parser.held == unfinished


@pytest.mark.parametrize("introducer", [b"\x1b]52;c;", b"\x1bP", b"\x1b_", b"\x1b[", b"\x1b]"])
def test_what_never_ends_is_forgotten(introducer: bytes) -> None:
    recorder = Recorder()
    parser = Parser(recorder)
    parser.feed(introducer)
    for _ in range(MAX_HELD // 1024 * 3):
        parser.feed(b"1" * 1024)
        assert len(parser.held) <= MAX_HELD
    parser.feed(b"m\x1b\\after")
    assert recorder.found[-1].endswith("after")
    assert not any(found.startswith(("csi", "osc 5")) for found in recorder.found)
