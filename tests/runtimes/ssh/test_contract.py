"""The contracts of runtimes, sockets and files, run against a real OpenSSH server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from relay.endpoint import Channel, Kind, SocketTarget, StartRequest
from runtimes.base import Runtime, Sandbox, SandboxSpec
from runtimes.ssh import SshRuntime
from tests.contracts.files_contract import FilesContract
from tests.contracts.runtime_contract import BytesContract, LifeContract, RuntimeContract
from tests.contracts.runtime_scenarios import CONTRACT, exec_request, read_until
from tests.contracts.socket_contract import SocketContract
from tests.testing.socket_servers import echo, open_server

BOUND_SECONDS = 90
"""A process takes some 50 ms and more to start, and one test starts 200."""


class _OnAServer:
    @pytest.fixture
    def runtime(self, runtime: SshRuntime) -> Runtime:
        return runtime

    @asynccontextmanager
    async def open(self, runtime: Runtime, spec: SandboxSpec = CONTRACT) -> AsyncIterator[Sandbox]:
        if spec is CONTRACT:
            # Its processes are on this machine: the end of a session of the same name in another
            # run of the tests, of a runtime that looks for names, must not be theirs.
            spec = replace(spec, session_id=secrets.token_hex(8))
        with trio.fail_after(BOUND_SECONDS):
            async with runtime.open_sandbox(spec) as sandbox:
                yield sandbox


class TestSsh(_OnAServer, RuntimeContract, BytesContract, LifeContract):
    async def test_send_where_nobody_reads(self, runtime: Runtime) -> None:
        """SSH does not tell that a process has closed its input, only that it has ended."""
        async with self.open(runtime) as sandbox:
            for kind in (Kind.EXEC, Kind.PTY):
                ended = await sandbox.start(StartRequest(kind, ("true",)))
                await ended.wait()
                with pytest.raises(trio.BrokenResourceError):
                    await ended.send(b"hello")
                assert await ended.receive(Channel.OUTPUT, 1) == b""
            deaf = await sandbox.start(exec_request("sh", "-c", "exec <&-; echo ready; sleep 1000"))
            await read_until(deaf, b"ready\n")
            await deaf.send(b"hello")


class TestPort(_OnAServer, SocketContract):
    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with open_server(echo) as target, self.open(runtime) as sandbox:
            yield sandbox, target


class TestPortOnIPv6(_OnAServer, SocketContract):
    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with open_server(echo, host="::1") as target, self.open(runtime) as sandbox:
            yield sandbox, target


class TestPath(_OnAServer, SocketContract):
    kind = Kind.VNC

    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "server socket")

    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with open_server(echo, path=self.path) as target, self.open(runtime) as sandbox:
            yield sandbox, target


class TestFiles(_OnAServer, FilesContract):
    """The same script as in a container, with the programs of this machine."""
