"""What makes a terminal a terminal."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest
import trio

from relay.endpoint import Channel, Endpoint, ExitStatus, Kind, StartRequest, TerminalSize
from runtimes.base import Sandbox, SandboxSpec
from runtimes.local import LocalRuntime


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    with trio.fail_after(30):
        runtime = LocalRuntime(grace=0.2, linger=0.2)
        async with runtime.open_sandbox(SandboxSpec("terminal")) as sandbox:
            yield sandbox


async def output_of(sandbox: Sandbox, *command: str) -> str:
    endpoint = await sandbox.start(StartRequest(Kind.PTY, command))
    pieces = []
    while piece := await endpoint.receive(Channel.OUTPUT, 65536):
        pieces.append(bytes(piece))
    await endpoint.aclose()
    return b"".join(pieces).decode()


async def read_until(endpoint: Endpoint, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        piece = await endpoint.receive(Channel.OUTPUT, 65536)
        assert piece, f"the output ended before {wanted!r}: {seen!r}"
        seen += piece
    return seen


async def test_it_is_the_controlling_terminal(sandbox: Sandbox) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && tty && echo by its other name >/dev/tty"
    assert (await output_of(sandbox, "sh", "-c", script)).startswith("/dev/pts/")


async def test_the_command_leads_session_group_and_foreground(sandbox: Sandbox) -> None:
    pid, group, session, foreground = (
        await output_of(sandbox, "sh", "-c", "exec cut -d' ' -f1,5,6,8 /proc/self/stat")
    ).split()
    assert pid == group == session == foreground


async def test_only_the_standard_descriptors_are_open(sandbox: Sandbox) -> None:
    listing = await output_of(sandbox, "sh", "-c", "ls /proc/$$/fd; :")
    assert set(listing.split()) <= {"0", "1", "2", "10"}  # 10: where a shell puts its own script


async def test_backspace_knows_utf_8(sandbox: Sandbox) -> None:
    assert " iutf8" in await output_of(sandbox, "stty", "-a")


async def test_many_bytes_in_and_out(sandbox: Sandbox) -> None:
    size = 200_000
    script = f"stty raw -echo; echo ready; head -c {size}"
    endpoint = await sandbox.start(StartRequest(Kind.PTY, ("sh", "-c", script)))
    await read_until(endpoint, b"ready\n")
    data = bytes(range(256)) * (size // 256 + 1)
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.send, data[:size])
        while piece := await endpoint.receive(Channel.OUTPUT, 65536):
            received += piece
    assert received == data[:size]
    assert await endpoint.wait() == ExitStatus(code=0)


async def test_resizing_is_told_to_the_foreground(sandbox: Sandbox) -> None:
    script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done"
    endpoint = await sandbox.start(StartRequest(Kind.PTY, ("sh", "-c", script)))
    await read_until(endpoint, b"ready")
    endpoint.resize(TerminalSize(columns=65535, rows=1))
    await read_until(endpoint, b"1 65535\r\n")
    assert await endpoint.wait() == ExitStatus(code=0)


async def test_ctrl_c_passes_while_output_is_blocked(sandbox: Sandbox) -> None:
    endpoint = await sandbox.start(StartRequest(Kind.PTY, ("yes",)))
    await endpoint.receive(Channel.OUTPUT, 1)
    await trio.testing.wait_all_tasks_blocked(0.05)  # by now nothing more fits
    await endpoint.send(b"\x03")
    assert await endpoint.wait() == ExitStatus(signal="INT")


async def test_a_hang_up_is_noticed(sandbox: Sandbox) -> None:
    script = "echo ready; cat; echo hung up >&2; exit 3"
    endpoint = await sandbox.start(
        StartRequest(Kind.PTY, ("sh", "-c", f"trap '' HUP; trap 'exit 4' TERM; {script}"))
    )
    await read_until(endpoint, b"ready")
    await endpoint.aclose()  # `cat` reads the end of the terminal, though it ignores SIGHUP
    assert (await endpoint.wait()).code is not None


async def test_a_signal_before_there_is_a_foreground(sandbox: Sandbox) -> None:
    for _ in range(20):  # sometimes before, sometimes after the terminal was acquired
        endpoint = await sandbox.start(StartRequest(Kind.PTY, ("sleep", "1000")))
        endpoint.send_signal("TERM")
        assert await endpoint.wait() == ExitStatus(signal="TERM")
        await endpoint.aclose()


async def test_a_signal_when_the_foreground_group_is_gone(sandbox: Sandbox) -> None:
    # It makes its child's group the foreground of the terminal, and ends the child.
    script = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
        "pid = os.fork()\n"
        "if not pid: os.setpgid(0, 0); time.sleep(1000)\n"
        "os.setpgid(pid, pid) if os.getpgid(pid) != pid else None\n"
        "os.tcsetpgrp(0, pid); os.kill(pid, 9); os.waitpid(pid, 0)\n"
        "print('ready', flush=True); time.sleep(1000)\n"
    )
    endpoint = await sandbox.start(StartRequest(Kind.PTY, (sys.executable, "-c", script)))
    await read_until(endpoint, b"ready")
    endpoint.send_signal("TERM")
    assert await endpoint.wait() == ExitStatus(signal="TERM")
