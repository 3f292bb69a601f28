"""The server's own life: starting, refusing to start, stopping, starting again."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import httpx2
import pytest
import trio
import trustme
from websockets.exceptions import ConnectionClosed

from tests.testing.cli import SECONDS, open_cli, read_until, run_cli
from tests.testing.fog_client import open_fog
from tests.testing.server_process import (
    MARK,
    STOP_SECONDS,
    ServerProcess,
    clean_environment,
    pids_with,
    running_server,
    trunkline_command,
    wait_until_none,
)

PROMPT = rb"[$#] "
QUICK = "grace_seconds = 1\n"


def fails_to_start(directory: Path, *arguments: str) -> str:
    """Run `trunkline serve`, which must end at once with code 1 (or 2 for usage); return why."""
    done = subprocess.run(
        trunkline_command("serve", "--data-dir", str(directory / "data"), *arguments),
        env=clean_environment(directory / "home"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode in (1, 2), done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


# ---------------------------------------------------------------- starting


def test_what_it_leaves_behind(tmp_path: Path) -> None:
    """Secrets are for this user's eyes only; the note is gone when the server is."""
    note = tmp_path / "home" / "state" / "trunkline" / "server.json"
    with running_server(tmp_path, config=QUICK) as server:
        assert stat.S_IMODE(note.stat().st_mode) == 0o600
        assert server.url in note.read_text()
        secrets = [server.data_dir / "credential", *(server.data_dir / "keys").iterdir()]
        assert len(secrets) >= 2
        for path in secrets:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        for path in (server.data_dir, server.data_dir / "keys", note.parent):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        assert "not isolated" in server.log
        assert server.announced.count("http://") == 1
    assert not note.exists()


def test_the_port_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = fails_to_start(tmp_path, "--port", str(port))
    assert f"cannot listen on port {port} of 127.0.0.1: it is in use" in said
    assert "--port" in said
    assert not (tmp_path / "home" / "state" / "trunkline" / "server.json").exists()


def test_a_bad_configuration(tmp_path: Path) -> None:
    """The message names the file and the key."""
    file = tmp_path / "trunkline.toml"
    file.write_text("[profiles.small]\nmax_ttl_seconds = 0\n")
    said = fails_to_start(tmp_path, "--port", "0", "--config", str(file))
    assert str(file) in said
    assert "profiles.small.max_ttl_seconds: must be a positive integer" in said
    assert not (tmp_path / "data").exists()


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    said = fails_to_start(tmp_path, "--config", str(tmp_path / "none.toml"))
    assert "none.toml" in said


@pytest.mark.parametrize("what", ["a file", "below a file", "readable by others"])
def test_bad_data_directories(tmp_path: Path, what: str) -> None:
    place = tmp_path / "data"
    match what:
        case "a file":
            place.write_text("")
        case "below a file":
            (tmp_path / "file").write_text("")
            place = tmp_path / "file" / "data"
        case _:
            place.mkdir(mode=0o755)
            place.chmod(0o777)
    said = fails_to_start(tmp_path, "--port", "0", "--data-dir", str(place))
    assert str(place) in said or str(place.parent) in said


def test_a_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    if os.getuid() == 0:
        # Root may write anywhere but where the kernel itself says no.
        place = Path("/proc/self/nothing")
    else:
        place = tmp_path / "locked" / "data"
        place.parent.mkdir(mode=0o500)
    said = fails_to_start(tmp_path, "--port", "0", "--data-dir", str(place))
    assert str(place) in said


def test_broken_files_in_the_data_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "trunkline.db").write_text("this is no database" * 100)
    (data / "trunkline.db").chmod(0o600)
    said = fails_to_start(tmp_path, "--port", "0")
    assert "trunkline.db" in said
    (data / "trunkline.db").unlink()
    (data / "credential").write_text("")
    (data / "credential").chmod(0o644)
    said = fails_to_start(tmp_path, "--port", "0")
    assert "credential" in said


