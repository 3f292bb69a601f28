"""What only clusters do: pods that do not start, orphans, refusals, protocols, forwarding."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from relay.endpoint import Channel, ExitStatus, Kind, SocketTarget, StartError, StartRequest
from runtimes.base import Sandbox, SandboxError, SandboxSpec
from runtimes.exec_inside.endpoint import BUFFER_BYTES, ExecEndpoint
from runtimes.kubernetes import KubernetesRuntime
from tests.contracts.runtime_scenarios import PIECE, exec_request, pty_request, read_all, read_until
from tests.testing.kube_config import write_kubeconfig
from tests.testing.kube_server import Answer, KubeServer, open_kube_server

SPEC = SandboxSpec("the-session")
FLOOD_BYTES = 64 * 1024 * 1024


async def output_of(sandbox: Sandbox, script: str) -> str:
    endpoint = await sandbox.start(exec_request("sh", "-c", script))
    output = (await read_all(endpoint)).decode()
    await endpoint.aclose()
    return output


async def expect_refusal(runtime: KubernetesRuntime, words: str) -> None:
    with trio.fail_after(30), pytest.raises(SandboxError, match=words):
        async with runtime.open_sandbox(SPEC):
            pytest.fail("it opened")


async def test_who_does_not_read_holds_the_process_back(runtime: KubernetesRuntime) -> None:
    with trio.fail_after(60):
        async with runtime.open_sandbox(SPEC) as sandbox:
            script = f"head -c {FLOOD_BYTES} /dev/zero; echo done >&2; sleep 1000"
            flood = await sandbox.start(exec_request("sh", "-c", script))
            with trio.move_on_after(0.5) as scope:
                await flood.receive(Channel.ERROR, PIECE)
            assert scope.cancelled_caught  # it is not done: somebody would have to hold 64 MiB
            assert isinstance(flood, ExecEndpoint)
            held = flood.statistics()
            assert BUFFER_BYTES <= held[Channel.OUTPUT] < 2 * BUFFER_BYTES
            received = 0
            while received < FLOOD_BYTES:
                received += len(await flood.receive(Channel.OUTPUT, PIECE))
            assert await flood.receive(Channel.ERROR, PIECE) == b"done\n"


async def test_a_pod_that_never_becomes_ready(server: KubeServer, tmp_path: Path) -> None:
    config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
    runtime = KubernetesRuntime(config, image="full", ready_seconds=0.3)
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available",
    }
    server.fate = lambda _: {"phase": "Pending", "conditions": [condition]}
    await expect_refusal(runtime, r"not ready within 0 s: Unschedulable: 0/3 nodes.*more nodes")
    assert server.pods == {}


async def test_an_image_that_cannot_be_pulled(
    runtime: KubernetesRuntime, server: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.kubernetes.runtime.HOPELESS_SECONDS", 0.1)
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    server.fate = lambda _: {"phase": "Pending", "containerStatuses": [{"state": state}]}
    await expect_refusal(runtime, "ImagePullBackOff: no such image; check the image's name")
    assert server.pods == {}


async def test_a_pod_that_has_ended(runtime: KubernetesRuntime, server: KubeServer) -> None:
    server.fate = lambda _: {"phase": "Failed", "reason": "Evicted", "message": "disk pressure"}
    await expect_refusal(runtime, "Evicted: disk pressure$")
    server.logs = "starting\nno space left\n"
    await expect_refusal(runtime, r"disk pressure; the last it wrote: starting\nno space left$")
    assert server.pods == {}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(401, "Unauthorized"), "credentials.*renew the token"),
        (Answer(403, 'User "x" cannot create resource'), "verb create on pods in namespace"),
        (Answer(403, "exceeded quota: compute"), "forbids it: exceeded quota: compute$"),
        (Answer(404, 'namespaces "no" not found'), 'namespaces "no" not found'),
        (Answer(409, "already exists"), "conflicts"),
        (Answer(410, "expired"), "gone: expired"),
        (Answer(429, "slow down", headers=(("Retry-After", "0"),)), "asked too much"),
        (Answer(500, "etcd is away"), "answered 500: etcd is away"),
    ],
)
async def test_refusals_are_explained(
    runtime: KubernetesRuntime, server: KubeServer, answer: Answer, words: str
) -> None:
    server.refuse = lambda method, _: answer if method == "POST" else None
    await expect_refusal(runtime, words)


async def test_a_busy_server_is_asked_again(runtime: KubernetesRuntime, server: KubeServer) -> None:
    answers = [Answer(429, "slow down", headers=(("Retry-After", "0"),))] * 2
    server.refuse = lambda method, _: answers.pop() if method == "POST" and answers else None
    with trio.fail_after(30):
        async with runtime.open_sandbox(SPEC) as sandbox:
            assert await output_of(sandbox, "echo there") == "there\n"


async def test_exec_may_be_forbidden(runtime: KubernetesRuntime, server: KubeServer) -> None:
    forbidden = Answer(403, 'User "x" cannot get resource "pods/exec"')
    server.refuse = lambda _, path: forbidden if path.endswith("/exec") else None
    await expect_refusal(runtime, "verb get and create on pods/exec")
    assert server.pods == {}


async def test_nobody_is_there(tmp_path: Path) -> None:
    config = write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    runtime = KubernetesRuntime(config, image="full")
    await expect_refusal(runtime, "http://127.0.0.1:9 cannot be reached")
    with pytest.raises(SandboxError, match="cannot be reached"):
        await runtime.prepare()
    await runtime.end_lost({"s"})


async def test_a_start_that_fails_leaves_nothing(
    runtime: KubernetesRuntime, server: KubeServer
) -> None:
    with pytest.raises(SandboxError, match="/dev/null is not a directory"):
        async with runtime.open_sandbox(SandboxSpec("s", directory="/dev/null")):
            pytest.fail("it opened")
    assert server.pods == {}
    for delay in (0.01, 0.05, 0.1, 0.2):
        with trio.move_on_after(delay):
            async with runtime.open_sandbox(SPEC):
                await trio.sleep_forever()
        assert server.pods == {}


async def test_orphans_are_removed_by_their_label(
    runtime: KubernetesRuntime, server: KubeServer, tmp_path: Path
) -> None:
    other = KubernetesRuntime(tmp_path / "kubeconfig", image="full", server="other", grace=0.2)
    with trio.fail_after(60):
        async with runtime.open_sandbox(SandboxSpec("alive")) as alive:
            async with runtime.open_sandbox(SandboxSpec("orphan/1")) as orphan:
                sleeper = await orphan.start(exec_request("sleep", "1000"))
                async with other.open_sandbox(SandboxSpec("stranger")) as stranger:
                    assert await runtime.remove_orphans({"alive"}) == ("orphan/1",)
                    assert await output_of(stranger, "echo there") == "there\n"
                assert await sleeper.wait() == ExitStatus(signal="KILL")
                with pytest.raises(StartError):
                    await orphan.start(exec_request("true"))
            assert await output_of(alive, "echo there") == "there\n"
            await runtime.end_lost({"somebody else"})
            assert len(server.pods) == 1
            await runtime.end_lost({"alive"})
            assert server.pods == {}
        async with runtime.open_sandbox(SandboxSpec("left behind")):
            await runtime.prepare()
            assert server.pods == {}


async def test_a_pod_that_is_lost_is_noticed(
    runtime: KubernetesRuntime, server: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.kubernetes.sandbox.WATCH_SECONDS", 0.02)
    with trio.fail_after(30):
        async with runtime.open_sandbox(SPEC) as sandbox:
            assert not sandbox.broken
            server.remove(next(iter(server.pods)))
            while not sandbox.broken:
                await trio.sleep(0.01)


async def test_other_users_cannot_be_had(runtime: KubernetesRuntime) -> None:
    with trio.fail_after(30):
        async with runtime.open_sandbox(SPEC) as sandbox:
            with pytest.raises(StartError, match="runAsUser"):
                await sandbox.start(StartRequest(Kind.EXEC, ("id",), user="root"))


async def test_variables(runtime: KubernetesRuntime) -> None:
    with trio.fail_after(30):
        async with runtime.open_sandbox(SPEC) as sandbox:
            request = StartRequest(Kind.EXEC, ("env",), environment={"A": "x y", "C": "$(D)'"})
            lines = (await read_all(await sandbox.start(request))).decode().splitlines()
            assert {"A=x y", "C=$(D)'"} <= set(lines)
            with pytest.raises(StartError, match=r"'a\.b' cannot be set"):
                await sandbox.start(StartRequest(Kind.EXEC, ("env",), environment={"a.b": "c"}))


@pytest.mark.parametrize("kind", [Kind.TCP, Kind.VNC])
async def test_a_port_is_forwarded_where_nothing_inside_can_connect(
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
        async with runtime.open_sandbox(SPEC) as sandbox:
            script = "nc -ll -p 7007 -e cat & until grep -q :1B5F /proc/net/tcp*; do :; done"
            up = await sandbox.start(exec_request("sh", "-c", f"{script}; echo up; wait"))
            await read_until(up, b"up")
            connection = await sandbox.start(StartRequest(kind, socket=SocketTarget(7007)))
            assert ("GET", _path(server, "portforward")) in server.requests
            await connection.send(b"hello")
            assert await connection.receive(Channel.OUTPUT, PIECE) == b"hello"
            with trio.move_on_after(0.1):
                await connection.receive(Channel.OUTPUT, PIECE)
            data = bytes(range(256)) * 4096
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.send, data)
                got = b""
                while len(got) < len(data):
                    got += await connection.receive(Channel.OUTPUT, PIECE)
            assert got == data
            connection.send_signal("TERM")
            assert await connection.wait() == ExitStatus(signal="TERM")
            await connection.aclose()
            with pytest.raises(StartError, match="port 1: connection refused"):
                await sandbox.start(StartRequest(kind, socket=SocketTarget(1)))
            path = SocketTarget(path="/tmp/x")
            with pytest.raises(StartError, match="install socat"):
                await sandbox.start(StartRequest(kind, socket=path))
            assert sandbox.statistics().endpoints_open == 1


def _path(server: KubeServer, resource: str) -> str:
    return f"/api/v1/namespaces/default/pods/{next(iter(server.pods))}/{resource}"


async def test_a_token_that_was_replaced(images: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    with trio.fail_after(60):
        async with open_kube_server(images, token="old") as server:
            user = {"tokenFile": "token"}
            config = write_kubeconfig(tmp_path / "kubeconfig", server.url, user=user)
            runtime = KubernetesRuntime(config, image="full", grace=0.2)
            async with runtime.open_sandbox(SPEC) as sandbox:
                (tmp_path / "token").write_text("new")
                server.token = "new"
                assert await output_of(sandbox, "echo there") == "there\n"


async def test_nothing_of_ours_is_left_open(runtime: KubernetesRuntime) -> None:
    async def once() -> None:
        async with runtime.open_sandbox(SPEC) as sandbox:
            await sandbox.start(pty_request("cat"))
            await sandbox.start(exec_request("sleep", "1000"))

    with trio.fail_after(60):
        await once()
        await trio.sleep(0.2)
        before = len(os.listdir("/proc/self/fd"))
        await once()
        await trio.sleep(0.2)
        assert len(os.listdir("/proc/self/fd")) <= before
