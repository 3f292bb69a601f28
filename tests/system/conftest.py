"""One server for most of the system tests; what a test leaves behind in it is an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.testing.server_process import ServerProcess, running_server


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = """
    grace_seconds = 1
    [profiles.short]
    max_ttl_seconds = 60
    """
    with running_server(tmp_path_factory.mktemp("server"), config=config) as server:
        yield server


@pytest.fixture
def server(shared_server: ServerProcess) -> Iterator[ServerProcess]:
    """A server that other tests use too; its log is looked through after each."""
    assert shared_server.process.poll() is None, shared_server.log[-3000:]
    yield shared_server
    assert shared_server.process.poll() is None, shared_server.log[-3000:]
    shared_server.check_log()


@pytest.fixture
def created(server: ServerProcess) -> Iterator[dict[str, Any]]:
    """The answer to POST /v1/sessions; nothing may be left of the session at the end."""
    answer = server.create_session()
    yield answer
    server.delete_session(answer["session_id"])


@pytest.fixture
def session_id(created: dict[str, Any]) -> str:
    value = created["session_id"]
    assert isinstance(value, str)
    return value


@pytest.fixture
def env(server: ServerProcess) -> dict[str, str]:
    """The environment in which the command line finds the server."""
    return dict(server.environment)


@pytest.fixture
def empty_env(tmp_path: Path) -> dict[str, str]:
    """An environment in which there is no server."""
    from tests.testing.server_process import clean_environment

    return clean_environment(tmp_path / "nowhere")