def test_two_servers_on_one_data_directory(tmp_path: Path) -> None:
    """The second must not declare the first one's sessions lost."""
    with running_server(tmp_path, config=QUICK) as server:
        session = server.create_session()["session_id"]
        said = fails_to_start(tmp_path, "--port", "0")
        assert str(server.data_dir) in said
        assert server.session(session)["status"] == "running"
        note = tmp_path / "home" / "state" / "trunkline" / "server.json"
        assert server.url in note.read_text()


def test_everybody_is_let_in_on_loopback_only(tmp_path: Path) -> None:
    said = fails_to_start(tmp_path, "--port", "0", "--dev", "--host", "0.0.0.0")
    assert "--dev lets everybody in, so it works on loopback only" in said
    said = fails_to_start(tmp_path, "--port", "0", "--tls-cert", "x.pem")
    assert "--tls-cert and --tls-key go together" in said
    said = fails_to_start(tmp_path, "--port", "0", "--tls-cert", "x.pem", "--tls-key", "y.pem")
    assert "x.pem" in said or "y.pem" in said
    said = fails_to_start(tmp_path, "--port", "0", "--host", "no.such.host.invalid")
    assert "no.such.host.invalid" in said


def test_dev(tmp_path: Path) -> None:
    """Any bearer is let in, but nobody's session is everybody's."""
    with running_server(tmp_path, "--dev", config=QUICK) as server:
        session = server.create_session()["session_id"]
        with server.client("anyone") as client:
            assert client.get("/v1/whoami").json()["subject"].startswith("dev-")
            assert client.get(f"/v1/sessions/{session}").status_code == 403
            assert client.get("/v1/sessions").json() == {"sessions": []}
        with server.client("") as client:
            assert client.get("/v1/whoami").status_code == 401


def test_the_fake_runtime(tmp_path: Path) -> None:
    with running_server(tmp_path, "--runtime", "fake", config=QUICK) as server:
        created = server.create_session()
        with open_fog(created["attach"]["ws_url"], created["attach"]["token"]) as client:
            client.expect(PROMPT)
        assert server.session(created["session_id"])["runtime"] == "fake"


