"""Starting the server, and its reasons not to."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
import trio
import trustme

from tests.testing.cli import SECONDS, run_cli
from tests.testing.fog_client import open_fog
from tests.testing.server_process import (
    clean_environment,
    running_server,
    trunkline_command,
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
