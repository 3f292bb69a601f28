"""A desktop from the profile to the page: noVNC in Chromium, cuts, and who may only view."""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from playwright.sync_api import Browser, Page, sync_playwright

from relay.errors import AttachmentClosed
from relay.grant import Mode
from relay.websocket import Binary, CloseCode
from tests.testing.bubblewrap import why_not
from tests.testing.rfb_client import RETURN, RfbClient
from tests.testing.server_process import ServerProcess, running_server, trunkline_command
from tests.testing.threaded_proxy import ThreadedProxy, threaded_proxy
from trunkline.sdk.client import Connection, open_client
from trunkline.sdk.websocket import HandshakeRefused, open_websocket

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE = 40.0

# A full-screen terminal that shows what it is typed, and writes it to a file.
TYPIST = """[
  "xterm", "-geometry", "200x80+0+0", "-e", "sh", "-c",
  "while read -r line; do echo \\"$line\\" >> ~/lines; done",
]"""
CONFIG = f"""
grace_seconds = 1
[profiles.default]
ports = [8080]
[profiles.default.desktop]
geometry = "400x300"
command = {TYPIST}
[profiles.broken.desktop]
server = ["no-such-vnc-server", "{{socket}}"]
"""

pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.skipif(
        shutil.which("Xtigervnc") is None or shutil.which("xterm") is None,
        reason="needs Xtigervnc (tigervnc-standalone-server) and xterm",
    ),
]
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Chromium at {CHROMIUM}")


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    """The proxy's port: known before the server starts, which must allow it as a name."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening


@pytest.fixture(scope="module")
def server(
    listener: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    runtime = "local" if why_not() else "bubblewrap"
    config = f'allowed_hosts = ["127.0.0.1:{listener.getsockname()[1]}"]{CONFIG}'
    directory = tmp_path_factory.mktemp("desktop")
    with running_server(directory, "--runtime", runtime, config=config) as running:
        yield running


@pytest.fixture
def proxy(listener: socket.socket, server: ServerProcess) -> Iterator[ThreadedProxy]:
    with threaded_proxy(listener, server.port) as running:
        yield running


@pytest.fixture
def session_id(server: ServerProcess) -> Iterator[str]:
    created: str = server.create_session()["session_id"]
    yield created
    server.delete_session(created)
    server.check_log()


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A browser's page; it must not complain of more than lost connections."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 900, "height": 640})
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
    yield page
    lost = re.compile(
        r"WebSocket connection .* failed|net::ERR_(CONNECTION|EMPTY|NETWORK)|Canvas2D: .* are faster"
    )
    assert [text for text in complaints if not lost.search(text)] == []


def wait_for(page: Page, expression: str) -> None:
    """Poll: the page's policy forbids the `eval` that Playwright's own waiting needs."""
    deadline = time.monotonic() + PATIENCE
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, page.evaluate("document.body.innerText")
        page.wait_for_timeout(20)


def wait_for_words(page: Page, words: str) -> None:
    wait_for(page, f"document.getElementById('words').textContent === {words!r}")


def lines(server: ServerProcess, session_id: str) -> list[str]:
    """Return what was typed on the desktop."""
    with server.client() as client:
        answer = client.get(f"/v1/sessions/{session_id}/files", params={"path": "lines"})
    return answer.text.splitlines() if answer.status_code == 200 else []


def wait_for_line(page: Page, server: ServerProcess, session_id: str, line: str) -> list[str]:
    deadline = time.monotonic() + PATIENCE
    while line not in (found := lines(server, session_id)):
        assert time.monotonic() < deadline, found
        page.wait_for_timeout(50)
    return found


def wait_until_it_listens(page: Page, server: ServerProcess, session_id: str) -> None:
    """Click and press Return until the terminal on the desktop is there and has the focus."""
    deadline = time.monotonic() + PATIENCE
    while not lines(server, session_id):
        assert time.monotonic() < deadline
        page.mouse.click(450, 350)
        page.keyboard.press("Enter")
        page.wait_for_timeout(100)


def same_stream(page: Page) -> str:
    name = page.evaluate("trunkline.trunk.statistics().attachments[0].stream")
    assert isinstance(name, str)
    return name


@pytest.mark.browser
@needs_chromium
def test_the_picture_goes_on_through_cuts(
    page: Page,
    listener: socket.socket,
    server: ServerProcess,
    proxy: ThreadedProxy,
    session_id: str,
) -> None:
    page.goto(
        f"http://127.0.0.1:{listener.getsockname()[1]}/desktop/{session_id}#code={server.login_code}"
    )
    wait_for_words(page, "connected")
    assert "code=" not in page.url
    wait_until_it_listens(page, server, session_id)
    stream = same_stream(page)
    for number in range(3):
        # Typed while the connection is cut: no key is lost, none comes twice.
        page.keyboard.type(f"be{number}")
        proxy.cut()
        page.keyboard.type(f"fore-and-after-{number}\n")
        wait_for_line(page, server, session_id, f"be{number}fore-and-after-{number}")
        wait_for_words(page, "connected")
    # The picture is alive too: what comes after the cuts is drawn.
    before = page.evaluate("trunkline.trunk.statistics().bytesReceived")
    page.keyboard.type("more\n")
    wait_for(page, f"trunkline.trunk.statistics().bytesReceived > {before} + 100")
    assert page.evaluate("trunkline.handshakes") == 1
    assert same_stream(page) == stream
    assert page.evaluate("trunkline.trunk.statistics().links") == 4
    # Only viewing: another connection, which the server filters whatever noVNC sends.
    page.click("#menu-button")
    page.check("#view")
    wait_for_words(page, "viewing")
    assert same_stream(page) != stream
    page.evaluate("trunkline.rfb.viewOnly = false")
    page.mouse.click(450, 350)
    page.keyboard.type("forbidden\n")
    page.evaluate("trunkline.cut()")
    wait_for_words(page, "viewing")
    page.click("#menu-button")
    page.uncheck("#view")
    wait_for_words(page, "connected")
    page.mouse.click(450, 350)
    page.keyboard.type("allowed\n")
    assert "forbidden" not in "".join(wait_for_line(page, server, session_id, "allowed"))


@pytest.mark.browser
@needs_chromium
def test_a_desktop_that_cannot_start_says_so(page: Page, server: ServerProcess) -> None:
    broken = server.create_session(profile="broken")["session_id"]
    with server.client() as client:
        code = client.post("/v1/login-codes").json()["code"]
    page.goto(f"{server.url}/desktop/{broken}#code={code}")
    wait_for_words(page, "no desktop")
    card = page.inner_text("#card")
    assert "no-such-vnc-server is not installed" in card
    assert "Try again" in card
    server.delete_session(broken)


def plain_url(server: ServerProcess, session_id: str, mode: str, query: str = "") -> str:
    token = server.ticket(session_id, kinds=["vnc"], mode=mode)
    return f"ws://{server.host}/v1/sessions/{session_id}/vnc?{query}&token={token}"


async def test_plain_and_resumable_viewers_of_one_desktop(
    server: ServerProcess, session_id: str
) -> None:
    async with open_client(server.url, server.token) as client:
        session = client.session(session_id)
        async with session.connect() as control, session.connect(mode=Mode.VIEW) as view:
            # All at once: one desktop is started.
            found: dict[str, RfbClient] = {}

            async def look(name: str, connection: Connection) -> None:
                stream = await connection.open_vnc()
                found[name] = RfbClient(stream.receive_some, stream.send_all)
                await found[name].shake(shared=False)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(look, "control", control)
                nursery.start_soon(look, "view", view)
            assert found["control"].name == found["view"].name
            websocket, _ = await open_websocket(
                plain_url(server, session_id, "view"), subprotocols=("binary",)
            )

            async def receive() -> bytes:
                message = await websocket.receive(merge=True)
                assert isinstance(message, Binary), message
                return bytes(message.data)

            plain = RfbClient(receive, websocket.send_binary)
            await plain.shake()
            with trio.fail_after(PATIENCE):
                while not await trio.to_thread.run_sync(lines, server, session_id):
                    for viewer in (found["view"], plain):
                        await viewer.click(100, 100)
                        await viewer.press(ord("v"))
                        await viewer.screen()
                    await found["control"].click(100, 100)
                    await found["control"].press(ord("c"))
                    await found["control"].press(RETURN)
                    await found["control"].screen()
            assert "v" not in "".join(await trio.to_thread.run_sync(lines, server, session_id))
            # What is no RFB ends it, and says why.
            await websocket.send_binary(b"\x63")
            while await websocket.receive(merge=True) is not None:
                pass
            close = websocket.peer_close
            assert close is not None
            assert close.code == CloseCode.PROTOCOL_ERROR
            assert close.reason == "unknown RFB message of type 99"
            await websocket.aclose()
            await found["view"].send(b"\x63")
            with pytest.raises(trio.BrokenResourceError) as caught:
                while True:
                    await found["view"].read(1)
            assert isinstance(caught.value.__cause__, AttachmentClosed)
            assert caught.value.__cause__.message == "unknown RFB message of type 99"
            assert len(await found["control"].screen()) == 400 * 300 * 4


@pytest.mark.parametrize(("query", "status"), [("port=22", 403), ("path=/run/x.sock", 403)])
async def test_a_viewer_gets_to_the_desktop_only(
    server: ServerProcess, session_id: str, query: str, status: int
) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        await open_websocket(plain_url(server, session_id, "view", query))
    assert caught.value.status == status


async def test_what_is_missing_is_an_answer(server: ServerProcess) -> None:
    broken = await trio.to_thread.run_sync(lambda: server.create_session(profile="broken"))
    session_id = broken["session_id"]
    with pytest.raises(HandshakeRefused) as caught:
        await open_websocket(plain_url(server, session_id, "control"))
    assert caught.value.status == 502
    assert "no-such-vnc-server is not installed" in str(caught.value)
    await trio.to_thread.run_sync(server.delete_session, session_id)


async def test_the_command_prints_the_page(server: ServerProcess, session_id: str) -> None:
    environment = dict(server.environment)
    command = trunkline_command("desktop", session_id, "--view")
    done = await trio.run_process(command, env=environment, capture_stdout=True)
    url = done.stdout.decode().strip()
    assert re.fullmatch(rf"{server.url}/desktop/{session_id}#code=\S+&view", url)
    missing = trunkline_command("desktop", "00000000-0000-0000-0000-000000000000")
    failed = await trio.run_process(missing, env=environment, capture_stderr=True, check=False)
    assert failed.returncode != 0
    assert b"session" in failed.stderr
