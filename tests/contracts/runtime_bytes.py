"""The part of the runtime contract about bytes; see `tests.contracts.runtime_contract`."""

from __future__ import annotations

import hashlib
import random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from relay.endpoint import Channel, ExitStatus, Kind, StartRequest
from runtimes.base import Runtime
from tests.contracts.runtime_scenarios import (
    PIECE,
    ContractBase,
    exec_request,
    fill_input,
    pty_request,
    read_all,
    read_until,
)


class BytesContract(ContractBase):
    """Receiving and sending: nothing lost, nothing held up, everything bounded."""

    flood_piece = 4096
    """What the pieces of a flood are larger than, on average, in bytes."""

    async def test_channels_are_apart(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            script = "echo out; echo err >&2; exit 3"
            command = await sandbox.start(exec_request("sh", "-c", script))
            assert await read_all(command, Channel.OUTPUT) == b"out\n"
            assert await read_all(command, Channel.ERROR) == b"err\n"
            assert await command.wait() == ExitStatus(code=3)
            terminal = await sandbox.start(pty_request("sh", "-c", script))
            assert await read_all(terminal) == b"out\r\nerr\r\n"
            assert await terminal.wait() == ExitStatus(code=3)

    async def test_a_channel_that_is_not_there(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            terminal = await sandbox.start(pty_request("cat"))
            command = await sandbox.start(exec_request("cat"))
            for endpoint, channel in ((terminal, Channel.ERROR), (command, Channel.INPUT)):
                with pytest.raises(ValueError, match="no output channel"):
                    await endpoint.receive(channel, 1)
            with pytest.raises(ValueError, match="max_bytes"):
                await command.receive(Channel.OUTPUT, 0)

    async def test_receive_returns_at_most_what_was_asked_for(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            command = await sandbox.start(exec_request("echo", "abcdefg"))
            seen = []
            while piece := await command.receive(Channel.OUTPUT, 3):
                assert len(piece) <= 3
                seen.append(bytes(piece))
            assert b"".join(seen) == b"abcdefg\n"
            assert await command.receive(Channel.OUTPUT, 3) == b""  # and stays so

    async def test_receive_does_not_wait_for_more(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            command = await sandbox.start(exec_request("sh", "-c", "echo now; sleep 1000"))
            assert await command.receive(Channel.OUTPUT, PIECE) == b"now\n"

    async def test_a_flood_arrives_in_large_pieces(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            for kind in (Kind.EXEC, Kind.PTY):
                flood = await sandbox.start(StartRequest(kind, ("yes",)))
                sizes = []
                for _ in range(200):
                    sizes.append(len(await flood.receive(Channel.OUTPUT, 4 * PIECE)))
                    await trio.lowlevel.checkpoint()
                assert sum(sizes) / len(sizes) > self.flood_piece
                await flood.aclose()

    async def test_a_flood_starves_nobody(self, runtime: Runtime) -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with self.open(runtime) as sandbox, trio.open_nursery() as nursery:
            flood = await sandbox.start(exec_request("yes"))
            nursery.start_soon(count)
            received = 0
            while received < 32 * 1024 * 1024:
                received += len(await flood.receive(Channel.OUTPUT, PIECE))
            assert turns >= 32
            nursery.cancel_scope.cancel()

    async def test_output_before_the_end_is_never_lost(self, runtime: Runtime) -> None:
        expected = b"".join(b"%d\n" % n for n in range(1, 2001))
        async with self.open(runtime) as sandbox:
            for kind, wanted in (
                (Kind.EXEC, expected),
                (Kind.PTY, expected.replace(b"\n", b"\r\n")),
            ):
                for _ in range(50):
                    endpoint = await sandbox.start(StartRequest(kind, ("seq", "1", "2000")))
                    assert await read_all(endpoint) == wanted
                    assert await endpoint.wait() == ExitStatus(code=0)
                    await endpoint.aclose()

    async def test_output_waits_for_a_late_reader(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            for kind in (Kind.EXEC, Kind.PTY):
                endpoint = await sandbox.start(StartRequest(kind, ("echo", "last words")))
                assert await endpoint.wait() == ExitStatus(code=0)
                assert (await read_all(endpoint)).rstrip() == b"last words"

    async def test_cancelled_receives_lose_nothing(self, runtime: Runtime) -> None:
        rng = random.Random(7)
        expected = b"".join(b"%d\n" % n for n in range(1, 200_001))
        seen = []
        cancelled = 0
        async with self.open(runtime) as sandbox:
            command = await sandbox.start(exec_request("seq", "1", "200000"))
            while True:
                piece = None
                with trio.CancelScope() as scope:
                    match rng.randrange(4):
                        case 0:
                            scope.cancel()
                        case 1:
                            scope.deadline = trio.current_time() + rng.random() / 1000
                    piece = await command.receive(Channel.OUTPUT, rng.randrange(1, 9000))
                if piece is None:
                    cancelled += 1
                elif piece:
                    seen.append(bytes(piece))
                else:
                    break
        assert b"".join(seen) == expected
        assert cancelled > 10

    async def test_a_megabyte_through_cat_is_the_same(self, runtime: Runtime) -> None:
        data = random.Random(1).randbytes(1024 * 1024)
        async with self.open(runtime) as sandbox, trio.open_nursery() as nursery:
            command = await sandbox.start(exec_request("cat"))

            async def feed() -> None:
                await command.send(memoryview(bytearray(data)))
                await command.send_eof()

            nursery.start_soon(feed)
            digest = hashlib.sha256(await read_all(command)).hexdigest()
            assert digest == hashlib.sha256(data).hexdigest()
            assert await command.wait() == ExitStatus(code=0)

    async def test_half_close(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            command = await sandbox.start(exec_request("cat"))
            await command.send(b"to the end")
            await command.send_eof()
            await command.send_eof()
            with pytest.raises(trio.ClosedResourceError):
                await command.send(b"more")
            assert await read_all(command) == b"to the end"
            assert await command.wait() == ExitStatus(code=0)

    async def test_a_terminal_has_no_end_of_input(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            terminal = await sandbox.start(pty_request("cat"))
            await terminal.send_eof()
            await terminal.send(b"on\n")
            await read_until(terminal, b"on\r\non\r\n")
            await terminal.send(b"\x04")
            assert await terminal.wait() == ExitStatus(code=0)

    async def test_send_pushes_back(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            for kind in (Kind.EXEC, Kind.PTY):
                script = "stty raw -echo; echo ready; sleep 1000"
                command = ("sh", "-c", script) if kind is Kind.PTY else ("sleep", "1000")
                endpoint = await sandbox.start(StartRequest(kind, command))
                if kind is Kind.PTY:
                    await read_until(endpoint, b"ready")
                await fill_input(endpoint)
                with trio.move_on_after(0.05) as scope:
                    await endpoint.send(bytes(4 * PIECE))
                assert scope.cancelled_caught
                await endpoint.aclose()

    async def test_send_where_nobody_reads(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            deaf = await sandbox.start(
                exec_request("sh", "-c", "exec <&-; echo ready; sleep 1000; echo not yet")
            )
            await read_until(deaf, b"ready\n")
            with pytest.raises(trio.BrokenResourceError):
                await deaf.send(b"hello")
            for kind in (Kind.EXEC, Kind.PTY):
                ended = await sandbox.start(StartRequest(kind, ("true",)))
                await ended.wait()
                with pytest.raises(trio.BrokenResourceError):
                    await ended.send(b"hello")
                assert await read_all(ended) == b""

    async def test_a_blocked_send_ends_with_the_process(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox, trio.open_nursery() as nursery:
            command = await sandbox.start(exec_request("sleep", "1000"))

            async def flood() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await command.send(bytes(64 * PIECE))

            nursery.start_soon(flood)
            await wait_all_tasks_blocked(0.01)
            command.send_signal("KILL")
