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

from relay.endpoint import (
    Channel,
    ExitStatus,
    Kind,
    SocketTarget,
    StartError,
    StartRequest,
    TerminalSize,
)
from runtimes.base import Runtime, Sandbox, SandboxSpec
from runtimes.kubernetes import KubernetesRuntime
from runtimes.kubernetes.access import Cluster
from runtimes.kubernetes.channels import V4, V5
from runtimes.kubernetes.exec import KubeExec
from runtimes.kubernetes.tokens import FixedToken
from runtimes.kubernetes.websocket import open_websocket
from tests.contracts.runtime_contract import BytesContract
from tests.contracts.runtime_scenarios import (
    PIECE,
    exec_request,
    fill_input,
    pty_request,
    read_all,
    read_until,
)
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


class TestNode(_OnANode, BytesContract):
    """The bytes of terminals and commands: sizes, errors apart, the end of input, exit codes."""

    flood_piece = 1024
    """What a node's pipes join depends on who is faster."""

    async def test_send_where_nobody_reads(self, runtime: Runtime) -> None:
        pytest.skip("as with the double of a cluster")

    async def test_output_before_the_end_is_never_lost(self, runtime: Runtime) -> None:
        """As the contract's, but fewer: starting a process takes some 60 ms."""
        async with self.open(runtime) as sandbox:
            for n in range(20):
                script = f"yes {n} | head -c 20000; echo end >&2; exit {n}"
                command = await sandbox.start(exec_request("sh", "-c", script))
                output = await read_all(command)
                assert output == (f"{n}\n".encode() * 20000)[:20000]
                assert await read_all(command, Channel.ERROR) == b"end\n"
                assert await command.wait() == ExitStatus(code=n)
                await command.aclose()

    async def test_send_pushes_back(self, runtime: Runtime) -> None:
        """As the contract's, for commands; a terminal that is full is closed by force (15 s)."""
        async with self.open(runtime) as sandbox:
            deaf = await sandbox.start(exec_request("sleep", "1000"))
            await fill_input(deaf)
            with trio.move_on_after(0.05) as scope:
                await deaf.send(bytes(4 * PIECE))
            assert scope.cancelled_caught
            await deaf.aclose()


async def test_what_the_container_runtime_sets_is_ours(runtime: KubernetesRuntime) -> None:
    """containerd gives terminals a TERM of its own, whatever the pod's environment says."""
    spec = SandboxSpec("s", environment={"TERM": "vt52"})
    with trio.fail_after(60):
        async with runtime.open_sandbox(spec) as sandbox:
            for start in (exec_request, pty_request):
                printed = await sandbox.start(start("printenv", "TERM"))
                assert (await read_all(printed)).split() == [b"vt52"]


async def test_the_protocol_is_v4_for_real(node: CriNode) -> None:
    """v5 is offered first and not spoken; a size, a terminal's output and its exit code come through."""
    pod = node.start_pod("protocol", {}, ("/bin/sleep", "1000"))
    try:
        url = pod.exec_url(
            ("sh", "-c", "until stty size 2>/dev/null | grep '43 132'; do :; done; exit 5"),
            terminal=True,
        )
        base, _, token = url.partition("/exec/")
        cluster = Cluster(base, None, "127.0.0.1", "default", FixedToken())
        with trio.fail_after(30):
            websocket = await open_websocket(cluster, f"/exec/{token}", {}, (V5, V4))
            assert websocket.subprotocol == V4
            running = KubeExec(websocket, framed=False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(running.run)
                await running.resize(TerminalSize(columns=132, rows=43))
                output = b""
                while pieces := await running.receive():
                    output += b"".join(bytes(piece) for _, piece in pieces)
                assert await running.exit_code() == 5
                await running.aclose()
        assert output == b"43 132\r\n"
    finally:
        pod.stop()


@pytest.mark.parametrize("kind", [Kind.TCP, Kind.VNC])
async def test_ports_through_the_node(
    runtime: KubernetesRuntime,
    server: KubeServer,
    kind: Kind,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing = "printf '\\036trunkline no-connector\\n' >&2"
    monkeypatch.setattr(
        "runtimes.exec_inside.sandbox.connector", lambda *_: ("/bin/sh", "-c", nothing)
    )
    with trio.fail_after(60):
        async with runtime.open_sandbox(SandboxSpec("s")) as sandbox:
            await serve(sandbox, "nc -ll -p 7007 -e cat")
            connection = await sandbox.start(StartRequest(kind, socket=SocketTarget(7007)))
            assert any(path.endswith("/portforward") for _, path in server.requests)
            data = bytes(range(256)) * 4096
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.send, data)
                got = b""
                while len(got) < len(data):
                    got += await connection.receive(Channel.OUTPUT, PIECE)
            assert got == data
            await connection.aclose()
            with pytest.raises(StartError, match="port 1: connection refused"):
                await sandbox.start(StartRequest(kind, socket=SocketTarget(1)))


class TestPort(_OnANode, SocketContract):
    @asynccontextmanager
    async def echo(self, runtime: Runtime) -> AsyncIterator[tuple[Sandbox, SocketTarget]]:
        async with self.open(runtime) as sandbox:
            await serve(sandbox, "nc -ll -p 7007 -e cat")
            yield sandbox, SocketTarget(7007)

    async def test_who_does_not_read_is_held_back(self, runtime: Runtime) -> None:
        pytest.skip("as with the double of a cluster; closing takes 15 s with containerd")


async def serve(sandbox: Sandbox, server: str) -> None:
    """Start a server for port 7007 in a session of its own, and wait until it is up."""
    until = "until grep -q :1B5F /proc/net/tcp*; do :; done"
    script = f"setsid {server} </dev/null >/dev/null 2>&1 & {until}; echo up"
    endpoint = await sandbox.start(exec_request("sh", "-c", script))
    await read_until(endpoint, b"up")
    await endpoint.aclose()
