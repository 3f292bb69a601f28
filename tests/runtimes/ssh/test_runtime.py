"""What only hosts reached by SSH do, against a real OpenSSH server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from relay.endpoint import Channel, ExitStatus, Kind, SocketTarget, StartError, StartRequest
from runtimes.base import Network, ResourceLimits, Sandbox, SandboxError, SandboxSpec
from runtimes.ssh import SshHost, SshRuntime
from runtimes.ssh.channel import BUFFER_BYTES, MOST_HELD_BYTES
from runtimes.ssh.endpoint import ProcessEndpoint
from runtimes.ssh.scripts import MARK, mark_of
from tests.contracts.runtime_scenarios import (
    PIECE,
    exec_request,
    pty_request,
    read_all,
    read_until,
)
from tests.testing.processes import descriptors, is_running, wait_until_gone
from tests.testing.socket_servers import discard, open_server
from tests.testing.ssh_server import SshServer, make_key, ssh_server

SPEC = SandboxSpec("the-ssh-session")
BOUND_SECONDS = 60
FLOOD_BYTES = 300_000_000
MOST_SENT_BYTES = 4_000_000
STRAY = "setsid sh -c 'setsid sleep 1000 >/dev/null 2>&1 & echo $!' & wait"


async def output_of(sandbox: Sandbox, script: str) -> str:
    endpoint = await sandbox.start(exec_request("sh", "-c", script))
    output = (await read_all(endpoint)).decode()
    await endpoint.aclose()
    return output


async def refusal(runtime: SshRuntime, spec: SandboxSpec = SPEC) -> str:
    with trio.fail_after(BOUND_SECONDS), pytest.raises(SandboxError) as caught:
        async with runtime.open_sandbox(spec):
            pytest.fail("it opened")
    return str(caught.value)


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, check=True, timeout=20
    )
    return done.stdout.decode()


def fingerprint_of(key: Path) -> str:
    return run("ssh-keygen", "-lf", str(key)).split()[1]


@contextmanager
def ssh_agent(socket: str) -> Iterator[None]:
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline()  # it listens
        yield
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def parent_of(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


# -------------------------------------------------------------------- trust


async def test_an_unknown_key_is_told_with_what_to_do(
    server: SshServer, runtime: SshRuntime, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    known.write_text("")
    host = server.host(known_hosts=str(known))
    message = await refusal(SshRuntime(host))
    assert fingerprint_of(server.directory / "host_key.pub") in message
    assert f"not in {known}" in message
    # It is enough to do what the message says.
    known.write_text(message.rpartition(f"to {known}: ")[2] + "\n")
    async with SshRuntime(host, grace=0.2).open_sandbox(SPEC) as sandbox:
        assert await output_of(sandbox, "echo trusted") == "trusted\n"


async def test_a_key_that_has_changed_is_told_apart(server: SshServer, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    kind, key, *_ = (tmp_path / "other.pub").read_text().split()
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    message = await refusal(SshRuntime(server.host(known_hosts=str(known))))
    assert "shows another key than the one in" in message
    assert "SHA256:" in message


async def test_without_known_hosts_nothing_is_trusted(server: SshServer, tmp_path: Path) -> None:
    runtime = SshRuntime(server.host(known_hosts=str(tmp_path / "none")))
    assert "ssh-keyscan" in await refusal(runtime)
    with pytest.raises(SandboxError, match="ssh-keyscan"):
        await runtime.prepare()
    await SshRuntime(server.host()).prepare()


async def test_a_login_that_is_refused(server: SshServer, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    runtime = SshRuntime(server.host(keys=(str(tmp_path / "stranger"),)))
    assert "authorized_keys" in await refusal(runtime)
    runtime = SshRuntime(server.host(keys=(str(tmp_path / "missing"),)))
    assert str(tmp_path / "missing") in await refusal(runtime)
    (tmp_path / "no key").write_text("nothing of the kind")
    runtime = SshRuntime(server.host(keys=(str(tmp_path / "no key"),)))
    assert "cannot be used" in await refusal(runtime)


async def test_nobody_is_there(server: SshServer) -> None:
    host = SshHost("127.0.0.1", "ada", server.known_hosts, port=1, keys=(server.key,))
    assert "ada@127.0.0.1:1 cannot be reached" in await refusal(SshRuntime(host))
    await SshRuntime(host).end_lost(["whichever"])  # which is only logged


async def test_a_server_that_says_nothing_is_given_up(server: SshServer) -> None:
    async with open_server(discard) as target:
        assert target.port is not None
        host = replace(server.host(), port=target.port)
        before = descriptors()
        with trio.move_on_after(0.3) as scope:
            async with SshRuntime(host).open_sandbox(SPEC):
                pytest.fail("it opened")
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked(0.01)  # the server's side
        assert descriptors() == before


async def test_a_server_that_is_none(server: SshServer) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 1000)

    async with open_server(serve) as target:
        assert target.port is not None
        host = replace(server.host(), port=target.port)
        assert f"127.0.0.1:{target.port}" in await refusal(SshRuntime(host))


async def test_an_agent_and_a_certificate(
    server: SshServer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is not installed")
    authority, key, socket = (str(tmp_path / name) for name in ("authority", "key", "agent"))
    make_key(Path(authority))
    make_key(Path(key))
    login = server.host().username
    run("ssh-keygen", "-q", "-s", authority, "-I", "test", "-n", login, f"{key}.pub")
    with ssh_agent(socket):
        with ssh_server(
            tmp_path_factory.mktemp("sshd"), f"TrustedUserCAKeys {authority}.pub"
        ) as other:
            host = other.host(keys=(key,), certificates=(f"{key}-cert.pub",))
            async with SshRuntime(host, grace=0.2).open_sandbox(SPEC) as sandbox:
                assert await output_of(sandbox, "echo certified") == "certified\n"
            host = other.host(keys=(), agent=socket)
            assert "holds no key" in await refusal(SshRuntime(host))
            run("ssh-add", "-q", other.key, SSH_AUTH_SOCK=socket)
            async with SshRuntime(host, grace=0.2).open_sandbox(SPEC) as sandbox:
                assert await output_of(sandbox, "echo by agent") == "by agent\n"


async def test_what_it_needs_may_be_missing(
    server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "runtimes.ssh.bridge", raising=False)
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    assert "asyncssh and trio-asyncio" in await refusal(SshRuntime(server.host()))


# -------------------------------------------------------------------- processes


async def test_more_processes_than_fit_on_a_connection(runtime: SshRuntime) -> None:
    with trio.fail_after(BOUND_SECONDS):
        async with runtime.open_sandbox(SPEC) as sandbox:
            cats = [await sandbox.start(exec_request("cat")) for _ in range(25)]
            for cat in cats:
                await cat.send(b"hello")
                assert await cat.receive(Channel.OUTPUT, PIECE) == b"hello"
            for cat in cats[:15]:
                await cat.aclose()
            more = [await sandbox.start(exec_request("cat")) for _ in range(15)]
            await more[-1].send(b"hello")
            assert await more[-1].receive(Channel.OUTPUT, PIECE) == b"hello"


async def test_what_a_session_has_started_ends_with_it(runtime: SshRuntime) -> None:
    with trio.fail_after(BOUND_SECONDS):
        async with runtime.open_sandbox(SPEC) as sandbox:
            stray = int(await output_of(sandbox, STRAY))
            assert is_running(stray)
        await wait_until_gone(stray)


async def test_what_an_earlier_life_has_left(runtime: SshRuntime, tmp_path: Path) -> None:
    def left(session_id: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, MARK: mark_of(str(tmp_path), session_id)}
        return subprocess.Popen(["sleep", "1000"], env=environment)

    ended, kept = left("lost"), left("another")
    try:
        with trio.fail_after(BOUND_SECONDS):
            await runtime.end_lost([])
            assert is_running(ended.pid)
            await runtime.end_lost(["lost", "unheard-of"])
            assert not is_running(ended.pid)
            assert is_running(kept.pid)
    finally:
        for process in (ended, kept):
            process.kill()
            process.wait(10)


async def test_a_lost_connection_ends_everything_and_says_why(runtime: SshRuntime) -> None:
    with trio.fail_after(BOUND_SECONDS):
        async with runtime.open_sandbox(SPEC) as sandbox:
            stray = int(await output_of(sandbox, STRAY))
            cat = await sandbox.start(exec_request("cat"))
            terminal = await sandbox.start(pty_request("cat"))
            states = [sandbox.broken]
            assert cat.pid is not None
            os.kill(parent_of(cat.pid), signal.SIGKILL)
            for endpoint in (cat, terminal):
                with pytest.raises(trio.BrokenResourceError, match="was lost"):
                    await read_until(endpoint, b"never")
                assert await endpoint.wait() == ExitStatus(signal="KILL")
                with pytest.raises(trio.BrokenResourceError):
                    await endpoint.send(b"x")
            states.append(sandbox.broken)
            assert states == [False, True]
            with pytest.raises(StartError, match="was lost"):
                await sandbox.start(exec_request("true"))
            with pytest.raises(StartError, match="was lost"):
                await sandbox.start(StartRequest(Kind.TCP, socket=SocketTarget(1)))
        await wait_until_gone(stray)


async def test_a_background_process_does_not_hold_the_output_open(runtime: SshRuntime) -> None:
    with trio.fail_after(BOUND_SECONDS):
        async with runtime.open_sandbox(SPEC) as sandbox:
            script = "sleep 1000 & echo done; exit 4"
            command = await sandbox.start(exec_request("sh", "-c", script))
            assert await command.wait() == ExitStatus(code=4)
            assert await read_all(command) == b"done\n"


async def test_odd_words_and_variables(runtime: SshRuntime) -> None:
    odd = 'it\'s "$HOME" `id`\n\\n ü€ *'
    async with runtime.open_sandbox(SPEC) as sandbox:
        for kind in (Kind.EXEC, Kind.PTY):
            script = '[ "$ODD" = "$1" ] && echo same'
            request = StartRequest(kind, ("sh", "-c", script, "sh", odd), environment={"ODD": odd})
            assert (await read_all(await sandbox.start(request))).split() == [b"same"]
        request = StartRequest(Kind.EXEC, ("true",), environment={"-i": "x"})
        with pytest.raises(StartError, match="no name of a variable"):
            await sandbox.start(request)
        with pytest.raises(StartError, match="'somebody'"):
            await sandbox.start(StartRequest(Kind.EXEC, ("true",), user="somebody"))


async def test_what_it_cannot_enforce(runtime: SshRuntime) -> None:
    for spec, what in (
        (SandboxSpec("s", limits=ResourceLimits(processes=3)), "limits"),
        (SandboxSpec("s", network=Network.NONE), "network"),
        (SandboxSpec("s", root="/"), "root"),
        (SandboxSpec(""), "empty"),
    ):
        assert what in await refusal(runtime, spec)
    assert not runtime.isolated


async def test_nothing_leaks(runtime: SshRuntime) -> None:
    async with runtime.open_sandbox(SPEC):  # what is opened once and for all
        pass
    before = descriptors()
    for _ in range(3):
        async with runtime.open_sandbox(SPEC) as sandbox:
            await sandbox.start(exec_request("cat"))
            await sandbox.start(pty_request("cat"))
    assert len(descriptors()) <= len(before)


# -------------------------------------------------------------------- memory


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
async def test_a_slow_reader_costs_little(runtime: SshRuntime) -> None:
    """What is not read stays with the process, however much it is."""
    with trio.fail_after(BOUND_SECONDS):
        async with runtime.open_sandbox(SPEC) as sandbox:
            script = f"head -c {FLOOD_BYTES} /dev/zero"
            flood = await sandbox.start(exec_request("sh", "-c", script))
            assert isinstance(flood, ProcessEndpoint)
            await flood.receive(Channel.OUTPUT, PIECE)
            received, most, resident = PIECE, 0, []
            while piece := await flood.receive(Channel.OUTPUT, PIECE):
                received += len(piece)
                if received // PIECE % 8 == 0:
                    # Long enough for whatever may come to come.
                    await trio.testing.wait_all_tasks_blocked(0.002)
                    resident.append(resident_bytes())
                most = max(most, flood.statistics()[Channel.OUTPUT])
            assert received >= FLOOD_BYTES
            assert await flood.wait() == ExitStatus(code=0)
            assert BUFFER_BYTES <= most <= MOST_HELD_BYTES < 4_000_000
            settled = resident[len(resident) // 10]
            assert max(resident[len(resident) // 10 :]) - settled < 4_000_000


async def test_a_process_that_does_not_read_costs_little(runtime: SshRuntime) -> None:
    """What is sent stops at what the server and the library take."""
    with trio.fail_after(BOUND_SECONDS):
        async with runtime.open_sandbox(SPEC) as sandbox:
            deaf = await sandbox.start(exec_request("sleep", "1000"))
            sent = 0
            with trio.move_on_after(1) as scope:
                while sent < FLOOD_BYTES:
                    await deaf.send(bytes(PIECE))
                    sent += PIECE
                    scope.deadline = trio.current_time() + 1
            assert scope.cancelled_caught
            assert PIECE < sent < MOST_SENT_BYTES
