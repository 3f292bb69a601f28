"""The page of the real server in a real browser: type, cut, type on, reload, the same shell."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.testing.server_process import ServerProcess, running_server
from tests.testing.threaded_proxy import ThreadedProxy, threaded_proxy

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE = 40.0  # seconds; each step takes well under one

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Chromium at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    """The proxy's port: known before the server starts, which must allow it as a name."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening


@pytest.fixture(scope="module")
def server(
    listener: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    config = f'allowed_hosts = ["127.0.0.1:{listener.getsockname()[1]}"]\ngrace_seconds = 1'
    with running_server(tmp_path_factory.mktemp("browser"), config=config) as running:
        yield running


@pytest.fixture
def proxy(listener: socket.socket, server: ServerProcess) -> Iterator[ThreadedProxy]:
    with threaded_proxy(listener, server.port) as running:
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser's page; it must not complain of more than lost connections."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        page = chromium.new_page(viewport={"width": 1000, "height": 640})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
        yield page
        chromium.close()
    lost = re.compile(r"WebSocket connection .* failed|net::ERR_(CONNECTION|EMPTY|NETWORK)")
    assert [text for text in complaints if not lost.search(text)] == []


def wait_for_text(page: Page, text: str) -> None:
    wait_for(page, f"(window.trunkline?.text() ?? '').includes({text!r})")


def wait_for_words(page: Page, words: str) -> None:
    wait_for(page, f"document.getElementById('words').textContent === {words!r}")


def wait_for(page: Page, expression: str) -> None:
    """Poll: the page's policy forbids the `eval` that Playwright's own waiting needs."""
    deadline = time.monotonic() + PATIENCE
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, page.evaluate("document.body.innerText")
        page.wait_for_timeout(20)


def test_the_same_shell_through_a_cut_and_a_reload(
    page: Page, listener: socket.socket, server: ServerProcess, proxy: ThreadedProxy
) -> None:
    page.goto(f"http://127.0.0.1:{listener.getsockname()[1]}/#code={server.login_code}")
    wait_for_words(page, "connected")
    assert "code=" not in page.url
    page.keyboard.type("shell=$$; echo typed-$((6*7)) 'héllo 日本 🚀'\n")
    wait_for_text(page, "typed-42 héllo 日本 🚀")
    for number in range(3):
        # The line is being typed while the connection is cut: no key is lost, none comes twice.
        page.keyboard.type("echo be")
        proxy.cut()
        page.keyboard.type(f"fore-{number}-$((1+{number}))-after\n")
        wait_for_text(page, f"before-{number}-{1 + number}-after")
        wait_for_words(page, "connected")
    page.keyboard.type("seq 1 20000 | tail -1 && test $shell = $$ && echo same-$((40+2))\n")
    proxy.cut()
    wait_for_text(page, "same-42")
    address = page.url
    page.reload()
    wait_for_words(page, "connected")
    assert page.url == address
    wait_for_text(page, "typed-42 héllo 日本 🚀")
    wait_for_text(page, "before-2-3-after")
    page.keyboard.type("test $shell = $$ && echo still-$((60+6))\n")
    wait_for_text(page, "still-66")
    page.keyboard.type("exit 7\n")
    wait_for_words(page, "exited (7)")
    page.keyboard.press("Enter")
    wait_for_words(page, "connected")
    page.keyboard.type("test -z $shell && echo fresh-$((70+7))\n")
    wait_for_text(page, "fresh-77")
