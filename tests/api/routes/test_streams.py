"""Commands and streams over HTTP, with real processes on the real agent."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from runtimes.agent import Agent
from runtimes.local import LocalRuntime
from sessions.manager import open_manager
from sessions.profiles import Profile
from tests.testing.api_world import World, problem
from tests.testing.memory_store import MemoryStore
from tests.testing.processes import is_running

PROFILE = Profile("default")


@asynccontextmanager
async def real_world(static_root: Path) -> AsyncIterator[tuple[World, str]]:
    """Give the API on a real agent with the local runtime, and the path of a session."""
    agent = Agent(LocalRuntime(), software="test")
    with trio.fail_after(60):
        async with open_manager(agent, MemoryStore(), {"default": PROFILE}) as manager:
            world = World(static_root, real=manager, host=agent)
            session_id = (await world.create())["session_id"]
            yield world, f"/v1/sessions/{session_id}"


async def execute(world: World, path: str, **body: Any) -> dict[str, Any]:
    response = await world.call("POST", f"{path}/exec", json=body)
    answer: dict[str, Any] = await response.get_json()
    assert response.status_code == 200, answer
    return answer


async def streams(world: World, path: str) -> dict[str, dict[str, Any]]:
    answer = await (await world.call("GET", f"{path}/streams")).get_json()
    return {stream["tag"]: stream for stream in answer["streams"]}


async def test_a_command_returns_what_it_wrote_and_how_it_ended(static_root: Path) -> None:
    async with real_world(static_root) as (world, path):
        answer = await execute(
            world, path, command=["sh", "-c", "cat; echo oops >&2; exit 3"], stdin="hé\n"
        )
        assert answer["tag"].startswith("exec-")
        assert (answer["exit_code"], answer["signal"]) == (3, None)
        assert (answer["stdout"], answer["stderr"]) == ("hé\n", "oops\n")
        assert answer["encoding"] == "utf-8"
        assert not answer["truncated"]
        assert not answer["timed_out"]


async def test_output_that_is_not_text_comes_as_base64(static_root: Path) -> None:
    data = bytes(range(256)) * 100
    async with real_world(static_root) as (world, path):
        answer = await execute(world, path, command=["cat"], stdin_base64=b64encode(data).decode())
        assert answer["encoding"] == "base64"
        assert b64decode(answer["stdout"]) == data
        assert answer["stderr"] == ""


async def test_environment_and_directory_reach_the_command(
    static_root: Path, tmp_path: Path
) -> None:
    async with real_world(static_root) as (world, path):
        answer = await execute(
            world,
            path,
            command=["sh", "-c", 'echo "$GREETING"; pwd'],
            environment={"GREETING": "hello there"},
            directory=str(tmp_path),
        )
        assert answer["stdout"] == f"hello there\n{tmp_path}\n"


async def test_more_output_than_wanted_is_cut_and_said_so(static_root: Path) -> None:
    async with real_world(static_root) as (world, path):
        answer = await execute(
            world, path, command=["head", "-c", "3000000", "/dev/zero"], output_limit=10
        )
        assert answer["stdout"] == "\0" * 10
        assert answer["truncated"]
        assert answer["exit_code"] == 0


async def test_a_command_whose_time_is_over_is_ended(static_root: Path) -> None:
    async with real_world(static_root) as (world, path):
        answer = await execute(
            world, path, command=["sh", "-c", "echo begun; sleep 1000"], timeout_seconds=0.2
        )
        assert answer["timed_out"]
        assert (answer["exit_code"], answer["signal"]) == (None, "TERM")
        assert answer["stdout"] == "begun\n"


async def test_a_background_command_goes_on_and_can_be_signalled(static_root: Path) -> None:
    async with real_world(static_root) as (world, path):
        body = {"command": ["sleep", "1000"], "background": True, "tag": "job"}
        response = await world.call("POST", f"{path}/exec", json=body)
        assert response.status_code == 202
        started = await response.get_json()
        assert started["tag"] == "job"
        job = (await streams(world, path))["job"]
        assert (job["kind"], job["state"], job["pid"]) == ("exec", "running", started["pid"])
        assert job["command"] == ["sleep", "1000"]
        assert job["attachments"] == []
        other = {"command": ["sleep", "1"], "tag": "job"}
        refused = await world.call("POST", f"{path}/exec", json=other)
        await problem(refused, 409, "stream-conflict", "tag")
        sent = await world.call("POST", f"{path}/streams/job/signal", json={"signal": "KILL"})
        assert sent.status_code == 200
        while (job := (await streams(world, path))["job"])["state"] == "running":
            await trio.lowlevel.checkpoint()
        assert (job["signal"], job["exit_code"]) == ("KILL", None)


async def test_a_client_that_leaves_takes_its_command_with_it(
    static_root: Path, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    async with real_world(static_root) as (world, path):
        async with trio.open_nursery() as nursery:

            async def leave_early() -> None:
                command = ["sh", "-c", f"echo $$ >{note}.part; mv {note}.part {note}; sleep 1000"]
                await world.call("POST", f"{path}/exec", json={"command": command})

            nursery.start_soon(leave_early)
            while not await trio.Path(note).exists():
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        pid = int(await trio.Path(note).read_text())
        while is_running(pid):
            await trio.sleep(0.01)


async def test_the_list_shows_bytes_and_ends(static_root: Path) -> None:
    async with real_world(static_root) as (world, path):
        await execute(world, path, command=["echo", "twelve bytes"], tag="said")
        said = (await streams(world, path))["said"]
        assert (said["state"], said["exit_code"]) == ("ended", 0)
        assert [channel["next_offset"] for channel in said["channels"]] == [13, 0]
        assert said["age_seconds"] >= 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "command"),
        ({"command": []}, "command"),
        ({"command": "ls"}, "command"),
        ({"command": ["ls"], "timeout_seconds": 0}, "timeout_seconds"),
        ({"command": ["ls"], "environment": {"A": 1}}, "environment"),
        ({"command": ["ls"], "tag": "not a tag"}, "tag"),
        ({"command": ["ls"], "stdin": "a", "stdin_base64": "YQ=="}, "stdin_base64"),
        ({"command": ["ls"], "stdin_base64": "?"}, "stdin_base64"),
        ({"command": ["a\0b"]}, "command"),
        ({"command": ["no-such-command-anywhere"]}, "command"),
    ],
)
async def test_bad_requests_name_the_field(
    static_root: Path, body: dict[str, Any], field: str
) -> None:
    async with real_world(static_root) as (world, path):
        response = await world.call("POST", f"{path}/exec", json=body)
        await problem(response, 400, "invalid-field", field)


async def test_signals_and_lists_for_what_is_not_there(static_root: Path) -> None:
    async with real_world(static_root) as (world, path):
        response = await world.call("POST", f"{path}/streams/nobody/signal", json={})
        await problem(response, 404, "stream-not-found")
        await execute(world, path, command=["true"], tag="done")
        response = await world.call("POST", f"{path}/streams/done/signal", json={"signal": "FOO"})
        await problem(response, 400, "invalid-field", "signal")
        nowhere = "/v1/sessions/550e8400-e29b-41d4-a716-446655440000"
        await problem(await world.call("GET", f"{nowhere}/streams"), 404, "session-not-found")
        await world.call("DELETE", path)
        await problem(await world.call("GET", f"{path}/streams"), 409, "session-not-running")
        response = await world.call("POST", f"{path}/exec", json={"command": ["true"]})
        await problem(response, 409, "session-not-running")
