"""A selection of the contracts, and of what only containers do, against a real dockerd.

All of this directory passes with it: name it in the fixture ``engine`` to run it so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from relay.endpoint import Channel, ExitStatus, Kind, SocketTarget, StartRequest
from runtimes.base import Mount, ResourceLimits, Sandbox, SandboxError, SandboxSpec
from runtimes.container import ContainerRuntime
from tests.contracts.files_contract import FilesContract
from tests.contracts.runtime_bytes import BytesContract
from tests.contracts.runtime_scenarios import PIECE, exec_request, read_all, read_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("engine", ["dockerd"], indirect=True),
]


@asynccontextmanager
async def opened(
    runtime: ContainerRuntime, spec: SandboxSpec | None = None
) -> AsyncIterator[Sandbox]:
    with trio.fail_after(60):
        async with runtime.open_sandbox(spec or SandboxSpec("s")) as sandbox:
            yield sandbox


class TestDockerd:
    """The tests of the contract by which engines differ most."""

    open = staticmethod(opened)
    test_half_close = BytesContract.test_half_close
    test_send_pushes_back = BytesContract.test_send_pushes_back
    test_a_blocked_send_ends_with_the_process = (
        BytesContract.test_a_blocked_send_ends_with_the_process
    )
    test_a_terminal_has_no_end_of_input = BytesContract.test_a_terminal_has_no_end_of_input


async def test_errors_are_apart_and_exit_codes_arrive(runtime: ContainerRuntime) -> None:
    async with opened(runtime) as sandbox:
        command = await sandbox.start(exec_request("sh", "-c", "echo out; echo err >&2; exit 7"))
        assert await read_all(command) == b"out\n"
        assert await read_all(command, Channel.ERROR) == b"err\n"
        assert await command.wait() == ExitStatus(code=7)


async def test_a_port(runtime: ContainerRuntime) -> None:
    async with opened(runtime) as sandbox:
        script = "nc -ll -p 7007 -e cat & until grep -q :1B5F /proc/net/tcp*; do :; done"
        server = await sandbox.start(exec_request("sh", "-c", f"{script}; echo up; wait"))
        await read_until(server, b"up")
        port = await sandbox.start(StartRequest(Kind.TCP, socket=SocketTarget(7007)))
        await port.send(b"hello")
        assert await port.receive(Channel.OUTPUT, PIECE) == b"hello"
        await port.send_eof()
        assert await port.receive(Channel.OUTPUT, PIECE) == b""


class TestFiles:
    """Files are done by programs inside, so one test stands for them."""

    @pytest.fixture
    def runtime(self, busybox_runtime: ContainerRuntime) -> ContainerRuntime:
        return busybox_runtime

    open = staticmethod(opened)
    test_moving = FilesContract.test_moving


async def test_pause_limits_and_mounts(runtime: ContainerRuntime) -> None:
    spec = SandboxSpec("s", limits=ResourceLimits(memory_bytes=64 << 20, processes=30, cpus=0.5))
    async with opened(runtime, spec) as sandbox:
        greedy = await sandbox.start(exec_request("sh", "-c", "tail -c 200000000 /dev/zero"))
        assert await greedy.wait() == ExitStatus(signal="KILL")
        await sandbox.pause()
        await sandbox.resume()
        assert await read_all(await sandbox.start(exec_request("echo", "on"))) == b"on\n"
    with pytest.raises(SandboxError, match="/proc/no/such"):
        async with opened(runtime, SandboxSpec("s", mounts=(Mount("/proc/no/such", "/x"),))):
            pytest.fail("it opened")
