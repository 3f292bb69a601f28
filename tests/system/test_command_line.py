"""The command line, as programs and people in a pipe use it."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.testing.cli import SECONDS, open_cli, read_until, run_cli
from tests.testing.processes import wait_until_gone
from tests.testing.server_process import (
    ServerProcess,
    pids_with,
    process_name,
    trunkline_command,
    wait_until_none,
)

# ---------------------------------------------------------------- exec


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137)],
)
async def test_exit_codes(env: dict[str, str], session_id: str, script: str, code: int) -> None:
    ended = await run_cli(env, "exec", session_id, "--", "sh", "-c", script)
    assert (ended.code, ended.stdout, ended.stderr) == (code, b"", b"")


async def test_error_output_is_kept_apart(env: dict[str, str], session_id: str) -> None:
    script = "echo out; echo err >&2; echo out again; echo err again >&2"
    ended = await run_cli(env, "exec", session_id, "--", "sh", "-c", script)
    assert ended.stdout == b"out\nout again\n"
    assert ended.stderr == b"err\nerr again\n"


async def test_no_such_command(env: dict[str, str], session_id: str) -> None:
    ended = await run_cli(env, "exec", session_id, "--", "no-such-command")
    assert ended.code == 127
    assert ended.stdout == b""
    assert "no-such-command: command not found" in ended.errors
    assert ended.errors.startswith("trunkline: ")


async def test_bytes_of_all_kinds_pass_both_ways(env: dict[str, str], session_id: str) -> None:
    data = bytes(range(256)) * 16 + random.Random(1).randbytes(300_000) + b"\xff\xfe\r\n\x1d\x00"
    ended = await run_cli(env, "exec", session_id, "--", "cat", stdin=data)
    assert ended.code == 0
    assert hashlib.sha256(ended.stdout).digest() == hashlib.sha256(data).digest()


async def test_arguments_arrive_as_they_are(env: dict[str, str], session_id: str) -> None:
    arguments = ["-x", "--help", "", "a b", "*", "$HOME", "ü€", "--", "line\nbreak"]
    ended = await run_cli(env, "exec", session_id, "--", "printf", r"%s\0", *arguments)
    assert ended.stdout == b"".join(a.encode() + b"\0" for a in arguments)


async def test_input_from_a_file(env: dict[str, str], session_id: str, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(1_000_000)
    file = tmp_path / "input"
    file.write_bytes(data)
    with file.open("rb") as stdin:
        ended = await run_cli(env, "exec", session_id, "--", "sha256sum", stdin=stdin)
    assert ended.text.split()[0] == hashlib.sha256(data).hexdigest()


async def test_output_to_a_file(env: dict[str, str], session_id: str, tmp_path: Path) -> None:
    file = tmp_path / "output"
    with file.open("wb") as stdout:
        async with open_cli(
            env, "exec", session_id, "--", "seq", "100000", stdin=subprocess.DEVNULL, stdout=stdout
        ) as process:
            with trio.fail_after(SECONDS):
                assert await process.wait() == 0
    assert file.read_text() == "".join(f"{n}\n" for n in range(1, 100_001))


async def test_no_input(env: dict[str, str], session_id: str) -> None:
    ended = await run_cli(env, "exec", session_id, "--", "cat", stdin=subprocess.DEVNULL)
    assert (ended.code, ended.stdout) == (0, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
async def test_closed_descriptors(env: dict[str, str], session_id: str, closed: str) -> None:
    """A closed standard input must not become a connection that is opened later."""
    script = f'"$@" {closed}'
    command = trunkline_command("exec", session_id, "--", "sh", "-c", "cat; echo said; exit 5")
    with trio.fail_after(SECONDS):
        done = await trio.run_process(
            ["/bin/sh", "-c", script, "sh", *command],
            env=env,
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    assert done.returncode == 5
    assert done.stderr == b""
    assert done.stdout == (b"" if ">" in closed.replace("2>", "") else b"said\n")


async def test_a_command_that_reads_no_input(env: dict[str, str], session_id: str) -> None:
    """It ends, although there is more input than fits anywhere."""
    async with open_cli(env, "exec", session_id, "--", "sh", "-c", "exit 3") as process:
        assert process.stdin is not None
        with trio.fail_after(SECONDS):
            with suppress(trio.BrokenResourceError):
                await process.stdin.send_all(bytes(10_000_000))
            assert await process.wait() == 3


async def test_input_stays_open(env: dict[str, str], session_id: str) -> None:
    """A command ends when it wants to, not when its input does."""
    async with open_cli(env, "exec", session_id, "--", "sh", "-c", "read x; exit 4") as process:
        assert process.stdin is not None
        with trio.fail_after(SECONDS):
            await process.stdin.send_all(b"line\n")
            assert await process.wait() == 4


async def test_interrupt_is_passed_on(env: dict[str, str], session_id: str) -> None:
    script = "trap 'echo trapped; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    async with open_cli(env, "exec", session_id, "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        await read_until(process.stdout, b"ready\n")
        process.send_signal(signal.SIGINT)
        assert await read_until(process.stdout, b"trapped\n") == b"trapped\n"
        with trio.fail_after(SECONDS):
            assert await process.wait() == 9


async def test_a_second_interrupt_kills(env: dict[str, str], session_id: str) -> None:
    script = "trap 'echo never mind' INT; echo ready; while :; do sleep 0.05; done"
    async with open_cli(env, "exec", session_id, "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        await read_until(process.stdout, b"ready\n")
        process.send_signal(signal.SIGINT)
        await read_until(process.stdout, b"never mind\n")
        process.send_signal(signal.SIGINT)
        with trio.fail_after(SECONDS):
            assert await process.wait() == 137


async def test_termination_is_passed_on(env: dict[str, str], session_id: str) -> None:
    script = "trap 'echo trapped; exit 8' TERM; echo ready; while :; do sleep 0.05; done"
    async with open_cli(env, "exec", session_id, "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        await read_until(process.stdout, b"ready\n")
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(SECONDS):
            assert await process.wait() == 8


async def test_nobody_reads_the_output(env: dict[str, str], session_id: str) -> None:
    """As in ``trunkline exec ID -- yes | head -1``: it ends quietly, at both ends."""
    async with open_cli(env, "exec", session_id, "--", "yes", stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        await read_until(process.stdout, b"y\n")
        (remote,) = [
            pid for pid in pids_with("TRUNKLINE_SESSION", session_id) if process_name(pid) == "yes"
        ]
        await process.stdout.aclose()
        with trio.fail_after(SECONDS):
            assert await process.wait() == 141
            assert await process.stderr.receive_some() == b""
        await wait_until_gone(remote)


async def test_a_killed_client_comes_back(env: dict[str, str], session_id: str) -> None:
    """What runs goes on; a second exec with its tag reads on, from the oldest byte still there."""
    script = "echo one; read x; echo two; exit 6"
    command = ("exec", session_id, "--tag", "job", "--", "sh", "-c", script)
    async with open_cli(env, *command) as process:
        assert process.stdout is not None
        await read_until(process.stdout, b"one\n")
        process.kill()
        await process.wait()
    ended = await run_cli(env, *command, stdin=b"\n")
    assert (ended.code, ended.stdout) == (6, b"one\ntwo\n")
    late = await run_cli(env, *command)
    assert (late.code, late.stdout) == (6, b"one\ntwo\n")
    other = await run_cli(env, "exec", session_id, "--tag", "job", "--", "other")
    assert other.code == 1
    assert "'job' runs another command" in other.errors


async def test_background_processes_do_not_hold_it_up(env: dict[str, str], session_id: str) -> None:
    ended = await run_cli(env, "exec", session_id, "--", "sh", "-c", "sleep 1000 & echo done")
    assert (ended.code, ended.stdout) == (0, b"done\n")


async def test_a_flood_on_both_outputs(env: dict[str, str], session_id: str) -> None:
    script = "seq 1 300000 & seq 1 300000 >&2; wait"
    ended = await run_cli(env, "exec", session_id, "--", "sh", "-c", script)
    expected = "".join(f"{n}\n" for n in range(1, 300_001)).encode()
    assert ended.code == 0
    assert ended.stdout == expected
    assert ended.stderr == expected


async def test_many_at_once(env: dict[str, str], session_id: str) -> None:
    """Commands do not mix up their bytes."""
    results: dict[int, bytes] = {}

    async def one(number: int) -> None:
        script = f"cat; echo {number}"
        data = b"%d " % number * 20_000
        ended = await run_cli(env, "exec", session_id, "--", "sh", "-c", script, stdin=data)
        assert ended.code == 0
        results[number] = ended.stdout

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(one, number)
    for number in range(6):
        assert results[number] == b"%d " % number * 20_000 + b"%d\n" % number


# ---------------------------------------------------------------- sessions


async def test_a_life(server: ServerProcess, env: dict[str, str]) -> None:
    made = await run_cli(env, "new", "--ttl", "15m")
    assert made.code == 0
    session = made.text
    assert session == made.stdout.decode().strip()
    listed = await run_cli(env, "ls")
    assert session in listed.text
    assert "running" in listed.text
    (shown,) = [s for s in json.loads((await run_cli(env, "ls", "--json")).stdout)
                if s["session_id"] == session]  # fmt: skip
    assert (shown["status"], shown["profile"]) == ("running", "default")
    assert (await run_cli(env, "exec", session, "--", "true")).code == 0
    assert pids_with("TRUNKLINE_SESSION", session) == []
    async with open_cli(env, "exec", session, "--", "sh", "-c", "echo r; sleep 99") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        await read_until(process.stdout, b"r\n")
        removed = await run_cli(env, "rm", session)
        assert (removed.code, removed.stdout, removed.stderr) == (0, b"", b"")
        assert wait_until_none("TRUNKLINE_SESSION", session) == []
        with trio.fail_after(SECONDS):
            assert await process.wait() == 1
            assert await read_until(process.stderr, b"\n") == (
                b"trunkline: closed: session_ended\n"
            )
    assert session not in (await run_cli(env, "ls")).text
    everything = await run_cli(env, "ls", "--all")
    assert session in everything.text
    assert (await run_cli(env, "rm", session)).code == 0
    gone = await run_cli(env, "exec", session, "--", "true")
    assert gone.code == 1
    assert "terminated" in gone.errors


async def test_new_as_json(server: ServerProcess, env: dict[str, str]) -> None:
    made = await run_cli(env, "new", "--json", "--ttl", "90")
    shown = json.loads(made.stdout)
    assert shown["status"] == "running"
    assert set(shown) >= {"session_id", "profile", "created_at", "expires_at", "state"}
    server.delete_session(shown["session_id"])


async def test_open(server: ServerProcess, env: dict[str, str], session_id: str) -> None:
    opened = await run_cli(env, "open", session_id)
    url, _, code = opened.text.partition("#code=")
    assert url == f"{server.url}/t/{session_id}"
    server.secrets.add(code)
    with server.client("") as client:
        assert client.get(f"/t/{session_id}").status_code == 200
        answer = client.post("/v1/login", json={"code": code})
        assert answer.status_code == 200
        token = answer.json()["token"]
        server.secrets.add(token)
        assert client.post("/v1/login", json={"code": code}).status_code == 401
    with server.client(token) as client:
        assert client.get("/v1/whoami").json() == {"subject": "owner"}


# ---------------------------------------------------------------- errors


async def test_wishes_that_are_denied(env: dict[str, str]) -> None:
    bad = await run_cli(env, "new", "--ttl", "soon")
    assert bad.code == 2
    assert "'soon' is no duration; write 90s, 15m, 1h or 2d" in bad.errors
    long = await run_cli(env, "new", "--profile", "short", "--ttl", "1h")
    assert long.code == 1
    assert "60" in long.errors
    unknown = await run_cli(env, "new", "--profile", "none")
    assert unknown.code == 1
    assert "'none'" in unknown.errors or '"none"' in unknown.errors


UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("command", "session"),
    [
        ("exec", UNKNOWN_ID),
        ("attach", UNKNOWN_ID),
        ("rm", UNKNOWN_ID),
        ("exec", "nonsense"),
        ("rm", "a/../b"),
        ("exec", ""),
        ("rm", "x?y#z"),
        ("attach", "ü"),
    ],
)
async def test_unknown_sessions(env: dict[str, str], command: str, session: str) -> None:
    rest = ("--", "true") if command == "exec" else ()
    ended = await run_cli(env, command, session, *rest)
    assert ended.code == 1
    assert ended.stdout == b""
    assert len(ended.errors.splitlines()) == 1
    assert "session" in ended.errors


async def test_a_wrong_token(server: ServerProcess, env: dict[str, str]) -> None:
    wrong = {**env, "TRUNKLINE_URL": server.url, "TRUNKLINE_TOKEN": "wrong"}
    for arguments in (("ls",), ("exec", UNKNOWN_ID, "--", "true")):
        ended = await run_cli(wrong, *arguments)
        assert ended.code == 1
        assert "not let in" in ended.errors or "credential" in ended.errors
        assert "wrong" not in ended.errors


@pytest.mark.parametrize("command", ["ls", "exec"])
async def test_nobody_is_there(empty_env: dict[str, str], command: str) -> None:
    """Where a server never was there, nobody waits for it to come back."""
    env = {**empty_env, "TRUNKLINE_URL": "http://127.0.0.1:1", "TRUNKLINE_TOKEN": "t"}
    rest = (UNKNOWN_ID, "--", "true") if command == "exec" else ()
    ended = await run_cli(env, command, *rest)
    assert ended.code == (1 if command == "ls" else 74)
    assert "http://127.0.0.1:1 does not answer" in ended.errors
    assert "Connection refused" in ended.errors
    assert len(ended.errors.splitlines()) == 1


async def test_something_else_answers(empty_env: dict[str, str]) -> None:
    """An HTTP server that is not Trunkline, and one that speaks no HTTP."""
    answers = iter(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"SSH-2.0-OpenSSH_9.9\r\n",
        ]
    )

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(next(answers))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        env = {
            **empty_env,
            "TRUNKLINE_URL": f"http://127.0.0.1:{port}",
            "TRUNKLINE_TOKEN": "t",
        }
        for _ in range(2):
            ended = await run_cli(env, "ls")
            assert ended.code == 1
            assert ended.errors.startswith("trunkline: ")
            assert len(ended.errors.splitlines()) == 1, ended.errors
        nursery.cancel_scope.cancel()


async def test_the_note_is_not_trusted_when_others_can_read_it(
    empty_env: dict[str, str],
) -> None:
    note = Path(empty_env["XDG_STATE_HOME"]) / "trunkline" / "server.json"
    note.parent.mkdir(parents=True)
    note.write_text('{"url": "http://127.0.0.1:1", "token": "t"}')
    note.chmod(0o644)
    ended = await run_cli(empty_env, "ls")
    assert ended.code == 1
    assert "not trusted" in ended.errors
    note.chmod(0o600)
    note.write_text("{")
    ended = await run_cli(empty_env, "ls")
    assert ended.code == 1
    assert "cannot be read" in ended.errors


async def test_it_starts_fast(
    empty_env: dict[str, str], record_property: Callable[[str, object], None]
) -> None:
    await run_cli(empty_env, "--version")  # compiles what was not yet
    began = trio.current_time()
    ended = await run_cli(empty_env, "--version")
    seconds = trio.current_time() - began
    record_property("startup_seconds", round(seconds, 3))
    print(f"trunkline --version: {seconds:.3f} s")
    assert ended.text.startswith("trunkline, version ")
    assert seconds < 10
    script = "import sys, trunkline.cli; print(*sys.modules)"
    with trio.fail_after(SECONDS):
        done = await trio.run_process(
            [*trunkline_command()[:1], "-c", script], capture_stdout=True, env=empty_env
        )
    loaded = set(bytes(done.stdout or b"").decode().split())
    # The server's own libraries would treble it.
    assert not loaded & {"quart", "hypercorn", "sqlalchemy", "jwt", "structlog", "rich.table"}
