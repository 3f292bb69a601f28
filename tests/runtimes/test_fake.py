"""The fake runtime: time that is mocked, a terminal, a shell, and bounds."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.endpoint import Channel, Endpoint, ExitStatus, Kind, StartError, StartRequest
from runtimes.base import Runtime, SandboxSpec
from runtimes.fake import FakeRuntime
from runtimes.fake.shell import DEFAULT_PROMPT
from runtimes.fake.streams import BUFFER_BYTES, Streams

SPEC = SandboxSpec("fake")
PROMPT = DEFAULT_PROMPT.encode()


@pytest.fixture
def runtime() -> Runtime:
    return FakeRuntime()


async def read_all(endpoint: Endpoint, channel: Channel = Channel.OUTPUT) -> bytes:
    pieces = []
    while piece := await endpoint.receive(channel, 65536):
        pieces.append(bytes(piece))
    return b"".join(pieces)


async def dialogue(endpoint: Endpoint, typed: bytes) -> bytes:
    """Type, and return all that is shown until everything stands still."""
    shown = bytearray()
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            while piece := await endpoint.receive(Channel.OUTPUT, 65536):
                shown.extend(piece)

        nursery.start_soon(watch)
        await endpoint.send(typed)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return bytes(shown)


async def test_it_is_isolated(runtime: Runtime) -> None:
    assert runtime.isolated
    assert runtime.name == "fake"


async def test_sleep_goes_by_the_mocked_clock(runtime: Runtime, autojump_clock: MockClock) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        endpoint = await sandbox.start(StartRequest(Kind.EXEC, ("sh", "-c", "sleep 3600; echo up")))
        start = trio.current_time()
        assert await read_all(endpoint) == b"up\n"
        assert trio.current_time() - start == 3600
        assert await endpoint.wait() == ExitStatus(code=0)


async def test_waiting_alone_is_enough(runtime: Runtime, autojump_clock: MockClock) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        endpoint = await sandbox.start(StartRequest(Kind.EXEC, ("sleep", "0.5")))
        assert await endpoint.wait() == ExitStatus(code=0)


async def test_the_grace_goes_by_the_mocked_clock(
    runtime: Runtime, autojump_clock: MockClock
) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        script = "trap '' TERM; sleep 1; sleep 1; echo so far; sleep 9"
        endpoint = await sandbox.start(StartRequest(Kind.EXEC, ("sh", "-c", script)))
        start = trio.current_time()
        await endpoint.aclose()
        assert trio.current_time() - start == 2
        assert await endpoint.wait() == ExitStatus(signal="KILL")


async def test_a_program_may_end_within_the_grace(
    runtime: Runtime, autojump_clock: MockClock
) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        script = "trap '' TERM; sleep 0.5; sleep 0.5; exit 3"
        endpoint = await sandbox.start(StartRequest(Kind.EXEC, ("sh", "-c", script)))
        start = trio.current_time()
        await endpoint.aclose()
        assert trio.current_time() - start == 1
        assert await endpoint.wait() == ExitStatus(code=3)


async def test_a_dialogue_with_the_shell(runtime: Runtime) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        shell = await sandbox.start(StartRequest(Kind.PTY))
        assert await dialogue(shell, b"") == PROMPT
        # One key erases the two bytes of é.
        assert await dialogue(shell, b"echo h\xc3\xa9\x7fi\r") == (
            b"echo h\xc3\xa9\b \bi\r\nhi\r\n" + PROMPT
        )
        assert await dialogue(shell, b"\x7f\x08") == b""  # there is nothing to erase
        assert await dialogue(shell, b"half a li\x03") == b"half a li^C\r\n" + PROMPT
        assert await dialogue(shell, b"\x1c") == b"^\\\r\n" + PROMPT
        assert await dialogue(shell, b"nonsense\n") == (
            b"nonsense\r\nnonsense: command not found\r\n" + PROMPT
        )
        assert await dialogue(shell, b"echo 'open\n") == (
            b"echo 'open\r\nsyntax-error: command not found\r\n" + PROMPT
        )
        assert await dialogue(shell, b"cat\n") == b"cat\r\n"
        assert await dialogue(shell, b"one\n") == b"one\r\none\r\n"
        assert await dialogue(shell, b"two\x04") == b"twotwo"
        assert await dialogue(shell, b"\x04") == PROMPT
        assert await dialogue(shell, b"; ;pwd\n") == b"; ;pwd\r\n/home/user\r\n" + PROMPT
        await shell.send(b"false\nexit\n")
        assert await shell.wait() == ExitStatus(code=1)


async def test_ctrl_d_at_the_prompt_ends_the_shell(runtime: Runtime) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        shell = await sandbox.start(StartRequest(Kind.PTY))
        await shell.send(b"\x04")
        assert await read_all(shell) == PROMPT + b"exit\r\n"
        assert await shell.wait() == ExitStatus(code=0)


async def test_ctrl_c_stops_a_flood_nobody_reads(runtime: Runtime) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        flood = await sandbox.start(StartRequest(Kind.PTY, ("yes",)))
        await flood.send(b"\x03")
        assert await flood.wait() == ExitStatus(signal="INT")


async def test_every_buffer_is_bounded(runtime: Runtime) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        for kind in (Kind.EXEC, Kind.PTY):
            flood = await sandbox.start(StartRequest(kind, ("yes", "é")))
            assert (
                BUFFER_BYTES * 0.9 < len(await flood.receive(Channel.OUTPUT, 2**30)) <= BUFFER_BYTES
            )
        deaf = await sandbox.start(StartRequest(Kind.EXEC, ("sleep", "1000")))
        await deaf.send(bytes(BUFFER_BYTES))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deaf.send, b"x")
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            nursery.cancel_scope.cancel()
        with pytest.raises(ValueError, match="room"):
            Streams(None).write(bytes(BUFFER_BYTES + 1))


async def test_a_line_without_end_stops_the_sender_not_the_server(runtime: Runtime) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        shell = await sandbox.start(StartRequest(Kind.EXEC, ("sh",)))
        await shell.send(b"x" * (2 * BUFFER_BYTES))
        await shell.send(b"\nexit 0\n")
        assert b"command not found" in await read_all(shell, Channel.ERROR)
        assert await shell.wait() == ExitStatus(code=0)


@pytest.mark.parametrize(
    ("command", "out", "err", "code"),
    [
        (("echo", "a", "b"), b"a b\n", b"", 0),
        (("true",), b"", b"", 0),
        (("false",), b"", b"", 1),
        (("exit",), b"", b"", 0),
        (("exit", "258"), b"", b"", 2),
        (("exit", "x"), b"", b"exit: bad arguments", 2),
        (("seq", "3"), b"1\n2\n3\n", b"", 0),
        (("seq", "9", "10"), b"9\n10\n", b"", 0),
        (("seq", "5", "1"), b"", b"", 0),
        (("seq", "x"), b"", b"seq: bad arguments", 2),
        (("head", "-n", "1"), b"", b"head: bad arguments: only -c", 2),
        (("head", "-c", "0"), b"", b"", 0),
        (("sleep",), b"", b"sleep: bad arguments", 2),
        (("printenv", "HOME"), b"/home/user\n", b"", 0),
        (("printenv", "NOTHING"), b"", b"", 1),
        (("stty", "size"), b"", b"stty: standard input is not a terminal", 1),
        (("sh", "-c", "cat; echo end"), b"end\n", b"", 0),
        (("sh", "-c", "echo 'a;  b' # c\nexit 4; echo no"), b"a;  b\n", b"", 4),
        (("sh", "-c", "false"), b"", b"", 1),
        (("sh", "-c", "nonsense"), b"", b"nonsense: command not found", 127),
    ],
)
async def test_programs(
    runtime: Runtime, command: tuple[str, ...], out: bytes, err: bytes, code: int
) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        endpoint = await sandbox.start(StartRequest(Kind.EXEC, command))
        await endpoint.send_eof()
        assert await read_all(endpoint) == out
        complaint = await read_all(endpoint, Channel.ERROR)
        assert complaint.startswith(err)
        assert bool(complaint) == bool(err)
        assert await endpoint.wait() == ExitStatus(code=code)


async def test_raw_and_sane(runtime: Runtime) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        shell = await sandbox.start(StartRequest(Kind.PTY))
        await dialogue(shell, b"")
        assert await dialogue(shell, b"stty raw -echo\n") == b"stty raw -echo\r\n" + PROMPT
        assert await dialogue(shell, b"echo \x7f\n") == b"\x7f\n" + PROMPT
        assert await dialogue(shell, b"stty sane\n") == PROMPT
        assert await dialogue(shell, b"stty odd\n") == (
            b"stty odd\r\nstty: bad arguments: size, `raw -echo` and sane are known\r\n" + PROMPT
        )


async def test_signals_at_and_beyond_the_prompt(runtime: Runtime) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        shell = await sandbox.start(StartRequest(Kind.PTY))
        for name in ("INT", "TERM", "WINCH", "CHLD"):
            shell.send_signal(name)
        assert (await dialogue(shell, b"")).startswith(PROMPT)
        shell.send_signal("HUP")
        assert await shell.wait() == ExitStatus(signal="HUP")


async def test_a_bad_directory_of_the_made_up_file_system(runtime: Runtime) -> None:
    async with runtime.open_sandbox(SPEC) as sandbox:
        up = await sandbox.start(StartRequest(Kind.EXEC, ("pwd",), directory="../../tmp"))
        assert await read_all(up) == b"/tmp\n"
        with pytest.raises(StartError, match="/home/user/x does not exist"):
            await sandbox.start(StartRequest(Kind.EXEC, ("pwd",), directory="x"))
