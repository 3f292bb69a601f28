"""The contracts of runtimes, sockets and files, run against containers of a real engine."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from relay.endpoint import Channel, Kind, SocketTarget, StartRequest
from runtimes.base import Runtime, Sandbox, SandboxSpec
from runtimes.container import ContainerRuntime
from tests.contracts.files_contract import FilesContract
from tests.contracts.runtime_contract import BytesContract, LifeContract, RuntimeContract
from tests.contracts.runtime_scenarios import CONTRACT, exec_request, read_until
from tests.contracts.socket_contract import SocketContract

pytestmark = pytest.mark.slow

BOUND_SECONDS = 60
"""An engine takes some 100 ms for each process, and one test starts 200."""


class _OnAnEngine:
    @pytest.fixture
    def runtime(self, runtime: ContainerRuntime) -> Runtime:
        return runtime

    @asynccontextmanager
    async def open(self, runtime: Runtime, spec: SandboxSpec = CONTRACT) -> AsyncIterator[Sandbox]:
        with trio.fail_after(BOUND_SECONDS):
            async with runtime.open_sandbox(spec) as sandbox:
                yield sandbox


class TestContainer(_OnAnEngine, RuntimeContract, BytesContract, LifeContract):
    """With Podman; `test_dockerd.py` has a selection with Docker."""

    flood_piece = 1024
    """The engine reads a terminal at most 4 KiB at a time; what is joined depends on who is faster."""

    async def test_send_where_nobody_reads(self, runtime: Runtime) -> None:
        """An engine does not tell that a process has closed its input, only that it has ended."""
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


class TestPort(_OnAnEngine, SocketContract):
    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with self.open(runtime) as sandbox:
            server = "nc -ll -p 7007 -e cat"
            await _serve(sandbox, server, "grep -q :1B5F /proc/net/tcp*")
            yield sandbox, SocketTarget(7007)


class TestPath(_OnAnEngine, SocketContract):
    kind = Kind.VNC

    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        if shutil.which("socat") is None:
            pytest.skip("socat is not installed: nothing to listen on a Unix socket with")
        path = "/tmp/server socket"
        async with self.open(runtime) as sandbox:
            server = f"socat -t 600 'UNIX-LISTEN:{path},fork' EXEC:cat"
            await _serve(sandbox, server, f"test -S '{path}'")
            yield sandbox, SocketTarget(path=path)


async def _serve(sandbox: Sandbox, server: str, is_up: str) -> None:
    """Start a server in a session of its own, wait until it is up, and close the stream."""
    script = f"setsid {server} </dev/null >/dev/null 2>&1 & until {is_up}; do :; done; echo up"
    endpoint = await sandbox.start(exec_request("sh", "-c", script))
    assert await endpoint.receive(Channel.OUTPUT, 10) == b"up\n"
    await endpoint.aclose()


class TestFiles(_OnAnEngine, FilesContract):
    """With busybox alone, which has the least of what a container can be asked to do."""

    @pytest.fixture
    def runtime(self, busybox_runtime: ContainerRuntime) -> Runtime:
        return busybox_runtime
