"""How a connection ends, as the kernel tells it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from relay.endpoint import Channel, ExitStatus, SocketEnd, SocketTarget, StartError
from runtimes.local.sockets import connect
from runtimes.sockets import SocketEndpoint, connect_to_path, connect_to_port
from tests.testing.socket_servers import Serve, discard, open_server, reset

PIECE = 65536

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def connected(serve: Serve) -> AsyncIterator[SocketEndpoint]:
    """Connect to `serve`; the endpoint must say that it was closed, once."""
    closed: list[SocketEndpoint] = []
    async with open_server(serve) as target:
        endpoint = await connect(target, closed.append)
        yield endpoint
        await endpoint.aclose()
        assert closed == [endpoint]


async def read_to_the_end(endpoint: SocketEndpoint) -> bytes:
    got = bytearray()
    while data := await endpoint.receive(Channel.OUTPUT, PIECE):
        got += data
    return bytes(got)


async def send_until_it_breaks(endpoint: SocketEndpoint) -> None:
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await endpoint.send(bytes(PIECE))
            await trio.lowlevel.checkpoint()


async def test_a_reset_is_no_end() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"half of the ans")
        await stream.receive_some()
        reset(stream)

    async with connected(serve) as endpoint:
        assert await endpoint.receive(Channel.OUTPUT, PIECE) == b"half of the ans"
        await endpoint.send(b"go on")
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await endpoint.receive(Channel.OUTPUT, PIECE)
        assert await endpoint.wait() == ExitStatus(code=SocketEnd.BROKEN)
        with pytest.raises(trio.BrokenResourceError):
            await endpoint.send(b"x")
        await endpoint.send_eof()
        assert await endpoint.wait() == ExitStatus(code=SocketEnd.BROKEN)


async def test_a_reset_that_the_sender_is_told_of_is_not_taken_for_an_end() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"before the reset")
        await stream.receive_some(1)
        reset(stream)

    async with connected(serve) as endpoint:
        await send_until_it_breaks(endpoint)
        # What had come before is still there; after it the kernel says end of file.
        assert await endpoint.receive(Channel.OUTPUT, PIECE) == b"before the reset"
        with pytest.raises(trio.BrokenResourceError):
            await endpoint.receive(Channel.OUTPUT, PIECE)
        assert await endpoint.wait() == ExitStatus(code=SocketEnd.BROKEN)


async def test_output_that_ended_in_order_stays_so_when_the_input_breaks() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"that is too much")
        await stream.send_eof()
        await stream.receive_some(1)
        await trio.aclose_forcefully(stream)

    async with connected(serve) as endpoint:
        assert await read_to_the_end(endpoint) == b"that is too much"
        await send_until_it_breaks(endpoint)
        assert await endpoint.wait() == ExitStatus(code=SocketEnd.INPUT_LEFT)
        assert await endpoint.receive(Channel.OUTPUT, PIECE) == b""


async def test_the_order_of_the_ends_does_not_matter() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_eof()
        await discard(stream)

    async with connected(serve) as endpoint:
        assert await read_to_the_end(endpoint) == b""
        await endpoint.send(b"still taken")
        with trio.move_on_after(0.05) as scope:
            await endpoint.wait()
        assert scope.cancelled_caught
        await endpoint.send_eof()
        assert await endpoint.wait() == ExitStatus(code=SocketEnd.IN_ORDER)


async def told(signal: str) -> str:
    """Return what the other end learns of a signal."""
    learnt: list[str] = []
    over = trio.Event()

    async def listen(stream: trio.SocketStream) -> None:
        try:
            learnt.append("end" if await stream.receive_some() == b"" else "data")
        except trio.BrokenResourceError:
            learnt.append("reset")
        over.set()

    async with connected(listen) as endpoint:
        endpoint.send_signal(signal)
        await over.wait()
    return learnt[0]


async def test_signals_close_or_reset() -> None:
    assert await told("HUP") == "end"
    assert await told("TERM") == "end"
    assert await told("KILL") == "reset"
    assert await told("ABRT") == "reset"


async def test_what_was_sent_before_closing_arrives() -> None:
    got = bytearray()
    over = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        async for data in stream:
            got.extend(data)
        over.set()

    async with connected(serve) as endpoint:
        await endpoint.send(bytes(500_000))
        await endpoint.aclose()
        await over.wait()
    assert len(got) == 500_000


async def test_a_port_is_not_connected_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may choose the very port that is connected to, and TCP then makes that an echo."""
    bound: list[int] = []

    def chosen_by_the_kernel(family: int, kind: int) -> trio.socket.SocketType:
        made = socket.socket(family, kind)
        if family == socket.AF_INET:
            made.bind(("127.0.0.1", port))
            bound.append(port)
        return trio.socket.from_stdlib_socket(made)

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setattr("trio.socket.socket", chosen_by_the_kernel)
    with pytest.raises(ConnectionRefusedError):
        await connect_to_port(port)
    assert bound == [port]


async def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(0)
        async with await connect_to_path(path), trio.open_nursery() as nursery:
            made: list[trio.SocketStream] = []

            async def another() -> None:
                made.append(await connect_to_path(path))

            nursery.start_soon(another)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert made == []
            for _ in range(2):
                accepted, _ = await trio.to_thread.run_sync(listening.accept)
                accepted.close()
        await made[0].aclose()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("relative", "relative: give the absolute path"),
        ("/nowhere/socket", "socket /nowhere/socket: no such file or directory"),
        ("/" + "x" * 200, "socket /x+: AF_UNIX path too long"),
        ("/dev/null", "socket /dev/null: connection refused"),
    ],
)
async def test_paths_that_lead_nowhere(path: str, message: str) -> None:
    def fail(_: SocketEndpoint) -> None:
        raise AssertionError("nothing was opened")

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StartError, match=message):
        await connect(SocketTarget(path=path), fail)
    assert len(os.listdir("/proc/self/fd")) == before
