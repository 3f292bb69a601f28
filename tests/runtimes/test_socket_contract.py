"""The contract of `tcp` and `vnc` streams, run against every runtime there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.endpoint import Kind, SocketTarget
from runtimes.base import Runtime, Sandbox
from runtimes.fake import FakeRuntime
from runtimes.local import LocalRuntime
from tests.contracts.socket_contract import SocketContract
from tests.testing.socket_servers import echo, open_server


class LocalContract(SocketContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return LocalRuntime(grace=0.2, linger=0.2)


class TestLocalPort(LocalContract):
    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with open_server(echo) as target, self.open(runtime) as sandbox:
            yield sandbox, target


class TestLocalPortOnIPv6(LocalContract):
    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with open_server(echo, host="::1") as target, self.open(runtime) as sandbox:
            yield sandbox, target


class TestLocalPath(LocalContract):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "socket")

    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with open_server(echo, path=self.path) as target, self.open(runtime) as sandbox:
            yield sandbox, target


class TestFake(SocketContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return FakeRuntime(grace=0.2)

    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with self.open(runtime) as sandbox:
            yield sandbox, SocketTarget(7)


class TestFakeDesktop(TestFake):
    kind = Kind.VNC
