"""What the local runtime leaves behind: nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import pytest
import trio

from relay.endpoint import Channel, Endpoint, ExitStatus, Kind, StartError, StartRequest
from runtimes.base import Sandbox, SandboxSpec, SandboxStatistics
from runtimes.local import LocalRuntime, processes
from runtimes.local.processes import end_by_force, in_session, started_with
from tests.testing.processes import (
    children,
    descriptors,
    is_running,
    process_state,
    running_pids,
    wait_until_gone,
)

IGNORING = "trap '' HUP TERM INT;"


@pytest.fixture
def runtime() -> LocalRuntime:
    return LocalRuntime(grace=0.2, linger=0.2)


@pytest.fixture
async def sandbox(runtime: LocalRuntime) -> AsyncIterator[Sandbox]:
    with trio.fail_after(30):
        async with runtime.open_sandbox(SandboxSpec("processes")) as sandbox:
            yield sandbox


async def start_and_read_pid(sandbox: Sandbox, kind: Kind, script: str) -> tuple[Endpoint, int]:
    """Run a script that prints a pid as its first line."""
    endpoint = await sandbox.start(StartRequest(kind, ("sh", "-c", script)))
    line = b""
    while not line.endswith(b"\n"):
        line += await endpoint.receive(Channel.OUTPUT, 1)
    return endpoint, int(line)


@pytest.mark.parametrize("kind", [Kind.EXEC, Kind.PTY])
@pytest.mark.parametrize(
    "script",
    [
        "sleep 1000 & echo $!; wait",
        "sleep 1000 & echo $!; exit",
        "nohup sleep 1000 >/dev/null 2>&1 & echo $!; exit",
        f"{IGNORING} sleep 1000 & echo $!; wait; wait; wait",
        "sleep 1000 & kill -STOP $!; echo $!; wait",
        "set -m; sleep 1000 & echo $!; wait",  # in a process group of its own
    ],
)
async def test_close_ends_what_was_started(sandbox: Sandbox, kind: Kind, script: str) -> None:
    endpoint, background = await start_and_read_pid(sandbox, kind, script)
    await endpoint.aclose()
    assert not is_running(background)
    assert not sandbox.statistics().endpoints_open


async def test_a_process_that_forks_without_end_is_killed(sandbox: Sandbox) -> None:
    script = f"{IGNORING} echo $$; f() {{ (f) & sleep 0.01; }}; while :; do (sleep 0.1; :) & done"
    endpoint, session = await start_and_read_pid(sandbox, Kind.EXEC, f"ulimit -u 4000; {script}")
    await endpoint.aclose()
    assert not list(filter(in_session(session), running_pids()))


async def test_what_left_the_session_ends_with_the_sandbox(runtime: LocalRuntime) -> None:
    script = f"{IGNORING} setsid sh -c 'echo $$; exec sleep 1000' & wait"
    with trio.fail_after(30):
        async with (
            runtime.open_sandbox(SandboxSpec("proces")) as other,
            runtime.open_sandbox(SandboxSpec("processes2")) as another,
        ):
            strangers = [
                (await start_and_read_pid(which, Kind.EXEC, "echo $$; sleep 1000"))[1]
                for which in (other, another)
            ]
            async with runtime.open_sandbox(SandboxSpec("processes")) as sandbox:
                endpoint, daemon = await start_and_read_pid(sandbox, Kind.PTY, script)
                await endpoint.aclose()
                assert is_running(daemon)  # as a daemon is meant to
            assert not is_running(daemon)
            assert all(map(is_running, strangers))  # though their ids begin or end alike


async def test_also_when_cancelled(runtime: LocalRuntime) -> None:
    script = f"{IGNORING} setsid sh -c 'echo $$; exec sleep 1000' & wait"
    with trio.fail_after(30), trio.CancelScope() as scope:
        async with runtime.open_sandbox(SandboxSpec("cancelled")) as sandbox:
            endpoint, daemon = await start_and_read_pid(sandbox, Kind.PTY, script)
            scope.cancel()
    assert scope.cancel_called
    assert not is_running(daemon)
    await endpoint.wait()
    assert endpoint.pid is not None
    assert process_state(endpoint.pid) is None


async def test_the_grace_is_given() -> None:
    # Its farewell is more than a pipe holds, and nobody reads it any more.
    farewell = "seq 200000; seq 200000 >&2; exit 7"
    script = f"trap '{farewell}' TERM; echo $$; while :; do sleep 0.01; done"
    with trio.fail_after(30):
        async with LocalRuntime(grace=20).open_sandbox(SandboxSpec("grace")) as sandbox:
            endpoint, _ = await start_and_read_pid(sandbox, Kind.EXEC, script)
            await endpoint.aclose()
            assert await endpoint.wait() == ExitStatus(code=7)


async def test_a_cancelled_second_closer_makes_the_first_hurry() -> None:
    runtime = LocalRuntime(grace=1000)
    with trio.fail_after(30):
        async with runtime.open_sandbox(SandboxSpec("hurry")) as sandbox:
            script = f"{IGNORING} echo $$; sleep 1000; sleep 1000"
            endpoint, pid = await start_and_read_pid(sandbox, Kind.EXEC, script)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(endpoint.aclose)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert is_running(pid)
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await endpoint.aclose()
                assert not is_running(pid)


async def test_a_start_that_the_end_of_the_sandbox_overtakes(runtime: LocalRuntime) -> None:
    refused = False

    async def start(sandbox: Sandbox) -> None:
        nonlocal refused
        with pytest.raises(StartError, match="ending"):
            await sandbox.start(StartRequest(Kind.EXEC, ("sleep", "1000")))
        refused = True

    before = children()
    with trio.fail_after(30):
        async with (
            trio.open_nursery() as nursery,
            runtime.open_sandbox(SandboxSpec("overtaken")) as sandbox,
        ):
            nursery.start_soon(start, sandbox)
            await trio.testing.wait_all_tasks_blocked(0)
    assert refused
    assert children() == before
    assert sandbox.statistics().endpoints_open == 0


async def test_a_cancelled_start_leaves_nothing(runtime: LocalRuntime) -> None:
    before = children(), descriptors()
    with trio.fail_after(30):
        async with runtime.open_sandbox(SandboxSpec("cancelled-start")) as sandbox:
            for kind in (Kind.EXEC, Kind.PTY):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sandbox.start, StartRequest(kind, ("sleep", "1000")))
                    await trio.testing.wait_all_tasks_blocked(0)
                    nursery.cancel_scope.cancel()
    assert (children(), descriptors()) == before


async def test_an_ended_process_keeps_its_pid_until_close(sandbox: Sandbox) -> None:
    endpoint = await sandbox.start(StartRequest(Kind.EXEC, ("true",)))
    assert await endpoint.wait() == ExitStatus(code=0)
    assert endpoint.pid is not None
    assert process_state(endpoint.pid) == "Z"
    await endpoint.aclose()
    assert process_state(endpoint.pid) is None


async def test_two_hundred_cycles_leave_no_trace(runtime: LocalRuntime) -> None:
    with trio.fail_after(60):
        async with runtime.open_sandbox(SandboxSpec("cycles")) as sandbox:
            before = children(), descriptors()
            commands = [("cat",), ("seq", "100000"), ("false",), ("sh", "-c", "sleep 1000 & cat")]
            for turn in range(200):
                kind = Kind.PTY if turn % 2 else Kind.EXEC
                endpoint = await sandbox.start(StartRequest(kind, commands[turn // 2 % 4]))
                with trio.move_on_after(0.001):
                    await endpoint.receive(Channel.OUTPUT, 1000)
                await endpoint.aclose()
            assert (children(), descriptors()) == before
            assert sandbox.statistics() == SandboxStatistics(0, 200)


async def test_processes_of_another_user_are_left_alone(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    endpoint = await sandbox.start(StartRequest(Kind.EXEC, ("sleep", "1000")))
    assert endpoint.pid is not None
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(signal, "pidfd_send_signal", refuse)
        patch.setattr(os, "killpg", refuse)
        await end_by_force(in_session(endpoint.pid), trio.CapacityLimiter(1))
        endpoint.send_signal("KILL")
    assert is_running(endpoint.pid)
    assert descriptors() == before


async def test_more_processes_than_one_round_takes(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "ROUND", 2)
    script = f"{IGNORING} for i in 1 2 3 4 5 6 7; do sleep 1000 & done; echo $!; wait"
    endpoint, last = await start_and_read_pid(sandbox, Kind.EXEC, script)
    await endpoint.aclose()
    assert not is_running(last)
    assert endpoint.pid is not None
    assert not list(filter(in_session(endpoint.pid), running_pids()))


async def test_out_of_descriptors_while_looking(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children(), descriptors()
    script = f"{IGNORING} sleep 1000 & echo $!; wait"
    endpoint, background = await start_and_read_pid(sandbox, Kind.EXEC, script)
    real, calls = os.pidfd_open, 0

    def fail_at_first(pid: int) -> int:
        nonlocal calls
        calls += 1
        if calls in (1, 3):  # the first process when asking; the second process when killing
            raise OSError(24, "Too many open files")
        return real(pid)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", fail_at_first)
        patch.setattr(os, "killpg", lambda *_: None)  # the short cut for the process's own group
        await endpoint.aclose()
    assert calls >= 3
    assert not is_running(background)
    assert (children(), descriptors()) == before


async def test_matching_a_process_that_is_gone(sandbox: Sandbox) -> None:
    endpoint = await sandbox.start(StartRequest(Kind.EXEC, ("true",)))
    assert endpoint.pid is not None
    await endpoint.wait()
    assert not in_session(endpoint.pid)(endpoint.pid)  # a zombie
    await endpoint.aclose()
    assert not in_session(endpoint.pid)(endpoint.pid)
    assert not started_with("TRUNKLINE_SESSION", "processes")(endpoint.pid)


async def test_a_name_with_parentheses_does_not_mislead(
    sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = tmp_path_factory.mktemp("names") / "x) R 1 (y"
    program.symlink_to("/bin/sleep")
    endpoint = await sandbox.start(StartRequest(Kind.EXEC, (str(program), "1000")))
    assert endpoint.pid is not None
    assert in_session(endpoint.pid)(endpoint.pid)
    endpoint.send_signal("TERM")
    assert await endpoint.wait() == ExitStatus(signal="TERM")


async def test_a_real_time_signal_has_a_name(sandbox: Sandbox) -> None:
    endpoint = await sandbox.start(StartRequest(Kind.EXEC, ("sleep", "1000")))
    assert endpoint.pid is not None
    os.kill(endpoint.pid, signal.SIGRTMIN + 3)
    assert await endpoint.wait() == ExitStatus(signal="RTMIN+3")


async def test_wait_until_gone_tells_the_truth(sandbox: Sandbox) -> None:
    endpoint, background = await start_and_read_pid(
        sandbox, Kind.EXEC, "sleep 1000 & echo $!; exit"
    )
    await endpoint.wait()
    assert is_running(background)
    os.kill(background, signal.SIGKILL)
    await wait_until_gone(background)
