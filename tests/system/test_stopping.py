"""Stopping the server, and starting it again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx2
import pytest
import trio
from websockets.exceptions import ConnectionClosed

from tests.testing.cli import SECONDS, open_cli, read_until
from tests.testing.fog_client import open_fog
from tests.testing.server_process import (
    MARK,
    STOP_SECONDS,
    ServerProcess,
    pids_with,
    running_server,
    trunkline_command,
    wait_until_none,
)

PROMPT = rb"[$#] "
QUICK = "grace_seconds = 1\n"


# ---------------------------------------------------------------- stopping


def test_stopping_tells_the_clients(tmp_path: Path) -> None:
    """SIGTERM ends the shells, and says so; nothing is left."""
    with running_server(tmp_path, config=QUICK) as server:
        created = server.create_session()
        with open_fog(created["attach"]["ws_url"], created["attach"]["token"]) as client:
            client.expect(PROMPT)
            client.type(b"trap '' HUP TERM; setsid sleep 1000 & sleep 1000 & echo o''k\r")
            client.expect(rb"ok\r\n")
            limit = time.monotonic() + 20
            while len(pids_with(MARK, server.mark)) < 4:  # each becomes itself in its own time
                assert time.monotonic() < limit
                time.sleep(0.01)
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
