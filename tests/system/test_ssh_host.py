"""`trunkline serve --runtime ssh` with a real OpenSSH server."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testing.server_process import running_server
from tests.testing.ssh_server import SshServer, missing, ssh_server

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def test_sessions_are_on_the_other_machine(host: SshServer, tmp_path: Path) -> None:
    home = tmp_path / "there"
    home.mkdir()
    config = f"""
[runtimes.ssh]
address = "127.0.0.1"
port = {host.port}
username = "{getpass.getuser()}"
known_hosts = "{host.known_hosts}"
keys = ["{host.key}"]
home = "{home}"
"""
    with running_server(tmp_path, "--runtime", "ssh", config=config) as server:
        created = server.create_session()
        session = created["session_id"]
        with server.client() as client:
            done = client.post(
                f"/v1/sessions/{session}/exec",
                json={"command": ["sh", "-c", "pwd; echo $SSH_CONNECTION | cut -d' ' -f3; exit 3"]},
            ).json()
            assert (done["exit_code"], done["stdout"]) == (3, f"{home}\n127.0.0.1\n")
            path = f"/v1/sessions/{session}/files?path=note"
            assert client.put(path, content=b"over there").status_code == 201
        assert (home / "note").read_bytes() == b"over there"
        server.delete_session(session)


def test_a_machine_that_is_not_known(host: SshServer, tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    empty.write_text("")
    config = f"""
[runtimes.ssh]
address = "127.0.0.1"
port = {host.port}
username = "{getpass.getuser()}"
known_hosts = "{empty}"
keys = ["{host.key}"]
"""
    with running_server(tmp_path, "--runtime", "ssh", config=config) as server:
        with server.client() as client:
            answer = client.post("/v1/sessions", json={"profile": "default", "ttl_seconds": 0})
        assert answer.status_code == 503
        assert "SHA256:" in answer.json()["detail"]
