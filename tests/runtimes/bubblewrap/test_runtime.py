from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from relay.endpoint import Channel, ExitStatus, Kind, SocketTarget, StartError, StartRequest
from runtimes.base import Mount, Network, ResourceLimits, Sandbox, SandboxError, SandboxSpec
from runtimes.bubblewrap import BubblewrapRuntime
from runtimes.cgroups import Hierarchy, find_groups
from runtimes.cgroups.groups import Power
from tests.contracts.runtime_scenarios import exec_request, pty_request, read_all, read_until
from tests.testing.bubblewrap import require_bubblewrap
from tests.testing.file_operations import do
from tests.testing.processes import children, descriptors, running_pids

SPEC = SandboxSpec("s")
NO_GROUPS = Hierarchy(2, {}, dict.fromkeys(Power, "there are none; ask the administrator"))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where sandboxes are; nothing may be left there, nor of processes and descriptors."""
    require_bubblewrap()
    path = tmp_path / "sandboxes"
    before = set(descriptors())
    yield path
    assert not children()
    # Trio's own come and go, but its threads hold none.
    assert len(set(descriptors()) - before) <= 0, descriptors()


@asynccontextmanager
async def opened(runtime: BubblewrapRuntime, spec: SandboxSpec = SPEC) -> AsyncIterator[Sandbox]:
    with trio.fail_after(30):
        async with runtime.open_sandbox(spec) as sandbox:
            yield sandbox


def make(directory: Path, hierarchy: Hierarchy | None = None) -> BubblewrapRuntime:
    return BubblewrapRuntime(directory, grace=0.3, linger=0.2, hierarchy=hierarchy)


async def output(sandbox: Sandbox, script: str) -> str:
    endpoint = await sandbox.start(exec_request("sh", "-c", f"exec 2>&1; {script}"))
    return (await read_all(endpoint)).decode()


def with_argument(part: str) -> list[int]:
    """Return the processes that have `part` in their command line, orphans included."""
    found = []
    for pid in running_pids():
        try:
            if part.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def entries(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()] if directory.exists() else []


async def test_it_works_here(directory: Path) -> None:
    runtime = make(directory)
    assert (runtime.name, runtime.isolated) == ("bubblewrap", True)
    await runtime.prepare()
    assert entries(directory) == []


async def test_without_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"no bwrap in PATH; install the package bubblewrap"):
        await make(tmp_path / "s").prepare()
    assert not (tmp_path / "s").exists()


async def test_a_bubblewrap_that_does_not_work(tmp_path: Path) -> None:
    """As where user namespaces are forbidden: what it says is passed on."""
    bwrap = tmp_path / "bwrap"
    bwrap.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n"
    )
    bwrap.chmod(0o755)
    runtime = BubblewrapRuntime(tmp_path / "s", executable=str(bwrap))
    with pytest.raises(SandboxError, match="No permissions to create a new namespace"):
        await runtime.prepare()
    assert entries(tmp_path / "s") == []
    assert not children()


async def test_who_one_is_and_what_one_sees(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "very secret")
    monkeypatch.setenv("TRUNKLINE_TOKEN", "very secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    async with opened(make(directory)) as sandbox:
        assert await output(sandbox, "id -u; id -g; id -un; hostname; pwd; ulimit -n") == (
            "1000\n1000\nuser\nsandbox\n/home/user\n1024\n"
        )
        environment = await output(sandbox, "env")
        assert "secret" not in environment
        assert "LANG=C.UTF-8" in environment
        status = await output(sandbox, "cat /proc/self/status")
        assert "NoNewPrivs:\t1" in status
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert f"{name}:\t0000000000000000" in status
        assert await output(sandbox, "ls -A /tmp ~") == "/home/user:\n\n/tmp:\n"
        assert "Read-only file system" in await output(sandbox, "touch /usr/x")
        assert "Read-only file system" in await output(sandbox, "touch /x")
        assert (await output(sandbox, "echo y > /tmp/x; cat /tmp/x; echo y > x; cat x")) == "y\ny\n"
        terminal = await sandbox.start(pty_request("sh", "-c", "tty; echo $TERM; stty -a"))
        said = await read_all(terminal)
        assert said.startswith(b"/dev/pts/0\r\nxterm-256color\r\n")
        assert b" iutf8" in said


async def test_homes_are_wiped_or_kept(directory: Path) -> None:
    runtime = make(directory)
    keeping = SandboxSpec("kept", keep_home=True)
    for spec, expected in ((SandboxSpec("s"), "none\n"), (keeping, "mine\n")):
        async with opened(runtime, spec) as sandbox:
            await output(sandbox, "echo mine > file; mkdir -p deep/er; chmod 0 deep")
        async with opened(runtime, spec) as sandbox:
            assert await output(sandbox, "cat file 2>/dev/null || echo none") == expected
    assert entries(directory) == ["kept"]


async def test_leftovers_are_removed(directory: Path) -> None:
    runtime = make(directory)
    for name, keep in (("left", False), ("kept", True)):
        runtime._places.make(name, keep=keep)
    runtime._groups.create("left", ResourceLimits())
    await make(directory).prepare()
    assert entries(directory) == ["kept"]
    parents = runtime._groups._hierarchy.parents.values()
    assert [list(parent.glob(f"{runtime._groups._prefix}*")) for parent in parents] == [
        [] for _ in parents
    ]


async def test_networks(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port})); print('through')"
        for network, reached in ((None, False), (Network.NONE, False), (Network.FULL, True)):
            async with opened(make(directory), SandboxSpec("s", network=network)) as sandbox:
                process = await sandbox.start(exec_request("python3", "-c", script))
                assert await read_all(process) == (b"through\n" if reached else b"")
                if not reached:
                    assert b"ConnectionRefusedError" in await read_all(process, Channel.ERROR)


async def test_mounts(directory: Path, tmp_path: Path) -> None:
    data = tmp_path / "shared"
    data.mkdir()
    (data / "file").write_text("shared")
    spec = SandboxSpec(
        "s", mounts=(Mount(str(data), "/data"), Mount(str(data), "/srv/rw", read_only=False))
    )
    async with opened(make(directory), spec) as sandbox:
        assert await output(sandbox, "cat /data/file; echo new > /srv/rw/new; cat /data/new") == (
            "sharednew\n"
        )
        assert "Read-only" in await output(sandbox, "touch /data/x")
    assert (data / "new").read_text() == "new\n"


async def test_a_root_of_its_own(directory: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "opt").mkdir(parents=True)
    (root / "opt" / "here").touch()
    (root / "usr").symlink_to("/nowhere")
    with pytest.raises(SandboxError, match=rf"{root} has no Python .* install one there"):
        async with opened(make(directory), SandboxSpec("s", root=str(root))):
            pytest.fail("it opened")
    # The real root will do for one that has everything.
    async with opened(make(directory), SandboxSpec("s", root="/")) as sandbox:
        assert await output(sandbox, "id -un; cat /etc/hosts | head -1") == (
            "user\n127.0.0.1 localhost sandbox\n"
        )


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (SandboxSpec("s", directory="/no/such/place"), "/no/such/place does not exist"),
        (SandboxSpec("s", mounts=(Mount("/no/such", "/x"),)), "mounts: /no/such does not exist"),
        (SandboxSpec("s", mounts=(Mount("/etc", "/usr/x/y"),)), "could not be made: bwrap: "),
        (SandboxSpec("s", root="/no/such/root"), "root: /no/such/root can't be used"),
        (SandboxSpec("../s"), "cannot be the name of a sandbox"),
        (
            SandboxSpec("s", limits=ResourceLimits(memory_bytes=10**9)),
            "limit of memory cannot be enforced here: there are none; ask",
        ),
    ],
)
async def test_a_failed_start_leaves_nothing(
    directory: Path, spec: SandboxSpec, problem: str
) -> None:
    with pytest.raises(SandboxError) as caught:
        async with opened(make(directory, NO_GROUPS), spec):
            pytest.fail("it opened")
    assert problem in str(caught.value)
    assert entries(directory) == []


async def test_a_cancelled_start_leaves_nothing(directory: Path) -> None:
    for delay in (0, 0.001, 0.005, 0.01, 0.02, 0.04):
        with trio.move_on_after(delay):
            async with make(directory).open_sandbox(SandboxSpec("s")):
                await trio.sleep_forever()
        assert entries(directory) == []
        assert not children()
        assert with_argument(str(directory)) == []


@pytest.mark.parametrize("kind", [Kind.EXEC, Kind.PTY])
async def test_a_cancelled_process_is_not_left_running(directory: Path, kind: Kind) -> None:
    async with opened(make(directory)) as sandbox:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sandbox.start, StartRequest(kind, ("sleep", "1000")))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert sandbox.statistics().endpoints_started == 0
        with trio.fail_after(10):
            while "sleep" in await output(sandbox, "cat /proc/[0-9]*/comm"):
                await trio.sleep(0.01)


async def test_other_users_there_are_none(directory: Path) -> None:
    async with opened(make(directory)) as sandbox:
        for user in ("root", "nobody"):
            with pytest.raises(StartError, match="one user, 'user'"):
                await sandbox.start(StartRequest(Kind.EXEC, ("id",), user=user))
        mine = await sandbox.start(StartRequest(Kind.EXEC, ("id", "-un"), user="user"))
        assert await read_all(mine) == b"user\n"


async def test_files_are_those_of_the_home(directory: Path) -> None:
    async with opened(make(directory)) as sandbox:
        assert (await do(sandbox, "write", "a", b"from outside")).error is None
        assert await output(sandbox, "cat a; echo inside > b; ln -s /etc/passwd link") == (
            "from outside"
        )
        assert (await do(sandbox, "read", "/home/user/b")).content == b"inside\n"
        assert (await do(sandbox, "read", "link")).error == "not_found"
        for path in ("/etc/passwd", "/home/userx", "/home/user/../../tmp/x", "//tmp"):
            done = await do(sandbox, "read", path)
            assert done.error == "outside", path
        assert (await do(sandbox, "move", "a", target="/tmp/a")).error == "outside"


async def test_everything_ends_with_the_first_process(directory: Path) -> None:
    """The sandbox is over, whoever used it is told, and so is the owner."""
    with pytest.raises(ExceptionGroup) as caught:
        async with opened(make(directory)) as sandbox:
            command = await sandbox.start(exec_request("sh", "-c", "echo ready; sleep 1000"))
            await read_until(command, b"ready\n")
            (first,) = _first_processes()
            os.kill(first, signal.SIGKILL)
            assert await read_all(command) == b""
            assert await command.wait() == ExitStatus(signal="KILL")
            assert sandbox.broken
            with pytest.raises(StartError, match="ending"):
                await sandbox.start(exec_request("true"))
            await trio.sleep_forever()
    assert caught.group_contains(SandboxError, match="first process of the sandbox has ended")


def _first_processes() -> list[int]:
    """Return the children of the bwraps that are children of this process."""
    return [
        int(pid)
        for bwrap in children()
        for pid in Path(f"/proc/{bwrap}/task/{bwrap}/children").read_text().split()
    ]


@pytest.mark.parametrize("freezer", [True, False])
async def test_pause_and_resume(directory: Path, freezer: bool) -> None:
    hierarchy = find_groups() if freezer else NO_GROUPS
    if freezer and Power.FREEZE not in hierarchy.parents:
        pytest.skip("no freezer may be used here")
    async with opened(make(directory, hierarchy)) as sandbox:
        command = await sandbox.start(
            exec_request("sh", "-c", "while :; do echo tick; sleep 0.01; done")
        )
        await read_until(command, b"tick\n")
        await sandbox.pause()
        await sandbox.pause()
        with pytest.raises(StartError, match="paused; resume it first"):
            await sandbox.start(exec_request("true"))
        with trio.move_on_after(0.3):
            while True:  # what was there already
                await command.receive(Channel.OUTPUT, 65536)
        with trio.move_on_after(0.2) as still:
            await command.receive(Channel.OUTPUT, 1)
        assert still.cancelled_caught
        await sandbox.resume()
        await sandbox.resume()
        await read_until(command, b"tick\n")
        await sandbox.pause()  # and it ends all the same
    assert (await command.wait()).signal in {"TERM", "KILL"}


async def test_sockets_inside_and_not_outside(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with opened(make(directory)) as sandbox:
            with pytest.raises(StartError, match=f"port {port}: connection refused"):
                await sandbox.start(StartRequest(Kind.TCP, socket=SocketTarget(port)))
            with pytest.raises(StartError, match="socket /run/x: no such file"):
                await sandbox.start(StartRequest(Kind.TCP, socket=SocketTarget(path="/run/x")))


async def test_much_is_started_at_once(directory: Path) -> None:
    async with opened(make(directory)) as sandbox:
        seen: list[bytes] = []

        async def run(number: int) -> None:
            endpoint = await sandbox.start(exec_request("echo", str(number)))
            seen.append(await read_all(endpoint))
            await endpoint.aclose()

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(run, number)
        assert sorted(int(text) for text in seen) == list(range(50))
        assert await output(sandbox, "grep -l Z /proc/[0-9]*/stat | wc -l") == "0\n"


async def test_what_is_too_long(directory: Path) -> None:
    async with opened(make(directory)) as sandbox:
        for size, problem in ((200_000, "Argument list too long"), (5 * 2**20, "too long")):
            with pytest.raises(StartError, match=problem):
                await sandbox.start(exec_request("echo", "x" * size))
        assert await output(sandbox, "echo on") == "on\n"
