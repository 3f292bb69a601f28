"""`trunkline forward` and `trunkline proxy` with real servers, clients and cuts."""

from __future__ import annotations

import getpass
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.testing.cli import open_cli, read_until, run_cli
from tests.testing.cutting_proxy import Cut, open_cutting_proxy
from tests.testing.server_process import ServerProcess, running_server
from tests.testing.socket_servers import echo, flood, open_server, reset

SEED = 20261122
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    """The proxy's port: known before the server starts, which must allow it as a name."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening


@pytest.fixture(scope="module")
def proxied(
    listener: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    port = listener.getsockname()[1]
    config = f"""
    allowed_hosts = ["127.0.0.1:{port}"]
    [profiles.narrow]
    ports = [1]
    """
    with running_server(tmp_path_factory.mktemp("forward"), config=config) as server:
        yield server


@pytest.fixture
def env(proxied: ServerProcess) -> dict[str, str]:
    return dict(proxied.environment)


@pytest.fixture
def cut_env(env: dict[str, str], proxied: ServerProcess, listener: socket.socket) -> dict[str, str]:
    """The environment of a client that goes through the proxy."""
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    return env | {"TRUNKLINE_URL": url, "TRUNKLINE_TOKEN": proxied.token}


@pytest.fixture
def session_id(proxied: ServerProcess) -> Iterator[str]:
    session = proxied.create_session()["session_id"]
    yield session
    proxied.delete_session(session)
    proxied.check_log()


@asynccontextmanager
async def forwarding(
    env: dict[str, str], session_id: str, *ports: int | None
) -> AsyncIterator[tuple[trio.Process, list[int]]]:
    """Run `trunkline forward`; give its process and the ports here."""
    wanted = [f"0:{port}" for port in ports]
    async with open_cli(env, "forward", session_id, *wanted) as process:
        assert process.stdout is not None
        text = b""
        while text.count(b"\n") < len(ports):
            piece = await process.stdout.receive_some()
            assert piece, (await process.wait(), text)
            text += piece
        lines = re.findall(rb"127\.0\.0\.1:(\d+) -> port (\d+)\n", text)
        assert [int(remote) for _, remote in lines] == list(ports)
        yield process, [int(local) for local, _ in lines]
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        rest = await process.stderr.receive_some()
        assert b"Traceback" not in rest, rest.decode()
        assert await process.wait() == 0


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([piece async for piece in stream])


async def converse(port: int, data: bytes) -> bytes:
    """Send `data` and the end to a local port, and return what comes back."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream, trio.open_nursery() as nursery:

        async def feed() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(feed)
        return await read_all(stream)


async def test_bytes_and_ends(env: dict[str, str], session_id: str) -> None:
    async with (
        open_server(echo) as one,
        open_server(echo) as two,
        forwarding(env, session_id, one.port, two.port) as (_, locals_),
    ):
        for local in locals_:
            assert await converse(local, b"\x00\xff" * 1000) == b"\x00\xff" * 1000


async def test_twenty_megabytes_under_cuts(
    proxied: ServerProcess, listener: socket.socket, cut_env: dict[str, str], session_id: str
) -> None:
    rng = random.Random(SEED)
    data = rng.randbytes(20_000_000)
    # Both directions count: 40 MB pass in all.
    budgets = iter([rng.randint(200_000, 2_500_000) for _ in range(12)])
    async with (
        open_server(echo) as target,
        open_cutting_proxy(listener, proxied.port, budgets=budgets, seed=SEED) as proxy,
        forwarding(cut_env, session_id, target.port) as (process, (local,)),
        trio.open_nursery() as nursery,
    ):
        assert process.stderr is not None

        async def idle() -> None:
            assert await converse(local, b"one that waits meanwhile") == b"one that waits meanwhile"

        nursery.start_soon(idle)
        got = await converse(local, data)
        assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
        assert len(proxy.cuts) == 12
        assert set(proxy.cuts) == set(Cut)
        await read_until(process.stderr, b"connected again")


async def test_a_web_server_with_fifty_clients(
    env: dict[str, str], session_id: str, tmp_path: Path
) -> None:
    content = random.Random(SEED).randbytes(300_000)
    (tmp_path / "file").write_bytes(content)
    with web_server(tmp_path) as port:
        async with forwarding(env, session_id, port) as (_, (local,)):
            answers: list[bytes] = []

            async def get() -> None:
                request = b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                stream = await trio.open_tcp_stream("127.0.0.1", local)
                async with stream:
                    await stream.send_all(request)
                    answers.append(await read_all(stream))

            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(get)
            assert len(answers) == 50
            for answer in answers:
                head, _, body = answer.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.0 200")
                assert body == content


