"""What a hostile process in a sandbox of bubblewrap can not do, through the whole server."""

from __future__ import annotations

import os
import signal
import socket
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio

from runtimes.cgroups import find_groups
from runtimes.cgroups.groups import Power
from tests.testing.bubblewrap import require_bubblewrap
from tests.testing.server_process import (
    ServerProcess,
    pids_with,
    running_server,
    wait_until_none,
)
from trunkline.sdk.client import Completed, Connection, open_client

SECONDS = 30
CONFIG = """
grace_seconds = 1
[profiles.small]
limits = { memory = "96M", processes = 40, cpus = 1 }
[profiles.brief]
idle_timeout_seconds = 2
"""


def sandboxes(server: ServerProcess) -> list[str]:
    return [path.name for path in (server.data_dir / "sandboxes").iterdir()]


def core_pattern() -> str:
    """What a process that is root to the kernel could use to run something as root outside."""
    return Path("/proc/sys/kernel/core_pattern").read_text()


@pytest.fixture(scope="module")
def jailer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose sessions are sandboxes; it must be well at the end."""
    require_bubblewrap()
    directory = tmp_path_factory.mktemp("jailer")
    with running_server(directory, "--runtime", "bubblewrap", config=CONFIG) as server:
        yield server
        assert sandboxes(server) == []


@asynccontextmanager
async def inside(server: ServerProcess, profile: str = "default") -> AsyncIterator[Connection]:
    """Open a session, and end it; nothing of it may be left."""
    with trio.fail_after(2 * SECONDS):
        async with open_client(server.url, server.token) as client:
            session = await client.create_session(profile)
            async with session.connect() as connection:
                yield connection
            await session.delete()
            assert pids_with("TRUNKLINE_SESSION", session.id) == []


async def python(connection: Connection, code: str) -> Completed:
    return await connection.run(["python3", "-c", textwrap.dedent(code)])


async def test_processes_outside_are_not_seen(jailer: ServerProcess) -> None:
    async with inside(jailer) as connection:
        done = await python(
            connection,
            f"""
            import os, signal
            print(sorted(int(n) for n in os.listdir('/proc') if n.isdigit())[-1] < 100)
            for pid in ({jailer.pid}, {os.getppid()}):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    print('none')
            for pid in (1, os.getppid()):
                try:
                    os.kill(pid, signal.SIGKILL)
                    open(f'/proc/{{pid}}/mem', 'rb')
                except OSError as error:
                    print(type(error).__name__)
            """,
        )
        assert done.stdout.decode().split() == ["True", "none", "none", *["PermissionError"] * 2]
        assert jailer.process.poll() is None


async def test_nothing_outside_the_home_is_written_or_read(
    jailer: ServerProcess, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    before = core_pattern()
    targets = [
        *("/usr/bin/sh", "/etc/passwd", "/etc/hosts", "/x", "/usr/x", "/dev/x"),
        *(
            "/proc/sys/kernel/core_pattern",
            "/proc/sysrq-trigger",
            "/.trunkline/x",
            "/.trunkline/runtimes/x",
        ),
    ]
    unreadable = [
        *(str(secret), str(jailer.data_dir / "credential"), "/etc/shadow", "/root/.profile"),
        *("/proc/1/root/etc/shadow", "/proc/1/cwd/etc/shadow", "/proc/1/environ"),
        *("/proc/kcore", "/sys/kernel/notes", "/dev/vda", "/dev/mem", "/dev/kmsg"),
    ]
    async with inside(jailer) as connection:
        done = await python(
            connection,
            f"""
            import os
            for path in {targets!r}:
                try:
                    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
                    print('WRITTEN', path)
                except OSError:
                    pass
            for path in {unreadable!r}:
                try:
                    if open(path, 'rb').read(10):
                        print('READ', path)
                except OSError:
                    pass
            os.mkdir('a')
            for source, path in (('/proc/1/root', 'a/b'), ('/etc', 'a/c')):
                os.symlink(source, path)
            print('done')
            """,
        )
        assert done.stdout == b"done\n", done.stderr
        # The way out that the file interface might be.
        (session_id,) = sandboxes(jailer)
        with jailer.client() as client:
            for path in ("a/c/passwd", "/etc/passwd", "a/c/../../etc/passwd", "/proc/1/environ"):
                answer = client.get(f"/v1/sessions/{session_id}/files/{path.lstrip('/')}")
                assert answer.status_code >= 400, path
    assert core_pattern() == before


async def test_it_gains_no_power(jailer: ServerProcess) -> None:
    async with inside(jailer) as connection:
        for command in (
            ["unshare", "-Ur", "id"],
            ["mount", "-t", "tmpfs", "none", "/mnt"],
            ["umount", "/proc/sys"],
            ["chroot", "/", "id"],
            ["su", "-c", "id"],
            ["nsenter", "-t", "1", "-m", "id"],
            ["mknod", "/tmp/disk", "b", "8", "0"],
        ):
            done = await connection.run(command)
            assert done.status.code != 0, (command, done)
            assert b"uid=0" not in done.stdout


async def test_the_hosts_loopback_is_out_of_reach(jailer: ServerProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with inside(jailer) as connection:
            done = await python(
                connection,
                f"""
                import socket
                for port in ({port}, {jailer.port}):
                    try:
                        socket.create_connection(('127.0.0.1', port), 5)
                        print('THROUGH')
                    except ConnectionRefusedError:
                        print('refused')
                try:
                    socket.create_connection(('192.0.2.1', 80), 5)
                except OSError as error:
                    print(error.strerror)
                listener = socket.create_server(('127.0.0.1', 0))
                socket.create_connection(listener.getsockname())
                print('own')
                """,
            )
            assert done.stdout.decode().splitlines() == [
                *["refused"] * 2,
                "Network is unreachable",
                "own",
            ]


async def test_nothing_runs_on_after_the_end(jailer: ServerProcess) -> None:
    """Not even what left its session twice over, wiped its environment and ignores signals."""
    marker = f"trunkline-escapee-{os.getpid()}"
    async with inside(jailer) as connection:
        done = await python(
            connection,
            f"""
            import os, signal, sys, time
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.setsid()
                    for number in (1, 2, 15):
                        signal.signal(number, signal.SIG_IGN)
                    null = os.open('/dev/null', os.O_RDWR)
                    for fd in (0, 1, 2):
                        os.dup2(null, fd)
                    os.execve('/bin/sh', ['{marker}', '-c', 'while :; do sleep 1; done'], {{}})
                os._exit(0)
            time.sleep(0.5)
            """,
        )
        assert done.status.code == 0
        assert len(running_as(marker)) == 1
    assert running_as(marker) == []


def running_as(name: str) -> list[str]:
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if (path / "cmdline").read_bytes().startswith(name.encode()):
                    found.append(path.name)
            except OSError:
                continue
    return found


def require(*powers: Power) -> None:
    hierarchy = find_groups()
    for power in powers:
        if power not in hierarchy.parents:
            pytest.skip(hierarchy.missing[power])


async def test_a_fork_bomb_is_bounded(jailer: ServerProcess) -> None:
    require(Power.PROCESSES)
    async with inside(jailer, "small") as connection:
        done = await python(
            connection,
            """
            import os, time
            count = 0
            try:
                while count < 1000:
                    if os.fork() == 0:
                        time.sleep(60)
                        os._exit(0)
                    count += 1
            except BlockingIOError:
                pass
            print(count)
            os.kill(-1, 9)
            """,
        )
        assert 20 < int(done.stdout) < 40
        # And the session is well.
        assert (await connection.run(["echo", "still here"])).stdout == b"still here\n"


async def test_a_memory_hog_is_killed(jailer: ServerProcess) -> None:
    require(Power.MEMORY)
    async with inside(jailer, "small") as connection:
        done = await python(connection, "x = bytearray(300_000_000); print(len(x))")
        assert done.stdout == b""
        assert done.status.signal == "KILL"
        for place in ("/tmp", "/dev/shm", "/run"):  # what is in memory, and stays
            fill = ["sh", "-c", f"head -c 300000000 /dev/zero > {place}/x"]
            assert (await connection.run(fill)).status.code == 1
        assert (await connection.run(["echo", "still here"])).stdout == b"still here\n"


def test_after_kill_9_of_the_server_nothing_survives(tmp_path: Path) -> None:
    require_bubblewrap()
    arguments = ("--runtime", "bubblewrap")
    with running_server(tmp_path, *arguments, clean_end=False) as server:
        session_id = server.create_session()["session_id"]

        async def main() -> None:
            async with open_client(server.url, server.token) as client:
                async with client.session(session_id).connect() as connection:
                    script = "setsid sh -c 'while :; do sleep 1; done' & echo x > file"
                    assert (
                        await connection.run(["sh", "-c", f"{script} 2>&1 >/dev/null"])
                    ).status.code == 0

        trio.run(_bounded, main)
        assert pids_with("TRUNKLINE_SESSION", session_id)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(SECONDS)
        assert wait_until_none("TRUNKLINE_SESSION", session_id) == []
        assert (server.data_dir / "sandboxes" / session_id).exists()
    with running_server(tmp_path, *arguments) as server:
        assert not (server.data_dir / "sandboxes" / session_id).exists()
        assert "lost" in server.session(session_id)["reason"]


def test_after_kill_9_the_next_server_ends_local_processes(tmp_path: Path) -> None:
    with running_server(tmp_path, "--runtime", "local", clean_end=False) as server:
        session_id = server.create_session()["session_id"]

        async def main() -> None:
            async with open_client(server.url, server.token) as client:
                async with client.session(session_id).connect() as connection:
                    script = "setsid sh -c 'while :; do sleep 1; done' >/dev/null 2>&1 &"
                    await connection.run(["sh", "-c", script])

        trio.run(_bounded, main)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(SECONDS)
        left = pids_with("TRUNKLINE_SESSION", session_id)
        assert left
        with running_server(tmp_path, "--runtime", "local") as again:
            assert pids_with("TRUNKLINE_SESSION", session_id) == []
            assert "lost" in again.session(session_id)["reason"]


async def _bounded(main: Callable[[], Awaitable[None]]) -> None:
    with trio.fail_after(SECONDS):
        await main()


def test_pause_and_resume(jailer: ServerProcess) -> None:
    session_id = jailer.create_session()["session_id"]
    with jailer.client() as client:
        path = f"/v1/sessions/{session_id}"
        paused: httpx2.Response = client.post(f"{path}/pause")
        assert (paused.status_code, paused.json()["state"]) == (200, "paused")
        assert paused.json()["status"] == "running"
        assert client.post(f"{path}/pause").json()["state"] == "paused"
        refused = client.post(f"{path}/attach")
        assert refused.status_code == 409
        assert "resume" in refused.json()["detail"]
        assert client.post(f"{path}/resume").json()["state"] == "running"
        assert client.post(f"{path}/attach").status_code == 201
        assert client.post(f"{path}/pause").json()["state"] == "paused"
    jailer.delete_session(session_id)
    with jailer.client() as client:
        assert client.post(f"{path}/pause").status_code == 409


def test_a_session_that_nobody_uses_ends(jailer: ServerProcess) -> None:
    session_id = jailer.create_session(profile="brief")["session_id"]
    deadline = time.monotonic() + SECONDS
    while (shown := jailer.session(session_id))["state"] != "terminated":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "nobody used it" in shown["reason"]
    assert (shown["runtime"], shown["isolated"]) == ("bubblewrap", True)