# ---------------------------------------------------------------- TLS


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Path, Path]:
    """An authority, and a certificate of it with its key."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    ca_file, pem = tmp_path / "ca.pem", tmp_path / "server.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    return ca_file, pem


def test_tls(tmp_path: Path, certificates: tuple[Path, Path]) -> None:
    """The command line verifies the certificate; a browser gets HTTP/2."""
    ca_file, pem = certificates
    arguments = ("--tls-cert", str(pem), "--tls-key", str(pem))
    with running_server(tmp_path, *arguments, config=QUICK, ca_file=ca_file) as server:
        assert server.url.startswith("https://")
        session = server.create_session()
        assert session["attach"]["ws_url"].startswith("wss://")
        with server.client(http2=True) as client:
            answer = client.get("/healthz")
            assert (answer.http_version, answer.json()) == ("HTTP/2", {"status": "ok"})
            page = client.get("/")
            assert page.status_code == 200
        with server.client() as client:
            assert client.get("/healthz").http_version == "HTTP/1.1"
        trusting = {**server.environment, "SSL_CERT_FILE": str(ca_file)}

        async def use_it() -> None:
            ended = await run_cli(
                trusting, "exec", session["session_id"], "--", "sh", "-c", "cat; exit 3",
                stdin=bytes(1_000_000),
            )  # fmt: skip
            assert (ended.code, ended.stdout) == (3, bytes(1_000_000)), ended.errors
            ended = await run_cli(server.environment, "ls")
            assert ended.code == 1
            assert "certificate" in ended.errors.lower()
            ended = await run_cli(
                {
                    **server.environment,
                    "TRUNKLINE_URL": server.url.replace("https", "http"),
                    "TRUNKLINE_TOKEN": server.token,
                },
                "ls",
            )
            assert ended.code == 1
            assert len(ended.errors.splitlines()) == 1

        trio.run(use_it)
        # Speaking plain HTTP or rubbish to it harms nobody.
        for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b""):
            with socket.create_connection(("127.0.0.1", server.port), SECONDS) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(SECONDS)
                try:
                    while connection.recv(4096):
                        pass
                except ConnectionResetError:
                    pass
        with server.client() as client:
            assert client.get("/healthz").status_code == 200


# ---------------------------------------------------------------- stopping


def test_stopping_tells_the_clients(tmp_path: Path) -> None:
    """SIGTERM ends the shells, and says so; nothing is left."""
    with running_server(tmp_path, config=QUICK) as server:
        created = server.create_session()
        with open_fog(created["attach"]["ws_url"], created["attach"]["token"]) as client:
            client.expect(PROMPT)
            client.type(b"trap '' HUP TERM; setsid sleep 1000 & sleep 1000 & echo o''k\r")
            client.expect(rb"ok\r\n")
            assert len(pids_with(MARK, server.mark)) >= 4
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    client.receive()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "draining")
        assert server.process.wait(STOP_SECONDS) == 0
        # One second for clients, two for processes that do not want to end.
        assert time.monotonic() - began < 10
        assert wait_until_none(MARK, server.mark, 0) == []


async def test_a_command_on_a_server_that_stops(tmp_path: Path) -> None:
    """The client tries again for a while; it is not left hanging for ever without a word."""
    with running_server(tmp_path, config=QUICK) as server:
        session = (await trio.to_thread.run_sync(server.create_session))["session_id"]
        async with open_cli(server.environment, "exec", session, "--", "cat") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            await process.stdin.send_all(b"x\n")
            await read_until(process.stdout, b"x\n")
            assert await trio.to_thread.run_sync(server.stop) == 0
            await read_until(process.stderr, b"reconnecting")


def stalled_connections(server: ServerProcess) -> list[socket.socket]:
    """Open connections of every kind that hold things up."""
    created = server.create_session()
    token = created["attach"]["token"]
    path = f"/v1/sessions/{created['session_id']}/pty?token={token}"
    upgrade = (
        f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Version: 13\r\n"
    )
    request = f"POST /v1/sessions HTTP/1.1\r\nHost: {server.host}\r\nAuthorization: Bearer {server.token}\r\n"
    first_words = [
        "",
        "GE",
        f"GET / HTTP/1.1\r\nHost: {server.host}\r\n",
        f"{request}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        f"GET /healthz HTTP/1.1\r\nHost: {server.host}\r\n\r\n",
        f"{upgrade}\r\n",  # the JSON frames, and nobody reads them
        f"{upgrade}Sec-WebSocket-Protocol: trunk.1\r\n\r\n",  # a link that never says HELLO
    ]
    connections = []
    for words in first_words:
        connection = socket.create_connection(("127.0.0.1", server.port), SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(words.encode())
        connections.append(connection)
    # A page that is asked for many times over and never read.
    greedy = socket.create_connection(("127.0.0.1", server.port), SECONDS)
    greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    greedy.sendall(f"GET /static/vendor/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode() * 200)
    connections.append(greedy)
    with open_fog(created["attach"]["ws_url"], server.ticket(created["session_id"])) as client:
        client.expect(PROMPT)
        client.type(b"yes\r")
        client.expect(rb"(y\r\n){100}")
    return connections


def test_stopping_with_stalled_clients(tmp_path: Path) -> None:
    with running_server(tmp_path, config=QUICK) as server:
        connections = stalled_connections(server)
        try:
            began = time.monotonic()
            assert server.stop() == 0
            took = time.monotonic() - began
        finally:
            for connection in connections:
                connection.close()
        assert took < 10
        assert wait_until_none(MARK, server.mark, 0) == []


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with running_server(tmp_path, config="grace_seconds = 120\n") as server:
        connections = stalled_connections(server)
        try:
            server.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + SECONDS
            while '"event": "stopping"' not in server.log and time.monotonic() < deadline:
                os.sched_yield()
            began = time.monotonic()
            assert server.stop(signal.SIGINT) == 0
            assert time.monotonic() - began < 15
        finally:
            for connection in connections:
                connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_stop_it_too(tmp_path: Path, number: signal.Signals) -> None:
    with running_server(tmp_path, config=QUICK) as server:
        assert server.stop(number) == 0


def test_started_under_nohup(tmp_path: Path) -> None:
    """It ignores SIGHUP then; its shells do not."""
    with running_server(tmp_path, config=QUICK, prefix=("nohup",)) as server:
        created = server.create_session()
        server.process.send_signal(signal.SIGHUP)
        with open_fog(created["attach"]["ws_url"], created["attach"]["token"]) as client:
            client.expect(PROMPT)
            client.type(b"kill -HUP $$\r")
            assert client.wait_exit() == 129


# ---------------------------------------------------------------- starting again


def test_records_survive(tmp_path: Path) -> None:
    """After a restart they say what became of each session; tickets of before are refused."""
    with running_server(tmp_path, config=QUICK) as server:
        ended = server.create_session()["session_id"]
        server.delete_session(ended)
        running = server.create_session()["session_id"]
        token, port = server.token, server.port
    with running_server(tmp_path, config=QUICK) as server:
        assert server.token == token
        first, second = server.session(ended), server.session(running)
        assert (first["state"], first["reason"]) == ("terminated", "terminated on request")
        assert second["state"] == "terminated"
        assert second["reason"] == "ended because the server was shut down"
        with server.client() as client:
            listed = client.get("/v1/sessions").json()["sessions"]
        assert [s["session_id"] for s in listed] == [running, ended]
        assert port != 0


def test_killed_and_started_again(tmp_path: Path) -> None:
    """kill -9 hangs its terminals up, so no shell survives; the record is honest."""
    with running_server(tmp_path, config=QUICK, clean_end=False) as server:
        created = server.create_session()
        session = created["session_id"]
        with open_fog(created["attach"]["ws_url"], created["attach"]["token"]) as client:
            client.expect(PROMPT)
            client.type(b"echo o''k; sleep 1000\r")
            client.expect(rb"ok\r\n")
        server.process.kill()
        server.process.wait(SECONDS)
        assert wait_until_none("TRUNKLINE_SESSION", session) == []
        with running_server(tmp_path, config=QUICK) as again:
            shown = again.session(session)
            assert shown["status"] == "terminated"
            assert "lost" in shown["reason"]
            with again.client() as client_again:
                path = f"/v1/sessions/{session}/attach"
                assert client_again.post(path).status_code == 409


def test_a_stale_note(tmp_path: Path) -> None:
    """After kill -9 the note is still there; commands say that nobody answers."""
    with running_server(tmp_path, clean_end=False) as server:
        server.process.kill()
        server.process.wait(SECONDS)
        done = subprocess.run(
            trunkline_command("ls"),
            env=dict(server.environment),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_api_beside_it(tmp_path: Path) -> None:
    """Keep-alive, pipelining, and an upgrade on a connection that had a request before."""
    with running_server(tmp_path, config=QUICK) as server:
        created = server.create_session()
        token = created["attach"]["token"]
        health = f"GET /healthz HTTP/1.1\r\nHost: {server.host}\r\n\r\n"
        upgrade = (
            f"GET /v1/sessions/{created['session_id']}/pty?token={token} HTTP/1.1\r\n"
            f"Host: {server.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port), SECONDS) as connection:
            connection.settimeout(SECONDS)
            connection.sendall((health * 3 + upgrade).encode())
            got = b""
            while b"data_b64" not in got:
                piece = connection.recv(65536)
                assert piece, got
                got += piece
        assert got.count(b'{"status":"ok"}') + got.count(b'{"status": "ok"}') == 3
        assert got.index(b"101 Switching Protocols") > got.rindex(b"HTTP/1.1 200")
        with httpx2.Client(base_url=server.url, trust_env=False) as client:
            answer = client.get("/v1/whoami", headers={"Host": "evil.example"})
            assert answer.status_code == 421
            answer = client.post("/v1/login", headers={"Origin": "https://evil.example"})
            assert answer.status_code == 403
