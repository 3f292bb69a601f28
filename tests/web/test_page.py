"""The page in a real browser, against the stand-in server.

The page's policy forbids `eval`, and with it Playwright's `wait_for_function`: `wait_until` polls.
Every test fails on anything in the console, violations of the policy included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.web.stand_in import LOGIN_CODE, TOKEN, StandIn, running
from tests.web.stand_in_owner import Shell

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE = 30.0  # seconds; nothing here takes more than a few

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Chromium at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def server() -> Iterator[StandIn]:
    with running() as stand_in:
        yield stand_in


@dataclass
class Desk:
    """A browser of a user, with everything its pages complained about."""

    server: StandIn
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def open(self, path: str = f"/#code={LOGIN_CODE}") -> Page:
        page = self.context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.server.url + path)
        return page

    def open_terminal(self, path: str = f"/#code={LOGIN_CODE}") -> Page:
        page = self.open(path)
        wait_for_text(page, "stand-in:~$")
        return page

    def shell(self) -> Shell:
        (shell,) = self.server.shells.values()
        return shell


@pytest.fixture
def desk(browser: Browser, server: StandIn) -> Iterator[Desk]:
    context = browser.new_context(viewport={"width": 1000, "height": 640})
    desk = Desk(server, context)
    yield desk
    context.close()
    assert [
        text for text in desk.complaints if not any(word in text for word in desk.expected)
    ] == []
    assert server.complaints == []


def wait_until(page: Page, what: str | Callable[[], Any]) -> None:
    """Wait for a JavaScript expression, or a function here, to be true."""
    deadline = time.monotonic() + PATIENCE
    while not (page.evaluate(what) if isinstance(what, str) else what()):
        assert time.monotonic() < deadline, f"{what}\n{page.evaluate('document.body.innerText')}"
        page.wait_for_timeout(20)


def wait_for_text(page: Page, text: str) -> None:
    wait_until(page, f"(window.trunkline?.text() ?? '').includes({text!r})")


def wait_for_state(page: Page, words: str) -> None:
    wait_until(page, f"document.getElementById('words').textContent === {words!r}")


def test_link_signs_in_and_opens_a_terminal(desk: Desk) -> None:
    page = desk.open_terminal()
    (session,) = desk.server.sessions
    assert page.url == f"{desk.server.url}/t/{session}"
    page.keyboard.type("héllo 日本\n")
    wait_for_text(page, "héllo 日本: not found")
    assert bytes(desk.shell().received) == "héllo 日本\r".encode()
    wait_for_state(page, "connected")
    page.keyboard.type("size\n")
    columns, rows = page.evaluate("[trunkline.terminal.cols, trunkline.terminal.rows]")
    wait_for_text(page, f"{columns} {rows}")


def test_without_a_token_the_page_says_what_to_do(desk: Desk) -> None:
    desk.expected = ("401",)  # the browser reports the answers to wrong attempts by itself
    page = desk.open("/")
    page.locator("#card-text", has_text="trunkline open").wait_for()
    page.locator("#login-text").fill("http://127.0.0.1:1/#code=wrong")
    page.get_by_role("button", name="Continue").click()
    page.locator("#login-problem", has_text="used already").wait_for()
    page.locator("#login-text").fill("no-token-at-all")
    page.get_by_role("button", name="Continue").click()
    page.locator("#login-problem", has_text="not valid").wait_for()
    assert page.evaluate("localStorage.length") == 0
    page.locator("#login-text").fill(TOKEN)
    page.get_by_role("button", name="Continue").click()
    wait_for_text(page, "stand-in:~$")


def test_the_code_leaves_the_address_at_once_and_a_used_link_still_opens(desk: Desk) -> None:
    desk.expected = ("401",)
    desk.open_terminal().close()
    page = desk.open_terminal()
    assert "code" not in page.url
    assert page.evaluate("history.length") <= 2


def test_a_link_opened_in_the_same_tab_comes_back_to_the_same_shell(desk: Desk) -> None:
    desk.expected = ("401",)
    page = desk.open_terminal()
    wait_for_state(page, "connected")
    page.evaluate(f"location.hash = '#code={LOGIN_CODE}'")
    wait_until(page, lambda: len(desk.server.attaches) == 2)
    wait_for_state(page, "connected")
    first, second = (fields["attachment"] for fields in desk.server.attaches)
    assert first == second
    assert page.evaluate("location.hash") == ""


def test_a_cut_loses_and_repeats_nothing(desk: Desk) -> None:
    page = desk.open_terminal()
    wait_for_state(page, "connected")
    typed = b""
    for n in range(5):
        word = f"word-{n}"
        page.keyboard.type(word)
        desk.server.cut()
        page.keyboard.type("x\n")
        typed += f"{word}x\r".encode()
        wait_for_text(page, f"{word}x: not found")
    assert bytes(desk.shell().received) == typed
    statistics = page.evaluate("trunkline.trunk.statistics()")
    assert statistics["failures"] == 5
    assert statistics["attachments"][0]["resumed"] == 5
    assert page.evaluate("trunkline.text()").count("word-3x: not found") == 1


def test_a_server_that_is_away_is_waited_for(desk: Desk) -> None:
    desk.expected = ("ERR_", "WebSocket")
    page = desk.open_terminal()
    desk.server.down = True
    desk.server.cut()
    page.get_by_role("button", name="Retry now").wait_for()
    assert page.locator("#words").inner_text().startswith("reconnecting…")
    page.keyboard.type("patience\n")
    desk.server.down = False
    page.evaluate("document.getElementById('retry').click()")  # it may just be trying by itself
    wait_for_text(page, "patience: not found")
    wait_for_state(page, "connected")
    assert bytes(desk.shell().received) == b"patience\r"


def test_reload_keeps_the_shell_and_old_questions_are_not_answered_again(desk: Desk) -> None:
    page = desk.open_terminal()
    page.keyboard.type("ask\n")
    shell = desk.shell()
    wait_until(page, lambda: b"rgb:" in shell.received and b"$y" in shell.received)
    wait_until(page, lambda: b"R" in shell.received and b"1$r" in shell.received)
    page.keyboard.type("\n")
    wait_for_state(page, "connected")
    attachment = desk.server.attaches[-1]["attachment"]
    before = len(shell.received)
    page.reload()
    wait_for_text(page, "asked")
    page.keyboard.type("mine\n")
    wait_for_text(page, "mine: not found")
    assert bytes(shell.received[before:]) == b"mine\r"
    assert desk.server.attaches[-1]["attachment"] == attachment
    assert "resume" not in desk.server.attaches[-1]


def test_a_duplicated_tab_gets_an_attachment_of_its_own(desk: Desk) -> None:
    page = desk.open_terminal()
    first = desk.server.attaches[-1]["attachment"]
    storage = page.evaluate("JSON.stringify(sessionStorage)")
    other = desk.context.new_page()
    other.add_init_script(
        f"for (const [k, v] of Object.entries({storage})) sessionStorage.setItem(k, v)"
    )
    other.goto(page.url)
    wait_for_text(other, "stand-in:~$")
    assert desk.server.attaches[-1]["attachment"] != first
    wait_for_state(page, "connected")


def test_a_second_tab_opens_another_terminal(desk: Desk) -> None:
    page = desk.open_terminal()
    wait_for_state(page, "connected")
    other = desk.open_terminal("/")
    assert other.url != page.url
    assert len(desk.server.sessions) == 2
    third = other.url
    other.close()
    assert desk.open_terminal("/").url == third, "what no tab shows is opened again"


def test_gap_is_shown_and_leaves_no_half_sequence_behind(desk: Desk) -> None:
    page = desk.open_terminal()
    wait_for_state(page, "connected")
    (session,) = desk.server.sessions
    # Ends in the middle of a character, and then in the middle of a title.
    desk.server.feed(session, b"\x1b[31mred \xe6\x97\x1b]2;half a tit")
    wait_for_text(page, "red")
    desk.server.down = True
    desk.expected = ("ERR_", "WebSocket")
    desk.server.cut()
    desk.server.feed(session, b"x" * 5000, drop=len(desk.shell().output) + 3000)
    desk.server.down = False
    wait_for_text(page, "2.9 KiB of output missing here")
    text = page.evaluate("trunkline.text()")
    after = text.split("missing here")[1].replace("\n", "")
    assert after.endswith("x" * 2000)
    assert "half" not in page.title()
    cell = "trunkline.terminal.buffer.active.getLine({}).getCell(0).isFgDefault()"
    row = page.evaluate("trunkline.terminal.buffer.active.cursorY")
    assert page.evaluate(cell.format(row)), "the colour before the gap is over"


def test_exit_shows_the_code_and_enter_starts_a_new_shell(desk: Desk) -> None:
    page = desk.open_terminal()
    first = desk.shell().name
    page.keyboard.type("exit 3\n")
    wait_for_text(page, "The shell ended with code 3. Press Enter")
    wait_for_state(page, "exited (3)")
    page.keyboard.type("x\n")
    wait_for_state(page, "connected")
    page.keyboard.type("again\n")
    wait_for_text(page, "again: not found")
    assert desk.shell().name != first
    assert "ended with code 3" in page.evaluate("trunkline.text()"), "what was there stays"
    page.keyboard.type("exit\n")
    wait_for_state(page, "exited (0)")
    page.reload()
    wait_for_text(page, "The shell ended with code 0. Press Enter")
    assert "again: not found" in page.evaluate("trunkline.text()")


def test_busy_offers_to_watch_or_to_take_over(desk: Desk) -> None:
    page = desk.open_terminal()
    desk.server.refusal = "busy"
    page.reload()
    page.get_by_role("heading", name="Someone else has control").wait_for()
    page.get_by_role("button", name="Watch").click()
    wait_for_state(page, "watching")
    wait_for_text(page, "stand-in:~$")
    page.keyboard.type("ignored\n")
    page.get_by_role("button", name="Take over").click()
    wait_for_state(page, "connected")
    page.keyboard.type("mine\n")
    wait_for_text(page, "mine: not found")
    assert bytes(desk.shell().received) == b"mine\r"


def test_a_reload_draws_the_screen_that_is_sent(desk: Desk) -> None:
    page = desk.open_terminal()
    wait_for_state(page, "connected")
    size = page.evaluate("[trunkline.terminal.cols, trunkline.terminal.rows]")
    # Focus reports, which a terminal begins to send at once, are not for the moment of drawing.
    drawn = b"history\r\n" * 300 + b"\x1b[31mdrawn \x1b[?1004h\x1b[?2004h" + b"\x1b[m" * 500
    desk.server.screen = (drawn, 70, 20)
    before = len(desk.shell().received)
    page.reload()
    wait_for_text(page, "drawn")
    wait_for_state(page, "connected")
    assert desk.server.attaches[-1]["replay"] == "screen"
    assert "stand-in" not in page.evaluate("trunkline.text()"), "nothing was replayed"
    wait_until(page, lambda: [*desk.shell().size] == size)
    assert page.evaluate("[trunkline.terminal.cols, trunkline.terminal.rows]") == size
    assert page.evaluate("trunkline.terminal.modes.bracketedPasteMode")
    page.keyboard.type("live\n")
    wait_for_text(page, "live: not found")
    assert bytes(desk.shell().received[before:]) == b"live\r"


def test_a_viewer_sees_it_in_the_size_of_who_has_control(desk: Desk) -> None:
    page = desk.open_terminal()
    desk.server.refusal = "busy"
    desk.server.screen = (b"\x1b[40;1Hlast row\x1b[1;150H!", 150, 40)
    page.reload()
    page.get_by_role("button", name="Watch").click()
    wait_for_state(page, "watching")
    wait_for_text(page, "last row")
    wait_until(page, "trunkline.terminal.cols === 150 && trunkline.terminal.rows === 40")
    wait_until(page, "trunkline.terminal.options.fontSize < 14")
    wait_until(
        page,
        "(() => { const screen = document.querySelector('.xterm-screen').getBoundingClientRect();"
        " return screen.bottom <= innerHeight && screen.right <= innerWidth; })()",
    )
    page.set_viewport_size({"width": 700, "height": 500})
    wait_until(page, "trunkline.terminal.options.fontSize < 10")
    assert page.evaluate("trunkline.terminal.cols") == 150
    page.set_viewport_size({"width": 1000, "height": 640})
    desk.server.screen = None
    page.get_by_role("button", name="Take over").click()
    wait_for_state(page, "connected")
    wait_until(page, "trunkline.terminal.options.fontSize === 14 && trunkline.terminal.cols < 150")
    wait_until(page, lambda: desk.shell().size[0] < 150)


def test_taken_over_offers_to_take_back(desk: Desk) -> None:
    page = desk.open_terminal()
    wait_for_state(page, "connected")
    desk.server.close("taken_over")
    page.get_by_role("heading", name="Control was taken over").wait_for()
    page.keyboard.press("Enter")  # of somebody who was typing: takes nothing back
    assert page.locator("#cover").is_visible()
    page.get_by_role("button", name="Take back control").click()
    wait_for_state(page, "connected")
    assert desk.server.attaches[-1]["takeover"] is True


def test_ending_a_session_from_the_menu(desk: Desk) -> None:
    page = desk.open_terminal()
    wait_for_state(page, "connected")
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("button", name="End session").click()
    page.get_by_role("button", name="Really end session").click()
    page.get_by_role("heading", name="The session has ended").wait_for()
    page.keyboard.press("Escape")
    before = page.url
    page.locator("#card").get_by_role("button", name="New terminal").click()
    page.wait_for_url(lambda url: url != before)
    wait_for_text(page, "stand-in:~$")
    assert list(desk.server.sessions.values()) == ["terminated", "running"]


def test_an_unknown_session_says_so(desk: Desk) -> None:
    desk.expected = ("404",)
    desk.open_terminal().close()
    page = desk.open("/t/00000000-0000-4000-8000-000000000000")
    page.get_by_role("heading", name="No such session").wait_for()


def test_a_flood_is_drawn_under_credit(desk: Desk) -> None:
    page = desk.open_terminal()
    page.keyboard.type("flood 60000\n")
    wait_for_text(page, "line 59999 of a flood\nstand-in:~$")
    output = page.evaluate("trunkline.attachment.statistics().outputs[1]")
    assert output["received"] == output["consumed"] == len(desk.shell().output) > 1_000_000


def test_font_size_copy_find_and_menu_by_keyboard(desk: Desk) -> None:
    desk.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = desk.open_terminal()
    columns = page.evaluate("trunkline.terminal.cols")
    page.keyboard.press("Control++")
    wait_until(page, f"trunkline.terminal.cols < {columns}")
    page.keyboard.press("Control+0")
    wait_until(page, f"trunkline.terminal.cols === {columns}")
    wait_until(page, lambda: desk.shell().size[0] == columns)
    page.evaluate("trunkline.terminal.select(0, 0, 8)")
    page.keyboard.press("Control+Shift+C")
    wait_until(page, lambda: page.evaluate("navigator.clipboard.readText()") == "stand-in")
    page.keyboard.press("Control+Shift+V")
    wait_until(page, lambda: bytes(desk.shell().received) == b"stand-in")
    page.keyboard.press("Control+Shift+F")
    page.keyboard.type("stand")
    page.keyboard.press("Enter")
    wait_until(page, "trunkline.terminal.getSelection() === 'stand'")
    page.keyboard.press("Escape")
    page.keyboard.type("!")
    wait_until(page, lambda: bytes(desk.shell().received) == b"stand-in!")


def test_touch_keys_on_a_phone(browser: Browser, server: StandIn) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 760}, has_touch=True, is_mobile=True, color_scheme="dark"
    )
    desk = Desk(server, context)
    page = desk.open_terminal()
    page.locator("#terminal").tap()
    page.get_by_role("button", name="Escape").tap()
    page.get_by_role("button", name="Control").tap()
    page.keyboard.type("c")
    page.get_by_role("button", name="Up").tap()
    page.keyboard.type("c")
    wait_until(page, lambda: bytes(desk.shell().received) == b"\x1b\x03\x1b[Ac")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    keys = page.locator("#keys").bounding_box()
    assert keys is not None
    assert keys["y"] + keys["height"] <= 760
    assert desk.complaints == []
    context.close()
