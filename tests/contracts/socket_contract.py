"""What every runtime must do with streams of kind `tcp` and `vnc`.

The test module subclasses `SocketContract` and gives it a `runtime`, and `echo`: an open sandbox with
the target of a server in it that sends back what it gets, until that ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from relay.endpoint import (
    Channel,
    Endpoint,
    ExitStatus,
    Kind,
    SocketTarget,
    StartError,
    StartRequest,
    TerminalSize,
)
from runtimes.base import Runtime, Sandbox
from tests.contracts.runtime_scenarios import (
    PIECE,
    ContractBase,
    fill_input,
    read_all,
    send_for_ever,
)

SIZE = 5_000_000
HELD_BACK_SECONDS = 0.3
"""After so long without progress a sender counts as held back."""
KERNEL_BUFFERS = 64 * 1024 * 1024
"""Far more bytes than the buffers between two sockets take."""


class SocketContract(ContractBase):
    """One direction at a time, both at once, and every way to end."""

    kind = Kind.TCP

    def echo(self, runtime: Runtime) -> AbstractAsyncContextManager[tuple[Sandbox, SocketTarget]]:
        raise NotImplementedError("a subclass says where the echo server is")

    @asynccontextmanager
    async def connected(self, runtime: Runtime) -> AsyncIterator[Endpoint]:
        async with self.echo(runtime) as (sandbox, target):
            endpoint = await sandbox.start(StartRequest(self.kind, socket=target))
            assert sandbox.statistics().endpoints_open == 1
            yield endpoint
            await endpoint.aclose()
            assert sandbox.statistics().endpoints_open == 0

    async def test_bytes_go_both_ways_and_each_direction_ends_by_itself(
        self, runtime: Runtime
    ) -> None:
        async with self.connected(runtime) as endpoint:
            assert endpoint.pid is None
            await endpoint.send(b"hello")
            assert await endpoint.receive(Channel.OUTPUT, PIECE) == b"hello"
            await endpoint.send(b"\x00\xff last")
            await endpoint.send_eof()
            await endpoint.send_eof()
            assert await read_all(endpoint) == b"\x00\xff last"
            assert await endpoint.wait() == ExitStatus(code=0)
            assert await endpoint.receive(Channel.OUTPUT, PIECE) == b""

    async def test_much_goes_through_whole(self, runtime: Runtime) -> None:
        data = hashlib.shake_128(b"seed").digest(SIZE)
        async with self.connected(runtime) as endpoint, trio.open_nursery() as nursery:

            async def feed() -> None:
                for start in range(0, SIZE, 300_000):
                    await endpoint.send(memoryview(data)[start : start + 300_000])
                await endpoint.send_eof()

            nursery.start_soon(feed)
            assert await read_all(endpoint) == data

    async def test_who_does_not_read_is_held_back(self, runtime: Runtime) -> None:
        async with self.connected(runtime) as endpoint:
            taken = 0
            with trio.move_on_after(HELD_BACK_SECONDS) as scope:
                while True:
                    await endpoint.send(bytes(PIECE))
                    taken += PIECE
                    scope.deadline = trio.current_time() + HELD_BACK_SECONDS
                    assert taken < KERNEL_BUFFERS
            assert scope.cancelled_caught
            async with trio.open_nursery() as nursery:

                async def drain() -> None:
                    while await endpoint.receive(Channel.OUTPUT, PIECE):
                        pass

                nursery.start_soon(drain)
                await endpoint.send(b"goes now")
                nursery.cancel_scope.cancel()

    async def test_a_cancelled_receive_loses_nothing(self, runtime: Runtime) -> None:
        async with self.connected(runtime) as endpoint:
            with trio.CancelScope() as scope:
                scope.cancel()
                await endpoint.receive(Channel.OUTPUT, 1)
            await endpoint.send(b"abc")
            assert await endpoint.receive(Channel.OUTPUT, 1) == b"a"
            with trio.CancelScope() as scope:
                scope.cancel()
                await endpoint.receive(Channel.OUTPUT, 1)
            assert await endpoint.receive(Channel.OUTPUT, 1) == b"b"
            assert await endpoint.receive(Channel.OUTPUT, 1) == b"c"

    async def test_nobody_sends_after_the_end(self, runtime: Runtime) -> None:
        async with self.connected(runtime) as endpoint:
            await endpoint.send_eof()
            with pytest.raises(trio.ClosedResourceError):
                await endpoint.send(b"more")

    async def test_there_is_one_output(self, runtime: Runtime) -> None:
        async with self.connected(runtime) as endpoint:
            for channel in (Channel.ERROR, Channel.INPUT):
                with pytest.raises(ValueError, match="no output channel"):
                    await endpoint.receive(channel, 1)
            with pytest.raises(ValueError, match="at least 1"):
                await endpoint.receive(Channel.OUTPUT, 0)

    async def test_closing_wakes_everybody(self, runtime: Runtime) -> None:
        async with self.connected(runtime) as endpoint:
            await fill_input(endpoint)

            async def send() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await send_for_ever(endpoint)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                nursery.start_soon(endpoint.wait)
                await trio.testing.wait_all_tasks_blocked(0.01)
                await endpoint.aclose()
            await endpoint.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await endpoint.receive(Channel.OUTPUT, 1)
            with pytest.raises(trio.ClosedResourceError):
                await endpoint.send(b"x")

    async def test_a_reader_is_woken_too(self, runtime: Runtime) -> None:
        async with self.connected(runtime) as endpoint, trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await endpoint.receive(Channel.OUTPUT, 1)

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await endpoint.aclose()

    @pytest.mark.parametrize("name", ["HUP", "TERM", "INT", "KILL"])
    async def test_a_signal_ends_it(self, runtime: Runtime, name: str) -> None:
        async with self.connected(runtime) as endpoint, trio.open_nursery() as nursery:
            ends: list[bytes] = []

            async def receive() -> None:
                ends.append(bytes(await endpoint.receive(Channel.OUTPUT, 1)))

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked(0.01)
            endpoint.send_signal(name)
            endpoint.send_signal(name)
            assert await endpoint.wait() == ExitStatus(signal=name)
            with pytest.raises(trio.BrokenResourceError):
                await endpoint.send(b"x")
            assert await endpoint.receive(Channel.OUTPUT, 1) == b""
        assert ends == [b""]

    async def test_other_signals_and_sizes_mean_nothing(self, runtime: Runtime) -> None:
        async with self.connected(runtime) as endpoint:
            endpoint.send_signal("WINCH")
            endpoint.send_signal("CHLD")
            endpoint.resize(TerminalSize(10, 10))
            with pytest.raises(ValueError, match="NOSUCH"):
                endpoint.send_signal("NOSUCH")
            await endpoint.send(b"still here")
            assert await endpoint.receive(Channel.OUTPUT, PIECE) == b"still here"

    async def test_nobody_listens(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            with pytest.raises(StartError, match="port 1: connection refused"):
                await sandbox.start(StartRequest(self.kind, socket=SocketTarget(1)))
            with pytest.raises(StartError, match="needs a port or a path"):
                await sandbox.start(StartRequest(self.kind))
            target = SocketTarget(path="/nowhere/socket")
            with pytest.raises(StartError, match="/nowhere/socket"):
                await sandbox.start(StartRequest(self.kind, socket=target))
            assert sandbox.statistics().endpoints_started == 0

    async def test_the_sandbox_ends_what_is_open(self, runtime: Runtime) -> None:
        async with self.echo(runtime) as (sandbox, target):
            endpoint = await sandbox.start(StartRequest(self.kind, socket=target))
            opened = sandbox
        assert opened.statistics().endpoints_open == 0
        await endpoint.wait()
        with pytest.raises(trio.ClosedResourceError):
            await endpoint.receive(Channel.OUTPUT, 1)
