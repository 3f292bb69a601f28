"""The contracts of runtimes, files and sockets, run against bubblewrap."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.endpoint import Channel, Endpoint, Kind, SocketTarget, StartRequest
from runtimes.base import Runtime, Sandbox, SandboxStatistics
from runtimes.bubblewrap import BubblewrapRuntime
from tests.contracts.files_contract import FilesContract
from tests.contracts.runtime_contract import BytesContract, LifeContract, RuntimeContract
from tests.contracts.socket_contract import SocketContract
from tests.testing.bubblewrap import require_bubblewrap

# Sends back what it gets, in order and to the end; tells when it listens.
_ECHO = """
import socket, sys, threading
def serve(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
where = sys.argv[1]
if where.startswith('/'):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(where)
else:
    family = socket.AF_INET6 if ':' in where else socket.AF_INET
    listener = socket.socket(family)
    listener.bind((where, 7))
listener.listen()
print('listening', flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


class _Bubblewrap:
    @pytest.fixture
    def runtime(self, tmp_path: Path) -> Runtime:
        require_bubblewrap()
        return BubblewrapRuntime(tmp_path / "sandboxes", grace=0.2, linger=0.2)


class TestRuntime(_Bubblewrap, RuntimeContract, BytesContract, LifeContract):
    pass


class TestFiles(_Bubblewrap, FilesContract):
    pass


class _Sockets(_Bubblewrap, SocketContract):
    address = "127.0.0.1"
    target = SocketTarget(7777)

    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with self.open(runtime) as sandbox:
            script = _ECHO.replace("(where, 7)", f"(where, {self.target.port})")
            command = ("python3", "-c", script, self.address)
            server = await sandbox.start(StartRequest(Kind.EXEC, command))
            assert await server.receive(Channel.OUTPUT, 100) == b"listening\n"
            yield _Uncounted(sandbox), self.target


class _Uncounted(Sandbox):
    """A sandbox whose echo server does not count."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def start(self, request: StartRequest) -> Endpoint:
        return await self._sandbox.start(request)

    def statistics(self) -> SandboxStatistics:
        found = self._sandbox.statistics()
        return SandboxStatistics(max(0, found.endpoints_open - 1), found.endpoints_started - 1)


class TestPort(_Sockets):
    pass


class TestPortOnIPv6(_Sockets):
    address = "::1"


class TestPath(_Sockets):
    address = "/tmp/socket"
    target = SocketTarget(path="/tmp/socket")


class TestDesktop(_Sockets):
    kind = Kind.VNC
