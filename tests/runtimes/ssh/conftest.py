"""One SSH server for all tests of this directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runtimes.base import SandboxSpec
from runtimes.ssh import SshHost, SshRuntime
from runtimes.ssh.sandbox import SshSandbox
from runtimes.ssh.scripts import MARK, mark_of
from tests.testing.processes import is_running, running_pids
from tests.testing.ssh_server import SshServer, missing, ssh_server


class RecordingRuntime(SshRuntime):
    """Remembers by which variables the processes of its sessions are known."""

    def __init__(self, host: SshHost, *, server: str, home: str) -> None:
        super().__init__(host, server=server, home=home, grace=0.2, linger=0.2)
        self._of = server
        self._marks: set[bytes] = set()

    @asynccontextmanager
    async def open_sandbox(self, spec: SandboxSpec) -> AsyncIterator[SshSandbox]:
        self._marks.add(f"{MARK}={mark_of(self._of, spec.session_id)}".encode())
        async with super().open_sandbox(spec) as sandbox:
            yield sandbox

    def left(self) -> list[int]:
        """Return the processes of its sessions that still run."""
        found = []
        for pid in running_pids():
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            if is_running(pid) and self._marks & set(environment.split(b"\0")):
                found.append(pid)
        return found


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A real server, or a skip that says what is missing."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> str:
    """An empty home."""
    path = tmp_path / "home"
    path.mkdir()
    return str(path)


@pytest.fixture
def runtime(server: SshServer, home: str, tmp_path: Path) -> Iterator[SshRuntime]:
    """A runtime on the server; at the end nothing may be left of its sessions."""
    made = RecordingRuntime(server.host(), home=home, server=str(tmp_path))
    yield made
    assert made.left() == []
