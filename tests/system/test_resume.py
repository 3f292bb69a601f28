"""The real client against the real server, through a proxy that cuts: no byte is lost or repeated."""

from __future__ import annotations

import hashlib
import random
import re
import signal
import socket
from collections.abc import Iterator

import pytest
import trio

from tests.testing.cli import open_cli, open_terminal_cli, read_until
from tests.testing.cutting_proxy import Cut, open_cutting_proxy
from tests.testing.server_process import ServerProcess, running_server

SEED = 20261121


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
    config = f'allowed_hosts = ["127.0.0.1:{port}"]'
    with running_server(tmp_path_factory.mktemp("resume"), config=config) as server:
        yield server


@pytest.fixture
def env(proxied: ServerProcess, listener: socket.socket) -> dict[str, str]:
    """The environment of a client that goes through the proxy."""
    return {
        **proxied.environment,
        "TRUNKLINE_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
        "TRUNKLINE_TOKEN": proxied.token,
    }


@pytest.fixture
def session_id(proxied: ServerProcess) -> Iterator[str]:
    session = proxied.create_session()["session_id"]
    yield session
    proxied.delete_session(session)
    proxied.check_log()


async def sha256(stream: trio.abc.ReceiveStream) -> tuple[str, int]:
    """Read to the end; return the digest and the number of bytes."""
    digest = hashlib.sha256()
    size = 0
    async for piece in stream:
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size


@pytest.mark.slow
async def test_output_cut_twenty_times(
    proxied: ServerProcess, listener: socket.socket, env: dict[str, str], session_id: str
) -> None:
    expected = "".join(f"{n}\n" for n in range(1, 3_000_001)).encode()
    rng = random.Random(SEED)
    budgets = iter([rng.randint(100_000, 1_000_000) for _ in range(20)])
    with trio.fail_after(90):
        async with (
            open_cutting_proxy(listener, proxied.port, budgets=budgets, seed=SEED) as proxy,
            open_cli(
                env, "exec", session_id, "--", "sh", "-c", "seq 1 3000000", stdin=None
            ) as process,
        ):
            assert process.stdout is not None
            digest, size = await sha256(process.stdout)
            assert await process.wait() == 0
    assert size == len(expected)
    assert digest == hashlib.sha256(expected).hexdigest()
    assert len(proxy.cuts) == 20
    assert set(proxy.cuts) == set(Cut)
    assert proxy.websockets == 21


@pytest.mark.slow
async def test_input_under_cuts(
    proxied: ServerProcess, listener: socket.socket, env: dict[str, str], session_id: str
) -> None:
    rng = random.Random(SEED)
    data = rng.randbytes(20_000_000)
    # Both directions count: 40 MB pass in all.
    budgets = iter([rng.randint(200_000, 2_500_000) for _ in range(12)])
    with trio.fail_after(90):
        async with (
            open_cutting_proxy(listener, proxied.port, budgets=budgets, seed=SEED) as proxy,
            open_cli(env, "exec", session_id, "--", "cat") as process,
            trio.open_nursery() as nursery,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            stdin = process.stdin

            async def feed() -> None:
                await stdin.send_all(data)
                await stdin.aclose()

            nursery.start_soon(feed)
            digest, size = await sha256(process.stdout)
            assert await process.wait() == 0
    assert size == len(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert len(proxy.cuts) == 12
    assert set(proxy.cuts) == set(Cut)


async def test_a_command_that_ends_during_the_cut(
    proxied: ServerProcess, listener: socket.socket, env: dict[str, str], session_id: str
) -> None:
    """Its exit status and its last words are kept for the client that comes back."""
    script = "echo begun; read line; echo last words; exit 7"
    with trio.fail_after(60):
        async with (
            open_cutting_proxy(listener, proxied.port) as proxy,
            open_cli(env, "exec", session_id, "--", "sh", "-c", script) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            await read_until(process.stdout, b"begun\n")
            proxy.refusing = True
            proxy.cut(Cut.RESET)
            await read_until(process.stderr, b"reconnecting")
            await process.stdin.send_all(b"typed while away\n")
            proxy.refusing = False
            assert await read_until(process.stdout, b"words\n") == b"last words\n"
            assert await process.wait() == 7
            assert b"connected again" in await read_until(process.stderr, b"again")
    assert len(proxy.cuts) == 1


async def test_the_server_forgets_the_session_during_the_cut(
    proxied: ServerProcess, listener: socket.socket, env: dict[str, str]
) -> None:
    """A client that cannot come back says so and stops trying."""
    session = proxied.create_session()["session_id"]
    with trio.fail_after(60):
        async with (
            open_cutting_proxy(listener, proxied.port) as proxy,
            open_cli(env, "exec", session, "--", "cat") as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            await process.stdin.send_all(b"hello\n")
            await read_until(process.stdout, b"hello\n")
            proxy.refusing = True
            proxy.cut(Cut.FINISH)
            await read_until(process.stderr, b"reconnecting")
            await trio.to_thread.run_sync(proxied.delete_session, session)
            proxy.refusing = False
            assert await process.wait() == 1
            said = await read_until(process.stderr, b"session_ended")
            assert b"Traceback" not in said


async def test_nobody_answers_any_more(
    proxied: ServerProcess, listener: socket.socket, env: dict[str, str], session_id: str
) -> None:
    """Ctrl-C works while the client waits for the next attempt."""
    with trio.fail_after(60):
        async with (
            open_cutting_proxy(listener, proxied.port) as proxy,
            open_cli(env, "exec", session_id, "--", "cat") as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            await process.stdin.send_all(b"hello\n")
            await read_until(process.stdout, b"hello\n")
            proxy.refusing = True
            proxy.cut(Cut.RESET)
            await read_until(process.stderr, b"reconnecting")
            process.send_signal(signal.SIGINT)
            await read_until(process.stderr, b"once more gives up")
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130


async def test_a_terminal_is_typed_into_during_the_cut(
    proxied: ServerProcess, listener: socket.socket, env: dict[str, str], session_id: str
) -> None:
    """What was typed while the connection was away arrives once, and in order."""
    with trio.fail_after(90):
        async with open_cutting_proxy(listener, proxied.port) as proxy:
            with open_terminal_cli(env, "attach", session_id) as terminal:
                await terminal.expect(rb"[$#] ")
                await terminal.type(b"echo A$((1+1))B\r")
                await terminal.expect(rb"A2B\r\n")
                for how in (Cut.RESET, Cut.FINISH, Cut.RESET):
                    proxy.refusing = True
                    proxy.cut(how)
                    await terminal.expect(rb"reconnecting")
                    await terminal.type(b"echo C$((1+2))D; ")
                    await terminal.type(b"echo E$((2+2))F\r")
                    proxy.refusing = False
                    await terminal.expect(rb"C3D\r\nE4F\r\n")
                # Typing goes on while the line is cut again and again.
                word = b"".join(b"%03d" % n for n in range(100))
                await terminal.type(b"cat > /dev/null; echo T$((3+3))T\r")
                for n in range(0, len(word), 30):
                    await terminal.type(word[n : n + 30])
                    proxy.cut(Cut.RESET)
                await terminal.type(b"\r\x04")
                await terminal.expect(rb"T6T\r\n")
                await terminal.type(b"exit 3\r")
                assert await terminal.wait() == 3
                assert len(proxy.cuts) >= 4
    echoed = terminal.seen.replace(b"\r\n", b"")
    echoed = re.sub(rb"\[trunkline: [^]]*\]", b"", echoed)
    assert echoed.count(word) == 1
