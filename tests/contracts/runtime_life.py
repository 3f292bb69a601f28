"""The part of the runtime contract about size, signals and the end of an endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from relay.endpoint import Channel, Endpoint, ExitStatus, Kind, StartRequest, TerminalSize
from runtimes.base import Runtime, SandboxStatistics
from tests.contracts.runtime_scenarios import (
    PIECE,
    STUBBORN,
    ContractBase,
    exec_request,
    pty_request,
    read_all,
    read_until,
    send_for_ever,
)


class LifeContract(ContractBase):
    """Size, signals, exit status and close."""

    async def test_pids(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            one = await sandbox.start(exec_request("cat"))
            two = await sandbox.start(pty_request("cat"))
            assert one.pid != two.pid
            assert None not in (one.pid, two.pid)

    async def test_resize(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            size = TerminalSize(columns=101, rows=33)
            terminal = await sandbox.start(StartRequest(Kind.PTY, ("stty", "size"), size=size))
            assert await read_all(terminal) == b"33 101\r\n"
            terminal.resize(size)  # it has ended: nothing happens
            shell = await sandbox.start(pty_request("sh"))
            shell.resize(TerminalSize(columns=222, rows=44))
            await shell.send(b"stty size\n")
            await read_until(shell, b"44 222\r\n")
            command = await sandbox.start(exec_request("cat"))
            command.resize(size)  # no terminal: nothing happens

    async def test_exit_codes_and_any_number_of_waiters(self, runtime: Runtime) -> None:
        statuses: list[ExitStatus] = []
        async with self.open(runtime) as sandbox:
            command = await sandbox.start(exec_request("sh", "-c", "cat; exit 255"))

            async def wait() -> None:
                statuses.append(await command.wait())

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(wait)
                with trio.move_on_after(0.01) as scope:  # cancelling one disturbs no other
                    await command.wait()
                assert scope.cancelled_caught
                await command.send_eof()
            assert statuses == [ExitStatus(code=255)] * 3
            assert await command.wait() == ExitStatus(code=255)
            await command.aclose()
            assert await command.wait() == ExitStatus(code=255)

    async def test_signals(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            for name in ("KILL", "TERM", "INT", "HUP", "USR1"):
                command = await sandbox.start(exec_request("sleep", "1000"))
                command.send_signal(name)
                assert await command.wait() == ExitStatus(signal=name)
                command.send_signal(name)  # it has ended: nothing happens
                await command.aclose()
                command.send_signal(name)

    async def test_a_signal_that_does_not_exist(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            command = await sandbox.start(exec_request("cat"))
            for name in ("NONSENSE", "", "SIGTERM", "15"):
                with pytest.raises(ValueError, match="no signal"):
                    command.send_signal(name)
            await command.send(b"unharmed")
            assert await command.receive(Channel.OUTPUT, PIECE) == b"unharmed"

    async def test_a_signal_goes_to_the_foreground_of_a_terminal(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            request = StartRequest(Kind.PTY, ("sh",), environment={"PS1": "ready> "})
            shell = await sandbox.start(request)
            for interrupt in ("key", "signal"):
                await shell.send(b"cat\nhello\n")
                await read_until(shell, b"hello\r\n", times=2)  # the echo, and from `cat`
                if interrupt == "key":
                    await shell.send(b"\x03")
                else:
                    shell.send_signal("INT")
                await read_until(shell, b"ready> ")
            await shell.send(b"exit 9\n")
            assert await shell.wait() == ExitStatus(code=9)

    async def test_close_is_idempotent_and_shared(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            command = await sandbox.start(exec_request(*STUBBORN))
            await read_until(command, b"ready\n")
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(command.aclose)
            await command.aclose()
            assert sandbox.statistics() == SandboxStatistics(0, 1)
            assert await command.wait() == ExitStatus(signal="KILL")

    async def test_a_stubborn_process_is_killed_after_the_grace(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            for kind in (Kind.EXEC, Kind.PTY):
                endpoint = await sandbox.start(StartRequest(kind, STUBBORN))
                await read_until(endpoint, b"ready")
                with trio.fail_after(10):
                    await endpoint.aclose()
                assert await endpoint.wait() == ExitStatus(signal="KILL")

    async def test_a_cancelled_close_still_closes(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            endpoint = await sandbox.start(exec_request(*STUBBORN))
            await read_until(endpoint, b"ready")
            with trio.CancelScope() as scope:
                scope.cancel()
                await endpoint.aclose()
            assert scope.cancelled_caught
            assert sandbox.statistics().endpoints_open == 0
            assert await endpoint.wait() == ExitStatus(signal="KILL")

    async def test_close_wakes_everybody(self, runtime: Runtime) -> None:
        async def expect_closed(call: Callable[[Endpoint], Awaitable[object]]) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await call(endpoint)

        async with self.open(runtime) as sandbox:
            for kind in (Kind.EXEC, Kind.PTY):
                # In raw mode, because a terminal in line mode swallows input without end.
                script = "stty raw -echo; echo ready; sleep 1000"
                if kind is Kind.EXEC:
                    script = "echo ready; sleep 1000"
                endpoint = await sandbox.start(StartRequest(kind, ("sh", "-c", script)))
                await read_until(endpoint, b"ready")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(expect_closed, read_all)
                    nursery.start_soon(expect_closed, send_for_ever)
                    nursery.start_soon(endpoint.wait)
                    await wait_all_tasks_blocked(0.05)
                    await endpoint.aclose()
                await expect_closed(read_all)
                await expect_closed(send_for_ever)
                endpoint.resize(TerminalSize())
                await endpoint.send_eof()

    async def test_every_call_is_a_checkpoint(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            command = await sandbox.start(exec_request("cat"))
            await command.send(b"hello")
            with trio.CancelScope() as scope:
                scope.cancel()
                await command.receive(Channel.OUTPUT, PIECE)
            assert scope.cancelled_caught
            assert await command.receive(Channel.OUTPUT, PIECE) == b"hello"
            for call in (
                lambda: command.send(b"x"),
                command.send_eof,
                command.wait,
                lambda: sandbox.start(exec_request("cat")),
            ):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await call()
                assert scope.cancelled_caught
            assert sandbox.statistics() == SandboxStatistics(1, 1)

    async def test_start_and_close_many_times(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            for turn in range(200):
                kind = Kind.PTY if turn % 2 else Kind.EXEC
                endpoint = await sandbox.start(StartRequest(kind, ("cat",)))
                await endpoint.aclose()
            assert sandbox.statistics() == SandboxStatistics(0, 200)
