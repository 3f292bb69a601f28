"""Snapshots against the real xterm.js, in a real browser, cell by cell.

One terminal is given output, another a snapshot made of the same output: they must look the same, have
the same cursor, modes and history, and go on the same.
"""

from __future__ import annotations

import base64
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, sync_playwright

from relay.endpoint import TerminalSize
from relay.screen import Terminal, take_snapshot
from tests.testing.terminal_output import record, wild_output
from tests.web.test_page import ARGUMENTS, CHROMIUM

HERE = Path(__file__).parent
VENDOR = HERE.parents[1] / "web" / "static" / "vendor"
SIZES = (TerminalSize(20, 5), TerminalSize(10, 4), TerminalSize(33, 7), TerminalSize(8, 3))
INDEX = """
<!doctype html><script type="importmap">{"imports": {
"@xterm/xterm": "/vendor/xterm/xterm.mjs",
"@xterm/addon-unicode11": "/vendor/addon-unicode11/addon-unicode11.mjs"}}</script>
<script type="module">
import { compare } from "/screen_peer.mjs";
window.compare = compare;
</script>
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Chromium at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def terminals() -> Iterator[Page]:
    """A page that can compare; nothing leaves the browser."""

    def serve(route: Route) -> None:
        path = route.request.url.partition("screens.test/")[2]
        if path.endswith(".mjs"):
            file = (
                HERE / path if path == "screen_peer.mjs" else VENDOR / path.removeprefix("vendor/")
            )
            route.fulfill(body=file.read_text(), content_type="text/javascript")
        else:
            route.fulfill(body=INDEX, content_type="text/html")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        page = browser.new_page()
        page.route("**/*", serve)
        page.goto("https://screens.test/")
        page.wait_for_function("typeof window.compare === 'function'")
        yield page
        browser.close()


class Case:
    """Output and resizes, given to our terminal too."""

    def __init__(self, size: TerminalSize) -> None:
        self.size = self.shown = size
        self.terminal = Terminal(size)
        self.parts: list[str | list[int]] = []
        self.more = b""

    def write(self, output: bytes) -> None:
        self.terminal.feed(output)
        self.parts.append(base64.b64encode(output).decode())

    def resize(self, size: TerminalSize) -> None:
        self.terminal.resize(size)
        self.parts.append([size.columns, size.rows])
        self.shown = size

    def told(self) -> dict[str, Any]:
        return {
            "size": [self.size.columns, self.size.rows],
            "parts": self.parts,
            "snapshot": base64.b64encode(take_snapshot(self.terminal)).decode(),
            "shown": [self.shown.columns, self.shown.rows],
            "more": base64.b64encode(self.more).decode(),
        }


def differences(old: Any, fresh: Any, where: str = "") -> list[str]:
    """Return where the two differ, and how."""
    if isinstance(old, dict) and isinstance(fresh, dict):
        return [d for key in old for d in differences(old[key], fresh[key], f"{where}/{key}")]
    if isinstance(old, list) and isinstance(fresh, list) and len(old) == len(fresh):
        pairs = enumerate(zip(old, fresh, strict=True))
        return [d for n, (a, b) in pairs for d in differences(a, b, f"{where}/{n}")]
    return [] if old == fresh else [f"{where}: {old!r} became {fresh!r}"]


def compare(terminals: Page, *cases: Case) -> list[list[str]]:
    """Return the differences of each case."""
    found = []
    for start in range(0, len(cases), 50):
        told = [case.told() for case in cases[start : start + 50]]
        for result in terminals.evaluate("cases => compare(cases)", told):
            here = differences(result["old"], result["fresh"])
            for after in (result["oldAfter"], result["freshAfter"]):
                # Of a screen that was not shown, the saved cursor is not kept; and the first line
                # of a snapshot continues no other, which shows when it is scrolled down.
                del after["saved"]
                for line in after["normal"]:
                    del line["wrapped"]
            here += differences(result["oldAfter"], result["freshAfter"], "afterwards")
            if result["answers"] > result["old"]["modes"]["sendFocusMode"]:
                here.append(f"{result['answers']} answers were given")
            found.append(here)
    return found


def check(terminals: Page, *cases: Case) -> None:
    for number, found in enumerate(compare(terminals, *cases)):
        assert found[:10] == [], f"case {number}, {len(found)} differences"


HAND_PICKED: dict[str, bytes] = {
    "nothing": b"",
    "colours": b"\x1b[31;1mred\x1b[m \x1b[38;5;200mpink\x1b[48;2;1;2;3mon black\x1b[7mturned",
    "wrapped": b"0123456789" * 13 + b"\r\nshort\r\n" + b"abc " * 30,
    "CJK and emoji": "日本語のテキスト🚀 cafe\u0301 Ａ한국어 ".encode() * 9,
    "alternate": b"shell\r\n\x1b[33m\x1b[?1049h\x1b[2J\x1b[3;3H\x1b[44mfull screen\x1b[?25l",
    "alternate, then back": b"$ x\x1b[?1049h\x1b[Hyyy\x1b[?1049l z",
    "margins": b"head\x1b[2;4r\x1b[4;1H" + b"line\r\n" * 9 + b"\x1b[2;3Hx",
    "origin": b"\x1b[2;4r\x1b[?6h\x1b[2;2Hx",
    "saved cursor": b"ab\x1b[32m\x1b7\x1b[4;4Hxx\x1b[m",
    "inserted and deleted": b"abcdefgh\r\x1b[3@\x1b[2;1Hlines\x1b[L\x1b[4;1H\x1b[2Mxyz\x1b[1;5H\x1b[2P",
    "tabs": b"a\tb\tc\r\n\x1b[3g\x1b[5G\x1bH\x1b[11G\x1bH\r\tx\ty",
    "erased after a wrap": b"0123456789" * 4 + b"\x1b[1;15H\x1b[K\x1b[2;1H\x1b[1K",
    "coloured background": b"\x1b[44m\x1b[2J\x1b[2;2Htext\x1b[K\x1b[m\r\nx\x1b[41m\x1b[K",
    "pending wrap": b"\x1b[32m" + b"0123456789" * 2,
    "pending wrap, other colour": b"0123456789" * 2 + b"\x1b[31m",
    "modes": b"\x1b[?1h\x1b=\x1b[?2004h\x1b[?1002h\x1b[?1006h\x1b[?1004h\x1b[?7l\x1b[4h\x1b[?25l",
    "title": b"\x1b]0;a title; with more\x07x",
    "line drawing": b"\x1b(0lqqk\x1b(B\r\n\x1b)0\x0emqqj",
    "unfinished sequence": b"text\x1b[3",
    "unfinished character": b"text\xe6\x97",
    "history": b"".join(b"line \x1b[%dm%d\x1b[m\r\n" % (31 + n % 7, n) for n in range(300)),
    "questions": b"\x1b[c\x1b[6n\x1b[5n\x1b]10;?\x07\x1b]11;?\x07\x1b]4;1;?\x07\x1b[?2026$p\x1bP$qm\x1b\\x",
}


def test_hand_picked_output(terminals: Page) -> None:
    cases = []
    for output in HAND_PICKED.values():
        case = Case(TerminalSize(20, 5))
        case.write(output)
        case.more = b"1mmore\r\n\x1b8and \x1b[?1049l$ "
        cases.append(case)
    for name, found in zip(HAND_PICKED, compare(terminals, *cases), strict=True):
        assert found == [], name


LAST_COLUMN = (b"\x1b[1K", b"\x1b[2K", b"\x1b[1J")
"""Erase the last column while the cursor stands behind it: nothing can bring a cursor there again."""
NOT_KEPT = {256: "goes back to a cursor that was saved on the alternate screen before it was left"}
"""Seeds of output in which something counts that a snapshot does not have, and why."""


def test_wild_output(terminals: Page) -> None:
    cases: dict[int, Case] = {}
    for seed in range(300):
        chance = random.Random(seed)
        size = chance.choice(SIZES)
        case = Case(size)
        for _ in range(chance.randrange(1, 4)):
            output = wild_output(chance, size)
            for sequence in LAST_COLUMN:
                output = output.replace(sequence, b"\r" + sequence)
            case.write(output)
        case.more = wild_output(chance, size)
        if seed not in NOT_KEPT:
            cases[seed] = case
    found = compare(terminals, *cases.values())
    assert {seed: here[:5] for seed, here in zip(cases, found, strict=True) if here} == {}


def test_resized(terminals: Page) -> None:
    """What shells and their programs leave behind, in a window that changes its size."""
    cases = []
    for seed in range(100):
        chance = random.Random(seed)
        case = Case(chance.choice((TerminalSize(20, 5), TerminalSize(40, 8))))
        for _ in range(chance.randrange(1, 4)):
            for _ in range(chance.randrange(1, 30)):
                words = " ".join(chance.choice(("word", "日本", "\x1b[31mred\x1b[m", "x" * 15, "é"))
                                 for _ in range(chance.randrange(12)))  # fmt: skip
                case.write(words.encode() + b"\r\n")
            case.write(b"$ ")
            size = case.shown
            case.resize(
                TerminalSize(
                    chance.choice((size.columns, 10, 25, 33, 60)), chance.choice((size.rows, 4, 9))
                )
            )
        case.more = b"ls\r\nmore of it\r\n$ "
        cases.append(case)
    check(terminals, *cases)


TEXT = b"".join(b"%d: a line of text with words in it, some of them long\n" % n for n in range(200))
PROGRAMS: dict[str, tuple[list[str], list[bytes]]] = {
    "vim": (
        ["vim", "-u", "NONE", "-c", "syntax on", "-c", "set number ruler hlsearch", "{file}"],
        [b"10G", b"oinserted \xe6\x97\xa5\xe6\x9c\xac\x1b", b"5dd", b"p", b"/long\r", b"\x06", b":split\r", b"\x17w"],
    ),
    "vim, left": (["vim", "-u", "NONE", "{file}"], [b"10G", b"x", b":q!\r"]),
    "less": (["less", "{file}"], [b" ", b" ", b"/words\r", b"b", b"n"]),
    "top": (["top", "-d", "0.3"], [b"1", b"c"]),
    "htop": (["htop", "-d", "3"], [b"t", b"\x1b[B", b"\x1b[B"]),
    "ls": (["ls", "-la", "--color=always", "/etc", "/usr"], []),
    "bash": (
        ["bash", "--norc", "-i"],
        [b"echo 'a line that is much longer than the terminal is wide, so that it wraps around'\r",
         b"printf '\\e[1;31mred\\e[0m\\n'; seq 60\r", b"ls --color=always /\r", b"unfinished \x1b[D\x1b[D"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_recorded_programs(program: str, terminals: Page, tmp_path: Path) -> None:
    command, keys = PROGRAMS[program]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    file = tmp_path / "text.c"
    file.write_bytes(b'int main() { return "text"; } /* comment */\n' + TEXT)
    size = TerminalSize(72, 20)
    output = record([part.format(file=file) for part in command], keys, size)
    assert len(output) > 500, output
    cases = []
    for cut in (len(output), *(len(output) * n // 12 for n in range(1, 12))):
        case = Case(size)
        case.write(output[:cut])
        case.more = output[cut:]
        cases.append(case)
    check(terminals, *cases)