class web_server:  # noqa: N801 - a context manager
    """`python -m http.server` on a free port, as a real process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> int:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"],
            cwd=self._directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        match = re.search(r"port (\d+)", self._process.stdout.readline())
        assert match is not None
        return int(match[1])

    def __exit__(self, *args: object) -> None:
        self._process.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()


async def test_a_stalled_connection_does_not_slow_another(
    env: dict[str, str], session_id: str
) -> None:
    async def measure(port: int) -> float:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            began = trio.current_time()
            size = 0
            while size < 60_000_000:
                size += len(await stream.receive_some())
            return trio.current_time() - began

    async with (
        open_server(flood) as target,
        forwarding(env, session_id, target.port) as (_, (local,)),
    ):
        alone = await measure(local)
        stalled = [await trio.open_tcp_stream("127.0.0.1", local) for _ in range(3)]
        for stream in stalled:
            await stream.receive_some(1)
        beside = await measure(local)
        for stream in stalled:
            await stream.aclose()
    assert beside < 3 * alone + 0.5


async def test_what_breaks_is_no_end(env: dict[str, str], session_id: str) -> None:
    ends: list[str] = []
    begun, over = trio.Event(), trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        if await stream.receive_some() == b"break":
            await stream.send_all(b"half of the ans")
            await stream.receive_some()
            reset(stream)
            return
        begun.set()
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            ends.append("broken")
        over.set()

    async with (
        open_server(serve) as target,
        forwarding(env, session_id, target.port, 1) as (process, (local, dead)),
    ):
        async with await trio.open_tcp_stream("127.0.0.1", local) as stream:
            await stream.send_all(b"break")
            assert await stream.receive_some() == b"half of the ans"
            await stream.send_all(b"now")
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        async with await trio.open_tcp_stream("127.0.0.1", local) as stream:
            await stream.send_all(b"half of a requ")
            await begun.wait()
            reset(stream)
        await over.wait()
        assert ends == ["broken"]
        # And where nobody listens, as if it were here.
        async with await trio.open_tcp_stream("127.0.0.1", dead) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert process.stderr is not None
        await read_until(process.stderr, b"port 1: connection refused")


async def test_each_direction_ends_by_itself(env: dict[str, str], session_id: str) -> None:
    got: list[bytes] = []
    over = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"said all")
        await stream.send_eof()
        got.append(await read_all(stream))
        over.set()

    async with (
        open_server(serve) as target,
        forwarding(env, session_id, target.port) as (_, (local,)),
    ):
        stream = await trio.open_tcp_stream("127.0.0.1", local)
        assert await read_all(stream) == b"said all"
        await stream.send_all(b"still listening?")
        await stream.send_eof()
        await over.wait()
        assert got == [b"still listening?"]
        await stream.aclose()


async def test_what_cannot_be_forwarded(
    env: dict[str, str], session_id: str, proxied: ServerProcess
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = await run_cli(env, "forward", session_id, f"{port}:80")
        assert (ended.code, ended.errors.count(f"port {port} of this machine is in use")) == (1, 1)
    for wrong in ("x", "1:2:3", "70000", "80:0", "-1", ""):
        ended = await run_cli(env, "forward", session_id, "--", wrong)
        assert ended.code == 2, wrong
    ended = await run_cli(env, "forward", "0" * 8, "0:80")
    assert (ended.code, "no session" in ended.errors.lower()) == (1, True), ended.errors
    narrow = proxied.create_session(profile="narrow")["session_id"]
    ended = await run_cli(env, "forward", narrow, "0:80")
    assert (ended.code, "allows connections to 1 only" in ended.errors) == (1, True), ended.errors
    proxied.delete_session(narrow)


async def test_the_end_of_the_session_ends_it(env: dict[str, str], proxied: ServerProcess) -> None:
    other = proxied.create_session()["session_id"]
    async with open_cli(env, "forward", other, "0:1") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        await read_until(process.stdout, b"-> port 1\n")
        await trio.to_thread.run_sync(proxied.delete_session, other)
        errors = await read_all(process.stderr)
        assert await process.wait() == 1
    assert b"session_ended" in errors
    assert b"Traceback" not in errors


# ---------------------------------------------------------------- proxy


async def test_proxy_copies_both_ways_and_ends_each(env: dict[str, str], session_id: str) -> None:
    data = random.Random(SEED).randbytes(3_000_000)
    async with open_server(echo) as target:
        ended = await run_cli(env, "proxy", session_id, str(target.port), stdin=data)
    assert (ended.code, ended.stdout == data) == (0, True), ended.errors


async def test_proxy_ends_its_output_and_goes_on_with_its_input(
    env: dict[str, str], session_id: str
) -> None:
    got: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"said all")
        await stream.send_eof()
        got.append(await read_all(stream))

    ours, theirs = socket.socketpair()  # as OpenSSH does it: both are the same socket
    async with (
        open_server(serve) as target,
        open_cli(
            env, "proxy", session_id, str(target.port), stdin=theirs, stdout=theirs
        ) as process,
    ):
        theirs.close()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        assert await read_all(stream) == b"said all"
        await stream.send_all(b"still there?")
        await stream.send_eof()
        assert await process.wait() == 0
        assert got == [b"still there?"]
        await stream.aclose()


async def test_proxy_tells_what_went_wrong(env: dict[str, str], session_id: str) -> None:
    ended = await run_cli(env, "proxy", session_id, "1")
    assert (ended.code, "port 1: connection refused" in ended.errors) == (127, True)

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"half")
        await trio.sleep(0.1)
        reset(stream)

    async with open_server(serve) as target:
        ended = await run_cli(env, "proxy", session_id, str(target.port), stdin=b"")
        assert (ended.code, ended.stdout) == (1, b"half")
        assert "the connection broke" in ended.errors
    async with (
        open_server(flood) as target,
        open_cli(env, "proxy", session_id, str(target.port)) as process,
    ):
        assert process.stdout is not None
        await process.stdout.receive_some()
        await process.stdout.aclose()
        assert await process.wait() == 141


@pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None or os.geteuid() != 0,
    reason="needs OpenSSH's ssh and sshd, and to be root to run it",
)
async def test_ssh_through_the_proxy_under_cuts(
    proxied: ServerProcess,
    listener: socket.socket,
    cut_env: dict[str, str],
    session_id: str,
    tmp_path: Path,
) -> None:
    rng = random.Random(SEED)
    with open_sshd(tmp_path) as port:
        command = [
            *("ssh", "-F", "none", "-T", "-i", str(tmp_path / "user")),
            *("-o", f"UserKnownHostsFile={tmp_path / 'known'}", "-o", "StrictHostKeyChecking=no"),
            *("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"),
            *("-o", f"ProxyCommand={proxy_command(tmp_path)} proxy {session_id} {port}"),
            f"{getpass.getuser()}@sandbox",
            "wc -c; seq 1 300000; exit 3",
        ]
        budgets = iter([rng.randint(20_000, 400_000) for _ in range(8)])
        async with open_cutting_proxy(listener, proxied.port, budgets=budgets, seed=SEED) as proxy:
            done = await trio.run_process(
                command,
                stdin=rng.randbytes(2_000_000),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=cut_env,
            )
    assert done.returncode == 3, done.stderr
    expected = "2000000\n" + "".join(f"{n}\n" for n in range(1, 300_001))
    assert done.stdout == expected.encode()
    assert len(proxy.cuts) == 8


def proxy_command(directory: Path) -> str:
    """Return a command that runs `trunkline`; ssh gives it to a shell."""
    script = directory / "trunkline"
    script.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "from trunkline.cli import main; main()" "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


class open_sshd:  # noqa: N801 - a context manager
    """A real sshd for keys made here, on a free port of the loopback."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> int:
        directory = self._directory
        for name in ("host", "user"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(keygen, check=True)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        config = directory / "sshd_config"
        config.write_text(
            f"""
            Port {port}
            ListenAddress 127.0.0.1
            HostKey {directory / "host"}
            AuthorizedKeysFile {directory / "user.pub"}
            PidFile none
            StrictModes no
            UsePAM no
            PermitRootLogin yes
            PasswordAuthentication no
            """
        )
        assert SSHD is not None
        self._process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(config)], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert "Server listening" in line, line
        return port

    def __exit__(self, *args: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        assert self._process.stderr is not None
        self._process.stderr.close()
