"""The contracts of runtimes, sockets and files, run against pods of a double of a cluster."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from relay.endpoint import Channel, Kind, SocketTarget, StartRequest
from runtimes.base import Runtime, Sandbox
from runtimes.kubernetes import KubernetesRuntime
from tests.contracts.files_contract import FilesContract
from tests.contracts.runtime_contract import BytesContract, LifeContract, RuntimeContract
from tests.contracts.runtime_scenarios import exec_request, read_until
from tests.contracts.socket_contract import SocketContract
from tests.testing.certificates import Authority
from tests.testing.kube_config import write_kubeconfig
from tests.testing.kube_server import KubeServer, open_kube_server


class _OnACluster:
    @pytest.fixture
    def runtime(self, server: KubeServer, tmp_path: Path) -> Runtime:
        config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        return KubernetesRuntime(config, image="full", grace=0.2)


class _Runtime(RuntimeContract, BytesContract, LifeContract):
    async def test_send_where_nobody_reads(self, runtime: Runtime) -> None:
        """A cluster does not tell that a process has closed its input, only that it has ended."""
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


class TestV5(_OnACluster, _Runtime):
    pass


class TestV4(_OnACluster, _Runtime):
    """With a protocol that cannot end the input."""

    @pytest.fixture
    async def server(self, images: Mapping[str, Path]) -> AsyncIterator[KubeServer]:
        async with open_kube_server(images, protocols=("v4.channel.k8s.io",)) as running:
            yield running


class TestTls(_OnACluster, BytesContract):
    """Through TLS, with a certificate that only the kubeconfig's authority has signed."""

    @pytest.fixture
    async def server(
        self, images: Mapping[str, Path], authority: Authority
    ) -> AsyncIterator[KubeServer]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.certificate, authority.key)
        async with open_kube_server(images, ssl_context=context, token="secret") as running:
            yield running

    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path)

    @pytest.fixture
    def runtime(self, server: KubeServer, authority: Authority, tmp_path: Path) -> Runtime:
        config = write_kubeconfig(
            tmp_path / "kubeconfig",
            server.url,
            user={"token": "secret"},
            cluster={"certificate-authority": authority.write_authority().name},
        )
        return KubernetesRuntime(config, image="full", grace=0.2)

    async def test_send_where_nobody_reads(self, runtime: Runtime) -> None:
        pytest.skip("as without TLS")


class TestPort(_OnACluster, SocketContract):
    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with self.open(runtime) as sandbox:
            await _serve(sandbox, "nc -ll -p 7007 -e cat", "grep -q :1B5F /proc/net/tcp*")
            yield sandbox, SocketTarget(7007)


class TestPath(_OnACluster, SocketContract):
    kind = Kind.VNC

    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
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


class TestFiles(_OnACluster, FilesContract):
    pass
