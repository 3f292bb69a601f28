"""What every runtime must do: the sentences of `relay.endpoint` and `runtimes.base`, as tests.

A back-end's test module subclasses the three classes and gives them a `runtime` fixture::

    class TestLocal(RuntimeContract, BytesContract, LifeContract):
        @pytest.fixture
        def runtime(self) -> Runtime:
            return LocalRuntime(grace=0.2, linger=0.2)

The runtime must have a grace period well under a second.  The commands are those that any POSIX
system has, in the subset of them that the fake runtime knows.
"""

from __future__ import annotations

import pytest
import trio

from relay.endpoint import Channel, ExitStatus, Kind, Overflow, StartError, StartRequest
from runtimes.base import Runtime, SandboxError, SandboxSpec, SandboxStatistics
from tests.contracts.runtime_bytes import BytesContract
from tests.contracts.runtime_life import LifeContract
from tests.contracts.runtime_scenarios import (
    PIECE,
    STUBBORN,
    ContractBase,
    exec_request,
    pty_request,
    read_all,
    read_until,
)

__all__ = ["BytesContract", "LifeContract", "RuntimeContract"]


class RuntimeContract(ContractBase):
    """Runtimes and sandboxes: what is started, where, and with what."""

    async def test_a_sandbox_counts_its_endpoints(self, runtime: Runtime) -> None:
        assert runtime.name
        async with self.open(runtime) as sandbox:
            assert sandbox.statistics() == SandboxStatistics(0, 0)
            first = await sandbox.start(exec_request("cat"))
            second = await sandbox.start(pty_request("cat"))
            assert sandbox.statistics() == SandboxStatistics(2, 2)
            await first.aclose()
            assert sandbox.statistics() == SandboxStatistics(1, 2)
            await second.aclose()
        assert sandbox.statistics() == SandboxStatistics(0, 2)

    async def test_leaving_the_block_ends_everything(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            requests = (exec_request("cat"), pty_request("cat"), exec_request(*STUBBORN))
            endpoints = [await sandbox.start(request) for request in requests]
        for endpoint in endpoints:
            await endpoint.wait()
            with pytest.raises(trio.ClosedResourceError):
                await endpoint.receive(Channel.OUTPUT, 1)

    async def test_a_cancelled_block_ends_everything(self, runtime: Runtime) -> None:
        endpoints = []
        with trio.CancelScope() as scope:
            async with self.open(runtime) as sandbox:
                endpoints.append(await sandbox.start(exec_request(*STUBBORN)))
                endpoints.append(await sandbox.start(pty_request("cat")))
                await read_until(endpoints[0], b"ready")
                scope.cancel()
        assert sandbox.statistics().endpoints_open == 0
        assert await endpoints[0].wait() == ExitStatus(signal="KILL")
        await endpoints[1].wait()

    async def test_an_error_in_the_block_comes_out_as_it_is(self, runtime: Runtime) -> None:
        async def body() -> None:
            async with self.open(runtime) as sandbox:
                await sandbox.start(exec_request("cat"))
                raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            await body()

    async def test_nothing_starts_after_the_block(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            pass
        with pytest.raises(StartError, match="ending"):
            await sandbox.start(exec_request("true"))

    async def test_sandboxes_are_apart(self, runtime: Runtime) -> None:
        async with self.open(runtime, SandboxSpec("one")) as one:
            process = await one.start(exec_request("cat"))
            async with self.open(runtime, SandboxSpec("two")) as two:
                await two.start(exec_request("cat"))
            await process.send(b"still here")
            assert await process.receive(Channel.OUTPUT, PIECE) == b"still here"

    async def test_a_sandbox_in_a_bad_directory(self, runtime: Runtime) -> None:
        with pytest.raises(SandboxError, match="/no/such/place"):
            async with self.open(runtime, SandboxSpec("s", directory="/no/such/place")):
                pytest.fail("it opened")

    async def test_command_not_found(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            for kind in (Kind.EXEC, Kind.PTY):
                with pytest.raises(StartError, match="no-such-command: command not found"):
                    await sandbox.start(StartRequest(kind, ("no-such-command",)))
            assert sandbox.statistics().endpoints_open == 0

    async def test_bad_directory(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            for kind in (Kind.EXEC, Kind.PTY):
                with pytest.raises(StartError, match="/no/such/place does not exist"):
                    await sandbox.start(StartRequest(kind, ("pwd",), directory="/no/such/place"))
                with pytest.raises(StartError, match="/dev/null is not a directory"):
                    await sandbox.start(StartRequest(kind, ("pwd",), directory="/dev/null"))

    async def test_a_kind_it_does_not_have(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            with pytest.raises(StartError, match="vnc"):
                await sandbox.start(StartRequest(Kind.VNC))

    async def test_the_directory(self, runtime: Runtime) -> None:
        async with self.open(runtime, SandboxSpec("s", directory="/tmp")) as sandbox:
            default = await sandbox.start(exec_request("pwd"))
            assert await read_all(default) == b"/tmp\n"
            chosen = await sandbox.start(StartRequest(Kind.EXEC, ("pwd",), directory="/"))
            assert await read_all(chosen) == b"/\n"

    async def test_the_environment(self, runtime: Runtime) -> None:
        spec = SandboxSpec("the-id", environment={"A": "spec", "B": "spec", "TERM": "vt52"})
        added = {"B": "request", "TRUNKLINE_SESSION": "forged"}
        expected = {"A": "spec", "B": "request", "TERM": "vt52", "TRUNKLINE_SESSION": "the-id"}
        async with self.open(runtime, spec) as sandbox:
            for kind in (Kind.EXEC, Kind.PTY):
                for name, value in expected.items():
                    request = StartRequest(kind, ("printenv", name), environment=added)
                    endpoint = await sandbox.start(request)
                    assert (await read_all(endpoint)).split() == [value.encode()]
                    await endpoint.aclose()

    async def test_an_empty_command_is_the_shell(self, runtime: Runtime) -> None:
        spec = SandboxSpec("s", shell=("sh", "-c", "echo the shell of the sandbox"))
        async with self.open(runtime, spec) as sandbox:
            for kind in (Kind.EXEC, Kind.PTY):
                endpoint = await sandbox.start(StartRequest(kind))
                assert (await read_all(endpoint)).split() == b"the shell of the sandbox".split()

    async def test_without_one_it_is_the_login_shell(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            terminal = await sandbox.start(pty_request())
            await terminal.send(b"echo by''e; exit 5\n")
            await read_until(terminal, b"bye\r\n")
            assert await terminal.wait() == ExitStatus(code=5)
            command = await sandbox.start(exec_request())
            await command.send(b"echo by pipe\nexit 6\n")
            assert await read_all(command) == b"by pipe\n"
            assert await command.wait() == ExitStatus(code=6)

    async def test_overflow_is_not_for_the_runtime(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            request = StartRequest(Kind.EXEC, ("echo", "x"), overflow=Overflow.DROP_OLDEST)
            assert await read_all(await sandbox.start(request)) == b"x\n"
