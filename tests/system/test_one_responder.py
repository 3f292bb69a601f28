"""Old questions to the terminal are answered by nobody, new ones by who has control, once.

Real server, real shell, three pages in a real browser and the command line's client.  A program in raw mode
writes what it is told to and notes every byte that is typed into it.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.system.test_browser import ARGUMENTS, CHROMIUM
from tests.testing.server_process import ServerProcess, trunkline_command

PATIENCE = 60.0
PROGRAM = """
import os, select, sys, tty
tty.setraw(0)
orders = os.open(sys.argv[1], os.O_RDWR)
typed = open(sys.argv[2], "ab", buffering=0)
os.write(1, b"\\x1b[2J\\x1b[Hlistening\\r\\n")
while True:
    ready, _, _ = select.select([0, orders], [], [])
    if 0 in ready:
        typed.write(os.read(0, 65536))
    if orders in ready:
        data = os.read(orders, 65536)
        if data == b"QUIT":
            break
        while data:
            data = data[os.write(1, data) :]
"""
QUESTIONS = (
    b"\x1b[c\x1b[>c\x1b[=c\x1b[5n\x1b[6n\x1b[?6n\x1b]10;?\x07\x1b]11;?\x1b\\\x1b]12;?\x07\x1b]4;7;?\x07\x1b[?2004$p"
    b"\x1b[4$p\x1bP$qm\x1b\\\x1b[18t\x1b[>q\x1b[?u"
)
ANSWER = re.compile(rb"\x1b\]4;(\d+);rgb:[0-9a-f/]+(?:\x07|\x1b\\)")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Chromium at {CHROMIUM}"),
]


@pytest.fixture
def context() -> Iterator[BrowserContext]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium.new_context(viewport={"width": 900, "height": 500})
        chromium.close()


def wait_until(what: Callable[[], object], page: Page | None = None) -> None:
    """Wait for something to be true; a page goes on meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, (
            page.evaluate("trunkline.text()") if page else "too late"
        )
        if page is not None:
            page.wait_for_timeout(20)
        else:
            select.select([], [], [], 0.02)


def wait_for_text(page: Page, text: str) -> None:
    wait_until(lambda: page.evaluate(f"(window.trunkline?.text() ?? '').includes({text!r})"), page)


def wait_for_words(page: Page, words: str) -> None:
    wait_until(lambda: page.evaluate("document.getElementById('words').textContent") == words, page)


