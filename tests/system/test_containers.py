"""`trunkline serve --runtime container` with a real engine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testing.container_engine import IMAGE, TestEngine, missing, podman_engine
from tests.testing.server_process import ServerProcess, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONFIG = """
[runtimes.container]
address = "unix://{socket}"
image = "{image}"

[profiles.small]
limits = {{ memory = "64M", processes = 50 }}

[profiles.nowhere]
image = "localhost/not-there:1"
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestEngine]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with podman_engine(tmp_path_factory.mktemp("engine")) as running:
        yield running


def config(engine: TestEngine) -> str:
    return CONFIG.format(socket=engine.socket, image=IMAGE)


def run(server: ServerProcess, session_id: str, command: str) -> tuple[int, str]:
    """Run a shell command; return its exit code and output."""
    with server.client() as client:
        answer = client.post(
            f"/v1/sessions/{session_id}/exec",
            json={"command": ["sh", "-c", command], "timeout_seconds": 30},
        )
    assert answer.status_code == 200, answer.text
    done = answer.json()
    return done["exit_code"], done["stdout"]


def test_sessions_are_containers(engine: TestEngine, tmp_path: Path) -> None:
    with running_server(tmp_path, "--runtime", "container", config=config(engine)) as server:
        session = server.create_session(profile="small")["session_id"]
        assert len(engine.containers()) == 1
        assert run(server, session, "echo $((6 * 7)); exit 3") == (3, "42\n")
        with server.client() as client:
            path = f"/v1/sessions/{session}/files?path=note"
            assert client.put(path, content=b"in the container").status_code == 201
            assert client.get(path).content == b"in the container"
        server.delete_session(session)
        assert engine.containers() == []
        with server.client() as client:
            answer = client.post("/v1/sessions", json={"profile": "nowhere", "ttl_seconds": 0})
        assert answer.status_code == 503, answer.text
        assert "pull" in answer.json()["detail"]
        assert engine.containers() == []


def test_a_restarted_server_removes_what_is_left(engine: TestEngine, tmp_path: Path) -> None:
    with running_server(
        tmp_path, "--runtime", "container", config=config(engine), clean_end=False
    ) as server:
        server.create_session()
        server.stop(signal.SIGKILL)
    assert len(engine.containers()) == 1
    with running_server(tmp_path, "--runtime", "container", config=config(engine)) as server:
        assert engine.containers() == []
        assert server.announced


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"nobody\.sock"),
        running_server(
            tmp_path,
            "--runtime",
            "container",
            config=f'[runtimes.container]\naddress = "unix://{tmp_path}/nobody.sock"\n',
            clean_end=False,
        ),
    ):
        pass
