from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from proxy.listener import ListenError
from relay.protocol.reasons import CloseReason
from tests.testing.served import served, serving
from trunkline.config import Config
from trunkline.sdk.client import open_client
from trunkline.sdk.discovery import server_file
from trunkline.sdk.errors import ApiError, ServerUnreachable
from trunkline.server import host_policy, serve
from trunkline.settings import Ready, Settings, SettingsError, default_data_dir


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


async def test_it_serves_once_it_is_ready(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as running:
        assert running.ready.url.startswith("http://127.0.0.1:")
        assert running.ready.login_url.startswith(running.ready.url + "/#code=")
        assert running.ready.runtime == "fake"
        assert await running.client.sessions() == []
        assert server_file().exists()
        code = running.ready.login_url.partition("#code=")[2]
        assert len(code) >= 20
    assert not server_file().exists()
    async with open_client(running.ready.url, running.token) as client:
        with pytest.raises(ServerUnreachable):
            await client.sessions()


async def test_without_a_place_for_the_note(tmp_path: Path) -> None:
    """Only the command line would need it."""
    (tmp_path / "state").write_text("in the way")
    async with served(tmp_path / "data") as running:
        assert await running.client.sessions() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_stops_it(tmp_path: Path, number: signal.Signals) -> None:
    """It returns, having told its clients; at the very moment it is ready, too."""
    settings = Settings(tmp_path / "data", port=0, runtime="fake", config=Config(grace=0.5))

    def ready(_: Ready) -> None:
        os.kill(os.getpid(), number)

    with trio.fail_after(30):
        await serve(settings, ready)


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    config = Config(grace=3600)
    async with trio.open_nursery() as nursery:
        ready = trio.Event()
        announced: list[Ready] = []
        done = trio.Event()

        def announce(what: Ready) -> None:
            announced.append(what)
            ready.set()

        async def run() -> None:
            await serve(Settings(tmp_path / "d", port=0, runtime="fake", config=config), announce)
            done.set()

        nursery.start_soon(run)
        with trio.fail_after(30):
            await ready.wait()
            port = int(announced[0].url.rpartition(":")[2])
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                # A request that never ends.
                head = f"POST /v1/login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 9\r\n"
                await stream.send_all(head.encode() + b"Content-Type: application/json\r\n\r\n")
                token = (tmp_path / "d" / "credential").read_text().strip()
                async with open_client(announced[0].url, token) as client:
                    await client.sessions()  # by now the other one was accepted
                os.kill(os.getpid(), signal.SIGTERM)
                while True:  # until the listener is closed
                    try:
                        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                    except OSError:
                        break
                assert not done.is_set()
                os.kill(os.getpid(), signal.SIGTERM)
                await done.wait()


async def test_its_clients_are_told(tmp_path: Path) -> None:
    from relay.client import TrunkState, TrunkStatus

    states: list[TrunkStatus] = []
    waiting = trio.Event()

    def observe(status: TrunkStatus) -> None:
        states.append(status)
        if status.state is TrunkState.WAITING:
            waiting.set()

    async with served(tmp_path / "data", config=Config(grace=0.5)) as running:
        session = await running.client.create_session()
        async with session.connect(observe=observe) as connection:
            await connection.exec(["cat"])
            os.kill(os.getpid(), signal.SIGTERM)
            with trio.fail_after(30):
                await waiting.wait()
    told = next(s for s in states if s.state is TrunkState.WAITING)
    assert told.reason in ("the server is going away", CloseReason.DRAINING)
    assert told.retry_in == 1.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"runtime": "nonsense"}, "no runtime 'nonsense'; there are auto, bubblewrap, .*local"),
        ({"dev": True, "host": "0.0.0.0"}, "loopback only"),
        ({"dev": True, "host": "no.such.host.invalid"}, "loopback only"),
        ({"tls_cert": Path("x")}, "go together"),
        ({"tls_key": Path("x")}, "go together"),
    ],
)
async def test_settings_that_contradict(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        await serve(Settings(tmp_path / "data", port=0, **settings), lambda _: None)
    assert not (tmp_path / "data").exists()


async def test_the_port_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match="in use"):
            await serve(Settings(tmp_path / "data", port=port), lambda _: None)
    assert not server_file().exists()


async def test_dev(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "localhost"):
        async with serving(tmp_path / host, dev=True, host=host) as ready:
            async with open_client(ready.url, "anyone") as client:
                session = await client.create_session()
            async with open_client(ready.url, "someone") as client:
                with pytest.raises(ApiError) as caught:
                    await client.session(session.id).info()
                assert caught.value.status == 403


async def test_all_addresses(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", host="0.0.0.0") as ready:
        assert ready.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("host", "scheme", "port", "allowed"),
    [
        ("127.0.0.1", "http", 8080, {"127.0.0.1:8080", "localhost:8080", "[::1]:8080"}),
        ("127.0.0.1", "http", 80, {"127.0.0.1", "localhost", "[::1]"}),
        ("127.0.0.1", "https", 443, {"127.0.0.1", "localhost", "[::1]"}),
        ("0.0.0.0", "http", 80, {"127.0.0.1", "localhost", "[::1]"}),
        (
            "shell.local",
            "https",
            8443,
            {"127.0.0.1:8443", "localhost:8443", "[::1]:8443", "shell.local:8443"},
        ),
        ("fe80::1", "http", 80, {"127.0.0.1", "localhost", "[::1]", "[fe80::1]"}),
    ],
)
def test_the_names_it_answers_to(
    tmp_path: Path, host: str, scheme: str, port: int, allowed: set[str]
) -> None:
    policy = host_policy(Settings(tmp_path, host=host), scheme, port)
    assert policy.hosts == allowed
    assert policy.origins == {f"{scheme}://{name}" for name in allowed}


def test_names_of_the_configuration(tmp_path: Path) -> None:
    config = Config(
        public_url="https://Shell.Example.com/",
        allowed_hosts=("inner:1",),
        allowed_origins=("https://console.example.com",),
    )
    policy = host_policy(Settings(tmp_path, config=config), "http", 8080)
    assert {"shell.example.com", "inner:1"} <= policy.hosts
    assert {"https://shell.example.com", "http://inner:1", "https://console.example.com"} <= (
        policy.origins
    )


def test_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert default_data_dir() == tmp_path / "xdg" / "trunkline"
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert default_data_dir() == tmp_path / ".local" / "share" / "trunkline"