def watch(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    page.get_by_role("button", name="Watch").click(timeout=PATIENCE * 1000)
    wait_for_words(page, "watching")
    return page


def watch_again(page: Page) -> None:
    page.reload()
    page.get_by_role("button", name="Watch").click(timeout=PATIENCE * 1000)
    wait_for_words(page, "watching")


@dataclass
class Program:
    """The program in the terminal: what it is told to write, and what is typed into it."""

    orders: Path
    notes: Path

    def write(self, data: bytes) -> None:
        with self.orders.open("wb", buffering=0) as orders:
            for start in range(0, len(data), 4096):
                orders.write(data[start : start + 4096])

    @property
    def typed(self) -> bytes:
        return self.notes.read_bytes()

    def forget(self) -> None:
        self.notes.write_bytes(b"")


class CommandLine:
    """`trunkline attach` in a terminal that answers nothing, so what it shows can be looked at."""

    def __init__(self, server: ServerProcess, *arguments: str) -> None:
        self.master, slave = os.openpty()
        self.process = subprocess.Popen(
            trunkline_command("attach", *arguments),
            stdin=slave, stdout=slave, stderr=slave, env=dict(server.environment),
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def read_until(self, text: bytes) -> bytes:
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen[-2000:]
            if select.select([self.master], [], [], 1)[0]:
                self.seen += os.read(self.master, 65536)
        return self.seen

    def leave_when(self, text: bytes) -> None:
        self.read_until(text)
        self.leave()

    def leave(self) -> None:
        os.write(self.master, b"\x1d")
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:  # it leaves when its terminal has taken everything
            assert time.monotonic() < deadline
            if select.select([self.master], [], [], 0.05)[0]:
                with suppress(OSError):
                    os.read(self.master, 65536)
        assert self.process.returncode == 0
        os.close(self.master)


def test_one_responder(
    context: BrowserContext, server: ServerProcess, session_id: str, tmp_path: Path
) -> None:
    program = Program(tmp_path / "orders", tmp_path / "typed")
    os.mkfifo(program.orders)
    program.forget()
    (tmp_path / "program.py").write_text(PROGRAM)

    page = context.new_page()
    page.goto(f"{server.url}/#code={server.login_code}")
    wait_until(lambda: page.evaluate("localStorage.length") > 0, page)
    address = f"{server.url}/t/{session_id}"
    page.goto(address)
    wait_for_words(page, "connected")
    page.keyboard.type(
        f"exec {sys.executable} {tmp_path}/program.py {program.orders} {program.notes}\n"
    )
    wait_for_text(page, "listening")

    # Before anybody is there: questions that nobody will ever answer.
    page.goto("about:blank")
    program.write((QUESTIONS + b"line of text\r\n") * 200 + b"asked before\r\n")
    page.goto(address)
    wait_for_words(page, "connected")
    wait_for_text(page, "asked before")
    viewers = [watch(context, address), watch(context, address)]
    watcher = CommandLine(server, session_id, "--view")
    assert not any_question(watcher.read_until(b"asked before"))
    for _ in range(3):
        page.reload()
        wait_for_words(page, "connected")
        for viewer in viewers:
            watch_again(viewer)
            wait_for_text(viewer, "asked before")
            viewer.keyboard.type("viewers type nothing")
        wait_for_text(page, "asked before")
    page.keyboard.type("A")
    wait_until(lambda: program.typed, page)
    assert program.typed == b"A", "0 bytes but what the person typed"

    # While viewers look on and come, and nobody has control.
    page.goto("about:blank")
    program.forget()
    for number in range(20):
        program.write(QUESTIONS * 20 + b"more text\r\n" * 30)
        if number % 5 == 0:
            CommandLine(server, session_id, "--view").leave_when(b"more text")
    program.write(b"asked meanwhile\r\n")
    for viewer in viewers:
        wait_for_text(viewer, "asked meanwhile")
    page.goto(address)
    wait_for_words(page, "connected")
    wait_for_text(page, "asked meanwhile")
    page.keyboard.type("B")
    wait_until(lambda: program.typed, page)
    assert program.typed == b"B"

    # Now one has control, and three look on: each question is answered, and once.
    for viewer in viewers:
        watch_again(viewer)
    program.forget()
    for number in range(100):
        program.write(b"\x1b]4;%d;?\x07" % number)
    wait_until(lambda: len(ANSWER.findall(program.typed)) >= 100, page)
    page.wait_for_timeout(300)
    assert [int(number) for number in ANSWER.findall(program.typed)] == list(range(100))
    assert ANSWER.sub(b"", program.typed) == b""

    # Its page is loaded again and again meanwhile: none is answered twice, nothing else is typed.
    program.forget()
    for number in range(250):
        program.write(b"\x1b]4;%d;?\x07text %d\r\n" % (number, number))
        if number % 50 == 25:
            page.reload()
    wait_for_words(page, "connected")
    program.write(b"\x1b]4;255;?\x07")
    wait_until(lambda: b"]4;255;rgb" in program.typed, page)
    answered = [int(number) for number in ANSWER.findall(program.typed)]
    assert len(answered) == len(set(answered))
    assert ANSWER.sub(b"", program.typed) == b""

    # The command line takes over: what it shows of the past asks its terminal nothing.
    watcher.leave()
    taker = CommandLine(server, session_id, "--takeover")
    assert not any_question(taker.read_until(b"text 249"))
    program.write(QUESTIONS + b"asked now\r\n")
    assert any_question(taker.read_until(b"asked now")), "a live question gets through"
    program.forget()
    taker.leave()
    assert program.typed == b""
    program.write(b"QUIT")


def any_question(output: bytes) -> bool:
    """Tell whether a terminal would answer anything in `output`."""
    found = re.compile(
        rb"\x1b\[[>=?]?\d*[cn]|;\?(?:\x07|\x1b\\)|\$p|\x1bP\$q|\x1b\[18t|\x1b\[>q|\x1b\[\?u"
    )
    return found.search(output) is not None
