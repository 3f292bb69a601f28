"""Against the exec and port-forward of a real node: containerd's own server, in front a thin double.

The double creates and deletes pods by containerd's CRI and hands the bytes of WebSockets on, as API
servers do.  This containerd speaks ``v4.channel.k8s.io``: v5 is offered first, and refused for real.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from relay.endpoint import Channel, ExitStatus, Kind, SocketTarget, StartError, StartRequest
from relay.endpoint import TerminalSize
from runtimes.base import Runtime, Sandbox, SandboxSpec
from runtimes.kubernetes import KubernetesRuntime
from tests.contracts.runtime_contract import BytesContract, LifeContract, RuntimeContract
from tests.contracts.runtime_scenarios import PIECE, exec_request, pty_request, read_all, read_until
from tests.contracts.socket_contract import SocketContract
from tests.testing.kube_config import write_kubeconfig
from tests.testing.kube_cri import CriNode, NodeNotStarted, containerd_node, missing
from tests.testing.kube_server import KubeServer, open_kube_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriNode]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    try:
        with containerd_node(tmp_path_factory.mktemp("node")) as running:
            yield running
    except NodeNotStarted as error:
        pytest.skip(f"containerd cannot be started here: {error}")


@pytest.fixture
async def server(node: CriNode) -> AsyncIterator[KubeServer]:
    async with open_kube_server({}, node=node) as running:
        yield running


@pytest.fixture
def runtime(server: KubeServer, tmp_path: Path) -> KubernetesRuntime:
    config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
    return KubernetesRuntime(config, image="full", grace=0.2)


class _OnANode:
    @pytest.fixture
    def runtime(self, runtime: KubernetesRuntime) -> Runtime:
        return runtime


class TestNode(_OnANode, RuntimeContract, BytesContract, LifeContract):
    async def test_send_where_nobody_reads(self, runtime: Runtime) -> None:
        pytest.skip("as with the double")


class TestPort(_OnANode, SocketContract):
    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with self.open(runtime) as sandbox:
            await serve(sandbox, "nc -ll -p 7007 -e cat")
            yield sandbox, SocketTarget(7007)


async def serve(sandbox: Sandbox, server: str) -> None:
    """Start a server for port 7007 in a session of its own, and wait until it is up."""
    until = "until grep -q :1B5F /proc/net/tcp*; do :; done"
    script = f"setsid {server} </dev/null >/dev/null 2>&1 & {until}; echo up"
    endpoint = await sandbox.start(exec_request("sh", "-c", script))
    await read_until(endpoint, b"up")
    await endpoint.aclose()
