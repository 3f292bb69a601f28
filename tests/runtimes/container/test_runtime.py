"""What only containers do, on a real engine: isolation, limits, orphans, dead engines."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
import trio
import trustme

from relay.endpoint import Channel, ExitStatus, Kind, SocketTarget, StartError, StartRequest
from runtimes.base import Mount, Network, ResourceLimits, Sandbox, SandboxError, SandboxSpec
from runtimes.container import ContainerRuntime, EngineAddress
from runtimes.exec_inside.endpoint import BUFFER_BYTES, ExecEndpoint
from tests.contracts.runtime_scenarios import PIECE, exec_request, pty_request, read_all, read_until
from tests.testing.container_engine import IMAGE, TestEngine
from tests.testing.socket_servers import open_server

pytestmark = pytest.mark.slow

SPEC = SandboxSpec("the-session")
FLOOD_BYTES = 64 * 1024 * 1024


async def output_of(sandbox: Sandbox, script: str) -> str:
    endpoint = await sandbox.start(exec_request("sh", "-c", script))
    output = (await read_all(endpoint)).decode()
    await endpoint.aclose()
    return output


async def test_it_is_shut_in(runtime: ContainerRuntime) -> None:
    assert runtime.isolated
    with trio.fail_after(60):
        async with runtime.open_sandbox(SPEC) as sandbox:
            status = await output_of(sandbox, "cat /proc/self/status; ls /sys/class/net; id -un")
            assert "CapEff:\t0000000000000000" in status
            assert "CapBnd:\t0000000000000000" in status
            assert "NoNewPrivs:\t1" in status
            assert status.split()[-2:] == ["lo", "user"]


async def test_limits_hold(runtime: ContainerRuntime) -> None:
    spec = SandboxSpec(
        "limits", limits=ResourceLimits(memory_bytes=64 << 20, processes=30, cpus=0.5)
    )
    with trio.fail_after(60):
        async with runtime.open_sandbox(spec) as sandbox:
            greedy = await sandbox.start(exec_request("sh", "-c", "tail -c 200000000 /dev/zero"))
            assert await greedy.wait() == ExitStatus(signal="KILL")
            forks = "for n in $(seq 60); do sleep 100 & done; wait"
            bomb = await sandbox.start(exec_request("sh", "-c", forks))
            status = await bomb.wait()
            assert status.code != 0
            assert b"fork" in await read_all(bomb, Channel.ERROR)


async def test_mounts(runtime: ContainerRuntime, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)  # noqa: ASYNC240 - before anything runs
    (tmp_path / "file").write_text("from outside\n")
    mounts = (Mount(str(tmp_path), "/ro"), Mount(str(tmp_path), "/rw", read_only=False))
    with trio.fail_after(60):
        async with runtime.open_sandbox(SandboxSpec("mounts", mounts=mounts)) as sandbox:
            script = "cat /ro/file; echo x >/ro/new || echo refused; echo inside >/rw/new"
            assert await output_of(sandbox, script) == "from outside\nrefused\n"
    assert (tmp_path / "new").read_text() == "inside\n"


async def test_a_kept_home_is_there_again(runtime: ContainerRuntime) -> None:
    spec = SandboxSpec("keeper", keep_home=True)
    with trio.fail_after(60):
        async with runtime.open_sandbox(spec) as sandbox:
            assert await output_of(sandbox, "pwd; echo kept >file && echo written") == (
                "/home/user\nwritten\n"
            )
        async with runtime.open_sandbox(spec) as sandbox:
            assert await output_of(sandbox, "cat file") == "kept\n"
        await runtime.remove_home(spec)
        await runtime.remove_home(spec)
        async with runtime.open_sandbox(spec) as sandbox:
            assert await output_of(sandbox, "ls") == ""
        await runtime.remove_home(spec)


async def test_pause_and_resume(runtime: ContainerRuntime) -> None:
    with trio.fail_after(60):
        async with runtime.open_sandbox(SPEC) as sandbox:
            echo = await sandbox.start(exec_request("cat"))
            await sandbox.pause()
            await sandbox.pause()
            await echo.send(b"hello")
            with trio.move_on_after(0.3) as scope:
                await echo.receive(Channel.OUTPUT, PIECE)
            assert scope.cancelled_caught
            with pytest.raises(StartError):
                await sandbox.start(exec_request("true"))
            await sandbox.resume()
            await sandbox.resume()
            assert await echo.receive(Channel.OUTPUT, PIECE) == b"hello"
            await sandbox.pause()  # and it ends all the same


async def test_users(runtime: ContainerRuntime) -> None:
    with trio.fail_after(60):
        async with runtime.open_sandbox(SPEC) as sandbox:
            command = ("sh", "-c", "id -u; sleep 1000")
            root = await sandbox.start(StartRequest(Kind.EXEC, command, user="root"))
            await read_until(root, b"0\n")
            root.send_signal("TERM")
            assert await root.wait() == ExitStatus(signal="TERM")
            with pytest.raises(StartError, match="nobody-here"):
                await sandbox.start(StartRequest(Kind.EXEC, ("id",), user="nobody-here"))


async def test_closing_a_stream_ends_what_it_started(runtime: ContainerRuntime) -> None:
    with trio.fail_after(60):
        async with runtime.open_sandbox(SPEC) as sandbox:
            for start in (exec_request, pty_request):
                script = "sleep 1234 & sleep 1234 & echo up; wait"
                endpoint = await sandbox.start(start("sh", "-c", script))
                await read_until(endpoint, b"up")
                await endpoint.aclose()
            assert "sleep 1234" not in await output_of(sandbox, "ps -o args")


async def test_who_does_not_read_holds_the_process_back(runtime: ContainerRuntime) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        with trio.fail_after(60):
            script = f"head -c {FLOOD_BYTES} /dev/zero; echo done >&2; sleep 1000"
            flood = await sandbox.start(exec_request("sh", "-c", script))
            with trio.move_on_after(1) as scope:
                await flood.receive(Channel.ERROR, PIECE)
            assert scope.cancelled_caught  # it is not done: somebody would have to hold 64 MiB
            assert isinstance(flood, ExecEndpoint)
            held = flood.statistics()
            assert BUFFER_BYTES <= held[Channel.OUTPUT] < 2 * BUFFER_BYTES
            assert held[Channel.ERROR] == 0
            received = 0
            while received < FLOOD_BYTES:
                received += len(await flood.receive(Channel.OUTPUT, PIECE))
            assert await flood.receive(Channel.ERROR, PIECE) == b"done\n"


async def test_the_end_is_seen_behind_output_that_nobody_reads(runtime: ContainerRuntime) -> None:
    with trio.fail_after(60):
        async with runtime.open_sandbox(SPEC) as sandbox:
            flood = await sandbox.start(exec_request("yes"))
            await flood.receive(Channel.OUTPUT, PIECE)
            flood.send_signal("KILL")
            assert await flood.wait() == ExitStatus(signal="KILL")


async def test_orphans_are_removed_by_their_label(
    runtime: ContainerRuntime, engine: TestEngine
) -> None:
    address = EngineAddress.parse(f"unix://{engine.socket}")
    other = ContainerRuntime(address, image=IMAGE, server="other", grace=0.2)
    with trio.fail_after(60):
        async with runtime.open_sandbox(SandboxSpec("alive")) as alive:
            async with runtime.open_sandbox(SandboxSpec("orphan")) as orphan:
                sleeper = await orphan.start(exec_request("sleep", "1000"))
                async with other.open_sandbox(SandboxSpec("stranger")) as stranger:
                    assert await runtime.remove_orphans({"alive"}) == ("orphan",)
                    assert await output_of(stranger, "echo there") == "there\n"
                assert await sleeper.wait() == ExitStatus(signal="KILL")
                with pytest.raises(StartError):
                    await orphan.start(exec_request("true"))
            assert await output_of(alive, "echo there") == "there\n"
            assert await runtime.remove_orphans({"alive"}) == ()


async def test_no_image(runtime: ContainerRuntime) -> None:
    with pytest.raises(SandboxError, match="podman pull localhost/none:1"):
        async with runtime.open_sandbox(SandboxSpec("s", image="localhost/none:1")):
            pytest.fail("it opened")


async def test_a_start_that_fails_leaves_nothing(runtime: ContainerRuntime) -> None:
    for spec in (
        SandboxSpec("s", mounts=(Mount("/proc/no/such", "/x"),)),
        SandboxSpec("s", directory="/dev/null"),
    ):
        with pytest.raises(SandboxError):
            async with runtime.open_sandbox(spec):
                pytest.fail("it opened")


async def test_a_cancelled_start_leaves_nothing(runtime: ContainerRuntime) -> None:
    for delay in (0.05, 0.2, 0.4):
        with trio.move_on_after(delay):
            async with runtime.open_sandbox(SPEC):
                await trio.sleep_forever()


async def test_a_port_on_a_network_is_reached_too(runtime: ContainerRuntime) -> None:
    with trio.fail_after(60):
        spec = SandboxSpec("net", network=Network.FULL)
        try:
            async with runtime.open_sandbox(spec) as sandbox:
                script = "nc -ll -p 7007 -e cat & until grep -q :1B5F /proc/net/tcp*; do :; done"
                server = await sandbox.start(exec_request("sh", "-c", f"{script}; echo up; wait"))
                await read_until(server, b"up")
                request = StartRequest(Kind.TCP, socket=SocketTarget(7007))
                connection = await sandbox.start(request)
                await connection.send(b"hello")
                assert await connection.receive(Channel.OUTPUT, PIECE) == b"hello"
        except SandboxError as error:
            pytest.skip(f"no bridge network can be had here: {error}")


async def test_over_tls(engine: TestEngine) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)

    async def forward(plain: trio.SocketStream) -> None:
        outside = trio.SSLStream(plain, server, server_side=True, https_compatible=True)
        inside = await trio.open_unix_socket(engine.socket)

        async def up() -> None:
            async for data in outside:
                await inside.send_all(data)
            await inside.send_eof()

        try:
            async with inside, trio.open_nursery() as nursery:
                nursery.start_soon(up)
                async for data in inside:
                    await outside.send_all(data)
                await outside.aclose()
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    with trio.fail_after(60):
        async with open_server(forward) as target:
            address = EngineAddress.parse(f"tcp://127.0.0.1:{target.port}", client)
            runtime = ContainerRuntime(address, image=IMAGE, grace=0.2)
            async with runtime.open_sandbox(SPEC) as sandbox:
                command = await sandbox.start(exec_request("sh", "-c", "cat; echo done; exit 4"))
                await command.send(b"through TLS ")
                await command.send_eof()
                assert await read_all(command) == b"through TLS done\n"
                assert await command.wait() == ExitStatus(code=4)
    assert engine.containers() == []


async def test_nothing_of_ours_is_left_open(runtime: ContainerRuntime) -> None:
    async def once() -> None:
        async with runtime.open_sandbox(SPEC) as sandbox:
            await sandbox.start(pty_request("cat"))
            await sandbox.start(exec_request("sleep", "1000"))

    with trio.fail_after(60):
        await once()
        before = len(os.listdir("/proc/self/fd"))
        await once()
        assert len(os.listdir("/proc/self/fd")) <= before
