"""A desktop is started for the first who looks, once, and ends with the session."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import trio
import trio.testing

from relay.endpoint import Channel, Endpoint, Kind, SocketTarget, StartError, StartRequest
from runtimes.base import DesktopSpec, Runtime, SandboxSpec
from runtimes.bubblewrap import BubblewrapRuntime
from runtimes.desktop.launch import desktop_directory, desktop_socket
from runtimes.desktop.sandbox import DesktopSandbox, open_desktop
from runtimes.local import LocalRuntime
from tests.testing.bubblewrap import require_bubblewrap
from tests.testing.rfb_client import RETURN, RfbClient

NEEDS_SERVER = pytest.mark.skipif(
    shutil.which("Xtigervnc") is None, reason="needs Xtigervnc (tigervnc-standalone-server)"
)
SMALL = DesktopSpec(320, 200, command=("sleep", "1000"))
FAKE_SERVER = r"""
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("here I am", flush=True)
while True:
    viewer, _ = listener.accept()
    viewer.send(b"RFB 003.008\n")
    if viewer.recv(1) == b"!":
        os._exit(3)
    viewer.close()
"""


def own_server(program: str) -> DesktopSpec:
    return DesktopSpec(server=("python3", "-c", program, "{socket}"))


@pytest.fixture(params=["local", "bubblewrap"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Runtime:
    if request.param == "local":
        return LocalRuntime(grace=1.0)
    require_bubblewrap()
    return BubblewrapRuntime(tmp_path / "sandboxes")


@pytest.fixture
def local() -> LocalRuntime:
    return LocalRuntime(grace=1.0)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = set(Path("/proc/self/fd").iterdir())
    yield
    assert len(set(Path("/proc/self/fd").iterdir())) <= len(before)


@asynccontextmanager
async def desktop(
    runtime: Runtime, what: DesktopSpec | None
) -> AsyncIterator[tuple[DesktopSandbox, SocketTarget]]:
    session_id = str(uuid4())
    target = desktop_socket(session_id)
    spec = SandboxSpec(session_id, vnc=target, desktop=what)
    with trio.fail_after(60):
        await runtime.prepare()
        async with (
            runtime.open_sandbox(spec) as inner,
            open_desktop(inner, spec) as sandbox,
        ):
            yield sandbox, target
    assert not await trio.Path(desktop_directory(session_id)).exists()


def looks_at(target: SocketTarget, *, view_only: bool = False) -> StartRequest:
    return StartRequest(Kind.VNC, socket=target, view_only=view_only)


def client(endpoint: Endpoint) -> RfbClient:
    async def receive() -> bytes:
        return bytes(await endpoint.receive(Channel.OUTPUT, 65536))

    return RfbClient(receive, endpoint.send)


@NEEDS_SERVER
async def test_two_viewers_at_once_start_one_desktop(runtime: Runtime) -> None:
    async with desktop(runtime, SMALL) as (sandbox, target):
        assert sandbox.desktop_statistics().started == 0
        names: list[str] = []

        async def look() -> None:
            endpoint = await sandbox.start(looks_at(target))
            viewer = client(endpoint)
            await viewer.shake()
            assert viewer.size == (320, 200)
            assert len(await viewer.screen()) == 320 * 200 * 4
            names.append(viewer.name)
            await endpoint.aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(look)
        assert len(names) == 3
        assert sandbox.desktop_statistics().started == 1
        assert sandbox.desktop_statistics().running


@NEEDS_SERVER
async def test_the_application_is_on_the_desktop(runtime: Runtime, tmp_path: Path) -> None:
    """It has a display and the secret for it; nobody else can read that."""
    command = ("sh", "-c", 'echo "$DISPLAY" > ~/seen; stat -c %a "$XAUTHORITY" >> ~/seen; sleep 99')
    async with desktop(runtime, DesktopSpec(320, 200, command)) as (sandbox, target):
        await (await sandbox.start(looks_at(target))).aclose()
        # It may not have written yet; the loop ends with it.
        look = "until [ -s ~/seen ] && [ $(wc -l < ~/seen) = 2 ]; do sleep 0.05; done; cat ~/seen; rm ~/seen"
        shell = await sandbox.start(StartRequest(Kind.EXEC, ("sh", "-c", look)))
        seen = bytearray()
        while data := await shell.receive(Channel.OUTPUT, 4096):
            seen += data
        await shell.aclose()
    display, mode = seen.decode().split()
    assert display.startswith(":")
    assert mode == "600"


@NEEDS_SERVER
async def test_who_may_only_view_sees_and_does_nothing(local: LocalRuntime) -> None:
    if shutil.which("xterm") is None:
        pytest.skip("needs xterm")
    name = f"typed-{uuid4()}"
    reads_a_line = ("sh", "-c", 'read -r line; echo "$line" > "$HOME/$0"; sleep 99', name)
    typed = trio.Path(Path.home() / name)
    async with desktop(local, DesktopSpec(320, 200, ("xterm", "-e", *reads_a_line))) as (
        sandbox,
        target,
    ):
        watching = await sandbox.start(looks_at(target, view_only=True))
        viewer = client(watching)
        await viewer.shake(shared=False)  # which would disconnect the others
        acting = await sandbox.start(looks_at(target))
        actor = client(acting)
        await actor.shake()
        try:
            # The window may not be there yet, so all is done again and again.
            while not await typed.exists():
                await actor.click(100, 100)
                await viewer.press(ord("v"))
                assert (
                    len(await viewer.screen()) == 320 * 200 * 4
                )  # so the server took what came before
                await actor.press(ord("c"))
                await actor.press(RETURN)
                await actor.screen()
            # Lines begin anew with each Return, and a "v" would come first.
            assert await typed.read_text() in {"c\n", "\n"}
        finally:
            await typed.unlink(missing_ok=True)
            await watching.aclose()
            await acting.aclose()


async def test_a_viewer_who_leaves_does_not_end_the_start(local: LocalRuntime) -> None:
    async with desktop(local, own_server(FAKE_SERVER)) as (sandbox, target):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sandbox.start, looks_at(target))
            while sandbox.desktop_statistics().started == 0:
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        await (await sandbox.start(looks_at(target))).aclose()
        assert sandbox.desktop_statistics().started == 1


async def test_a_desktop_that_ended_is_started_again(local: LocalRuntime) -> None:
    async with desktop(local, own_server(FAKE_SERVER)) as (sandbox, target):
        viewer = await sandbox.start(looks_at(target))
        await viewer.send(b"!")
        while await viewer.receive(Channel.OUTPUT, 100):
            pass
        await viewer.aclose()
        while sandbox.desktop_statistics().running:
            await trio.sleep(0.01)
        await (await sandbox.start(looks_at(target))).aclose()
        assert sandbox.desktop_statistics().started == 2


async def test_the_socket_itself_can_be_had(local: LocalRuntime) -> None:
    async with desktop(local, own_server(FAKE_SERVER)) as (sandbox, target):
        stream = await sandbox.connect(target)
        assert stream is not None
        assert await stream.receive_some(100) == b"RFB 003.008\n"
        await stream.aclose()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            DesktopSpec(server=("no-such-program",)),
            "could not be started: no-such-program is not installed",
        ),
        (
            DesktopSpec(server=("sh", "-c", "echo not today >&2; exit 4")),
            "could not be started: not today",
        ),
    ],
)
async def test_a_start_that_fails(local: LocalRuntime, what: DesktopSpec, words: str) -> None:
    async with desktop(local, what) as (sandbox, target):
        for attempt in (1, 2):
            with pytest.raises(StartError, match=words):
                await sandbox.start(looks_at(target))
            assert sandbox.desktop_statistics().started == attempt
        assert sandbox.statistics().endpoints_open == 0


async def test_without_a_vnc_server(
    local: LocalRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for program in ("sh", "mkdir", "chmod", "rm", "id", "stat"):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    async with desktop(local, DesktopSpec()) as (sandbox, target):
        with pytest.raises(StartError, match="package tigervnc-standalone-server"):
            await sandbox.start(looks_at(target))


async def test_one_that_never_answers(local: LocalRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtimes.desktop.sandbox.START_SECONDS", 0.3)
    what = DesktopSpec(server=("sh", "-c", "echo thinking; sleep 1000"))
    async with desktop(local, what) as (sandbox, target):
        with pytest.raises(StartError, match=r"does not answer after .* s: thinking"):
            await sandbox.start(looks_at(target))
        assert sandbox.statistics().endpoints_open == 0


async def test_the_end_while_it_starts(local: LocalRuntime) -> None:
    what = DesktopSpec(server=("sleep", "1000"))
    async with trio.open_nursery() as nursery:

        async def look(sandbox: DesktopSandbox, target: SocketTarget) -> None:
            with pytest.raises(StartError, match="the session is ending"):
                await sandbox.start(looks_at(target))

        async with desktop(local, what) as (sandbox, target):
            nursery.start_soon(look, sandbox, target)
            while sandbox.desktop_statistics().started == 0:
                await trio.sleep(0.001)
        with pytest.raises(StartError, match="the session is ending"):
            await sandbox.start(looks_at(target))


async def test_a_directory_of_somebody_else(local: LocalRuntime) -> None:
    """Somebody who guesses the path cannot make us put a socket where they want it."""
    session_id = str(uuid4())
    target = desktop_socket(session_id)
    spec = SandboxSpec(session_id, vnc=target, desktop=own_server(FAKE_SERVER))
    directory = trio.Path(desktop_directory(session_id))
    await directory.symlink_to("/")
    try:
        async with local.open_sandbox(spec) as inner, open_desktop(inner, spec) as sandbox:
            with pytest.raises(StartError, match="belongs to somebody else"):
                await sandbox.start(looks_at(target))
    finally:
        await directory.unlink()


async def test_other_places_start_nothing(local: LocalRuntime) -> None:
    async with desktop(local, own_server(FAKE_SERVER)) as (sandbox, _):
        with pytest.raises(StartError):
            await sandbox.start(looks_at(SocketTarget(path="/nowhere/vnc.sock")))
        assert sandbox.desktop_statistics().started == 0
