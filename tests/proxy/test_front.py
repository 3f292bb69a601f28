"""Life and death of the front: lifespan, stopping, cancelling, and clients that stall."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import h2.events
import pytest
import structlog
import trio
import trio.testing

from proxy.asgi import LifespanError, Receive, Scope, Send
from proxy.config import FrontConfig
from proxy.connections import Phase
from proxy.front import Front, serve
from proxy.listener import bound_port, open_listeners
from relay.websocket.frames import Opcode, encode_frame
from tests.proxy.test_http2 import BareClient
from tests.testing.certificates import Authority
from tests.testing.front_world import (
    App,
    Client,
    TestRoutes,
    World,
    open_front,
    routes_for,
    websocket_handshake,
)

MASK = b"\x01\x02\x03\x04"
ROOT = Path(__file__).parents[2]


async def test_the_app_lives_around_the_front() -> None:
    app = App()
    async with open_front(app) as world:
        assert app.events == ["lifespan.startup"]
        client = await world.connect()
        await client.get("/hello")
        await client.read_answer()
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]


async def run_front(app: Any, **options: Any) -> None:
    listeners = await open_listeners("127.0.0.1", 0)
    hosts = routes_for(bound_port(listeners), tls=False)
    try:
        await serve(listeners, app, TestRoutes(), hosts, **options)
    finally:
        for listener in listeners:
            await listener.aclose()


@pytest.mark.parametrize("how", ["failed", "raises", "hangs"])
async def test_an_app_that_cannot_start(how: str, autojump_clock: trio.testing.MockClock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if how == "failed":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
        elif how == "raises":
            raise ValueError("no database")
        else:
            await trio.sleep_forever()

    expected = "took longer than 30 s" if how == "hangs" else "startup failed: .*no database"
    with structlog.testing.capture_logs(), pytest.raises(LifespanError, match=expected):
        await run_front(app)


async def test_an_app_without_lifespan_is_served() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await App().do_hello(scope, receive, send)

    async with open_front(app) as world:
        client = await world.connect()
        await client.get("/")
        assert await client.read_answer() == (200, b"hello")


async def test_an_app_that_cannot_shut_down() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "disk full"})

    async def stop(front: Front) -> None:
        front.stop()

    async def start(*, task_status: trio.TaskStatus[Front]) -> None:
        with pytest.raises(LifespanError, match="shutdown failed: disk full"):
            await run_front(app, task_status=task_status)

    async with trio.open_nursery() as nursery:
        await stop(await nursery.start(start))


async def test_stopping_lets_requests_finish_and_idle_connections_go() -> None:
    app = App()
    async with open_front(app, config=FrontConfig(grace=30)) as world:
        idle, slow, busy = [await world.connect() for _ in range(3)]
        await idle.get("/hello")
        await idle.read_answer()
        await slow.send("GET /hello HTTP/1.1\n")
        await busy.get("/hold")
        await app.reached.wait()
        world.front.stop()
        assert await idle.read_rest() == b""
        assert await slow.read_rest() == b""
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", world.port)
        assert world.front.statistics().open[Phase.REQUEST] == 1
        app.go_on.set()
        answer = await busy.read_rest()
        assert answer.endswith(b"held")
        assert b"connection: close" in answer.lower()


async def test_websockets_are_told_and_may_say_goodbye() -> None:
    async with open_front(config=FrontConfig(grace=30)) as world:
        client = await world.connect()
        await client.send(websocket_handshake("/ws/patient"))
        await client.read_head()
        world.front.stop()
        assert await client.read_exactly(10) == b"\x81\x08draining"
        assert await client.read_exactly(12) == b"\x88\x0a\x03\xe9draining"
        await client.send(encode_frame(Opcode.CLOSE, b"\x03\xe9", mask=MASK))
        assert await client.read_rest() == b""


async def test_what_outlives_the_grace_period_is_cut(
    autojump_clock: trio.testing.MockClock,
) -> None:
    app = App()
    async with open_front(app, config=FrontConfig(grace=7)) as world:
        held = await world.connect()
        await held.get("/hold")
        await app.reached.wait()
        websocket = await world.connect()
        await websocket.send(websocket_handshake("/ws/echo"))
        await websocket.read_head()
        began = trio.current_time()
        world.front.stop()
        assert await held.read_rest() == b""
        assert trio.current_time() - began == pytest.approx(7, abs=0.1)


async def test_cancelling_ends_everything_at_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    from proxy.tls import server_context

    context = server_context(authority.certificate, authority.key)
    app = App()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listeners = await open_listeners("127.0.0.1", 0)
            port = bound_port(listeners)
            await nursery.start(
                partial(
                    serve,
                    listeners,
                    app,
                    TestRoutes(),
                    routes_for(port, tls=True),
                    ssl_context=context,
                    config=FrontConfig(grace=1000),
                )
            )
            stream = await trio.open_ssl_over_tcp_stream(
                "127.0.0.1",
                port,
                https_compatible=True,
                ssl_context=authority.client_context("h2"),
            )
            client = BareClient(stream, f"127.0.0.1:{port}")
            await client.start()
            client.conn.increment_flow_control_window(1 << 30)
            stream_id = await client.request("GET", "/endless")
            client.conn.increment_flow_control_window(1 << 30, stream_id)
            await client.flush()
            await app.reached.wait()
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(stream)


async def test_running_out_of_descriptors_is_survived() -> None:
    """Accept backs off and goes on."""
    app = App()
    async with open_front(app) as world:
        hoard: list[int] = []
        try:
            while True:
                hoard.append(os.dup(0))
        except OSError as error:
            assert error.errno == errno.EMFILE  # noqa: PT017 - this is the end of the loop
        os.close(hoard.pop())  # One for the client's own socket.
        client = await world.connect()
        await trio.testing.wait_all_tasks_blocked(0.01)
        for number in hoard:
            os.close(number)
        await client.get("/hello")
        assert await client.read_answer() == (200, b"hello")


async def test_a_bug_on_one_connection_ends_that_connection_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from proxy.http1 import Http1

    original = Http1.run

    async def run(self: Http1) -> None:
        if self._client and self._client[1] == bad_port:
            raise ZeroDivisionError
        await original(self)

    bad_port = 0
    monkeypatch.setattr(Http1, "run", run)
    with structlog.testing.capture_logs() as logs:
        async with open_front() as world:
            stream = trio.SocketStream(trio.socket.socket())
            await stream.socket.bind(("127.0.0.1", 0))
            bad_port = stream.socket.getsockname()[1]
            await stream.socket.connect(("127.0.0.1", world.port))
            bad = Client(stream, world.port)
            world.clients.append(bad)
            assert await bad.read_rest() == b""
            await _assert_unharmed(world)
    assert [e["event"] for e in logs if e["log_level"] == "error"] == ["a connection failed"]


async def _assert_unharmed(world: World) -> None:
    client = await world.connect()
    await client.get("/hello")
    assert await client.read_answer() == (200, b"hello")


async def test_nothing_is_left_of_a_thousand_connections() -> None:
    async with open_front() as world:
        await _assert_unharmed(world)
        await world.clients.pop().stream.aclose()
        tasks = trio.lowlevel.current_statistics().tasks_living
        descriptors = len(os.listdir("/proc/self/fd"))
        for number in range(1000):
            client = await world.connect()
            world.clients.pop()
            if number % 4 == 1:
                await client.get("/hello")
            elif number % 4 == 2:
                await client.send(websocket_handshake())
                await client.read_head()
            elif number % 4 == 3:
                await client.send("GET /ec")
            await client.stream.aclose()
        with trio.fail_after(20):
            while any(world.front.statistics().open.values()):
                await trio.testing.wait_all_tasks_blocked(0.01)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert trio.lowlevel.current_statistics().tasks_living <= tasks
        assert len(os.listdir("/proc/self/fd")) <= descriptors


# A real process, SIGTERM, and clients that do not move.

GRACE = 1.5


class Process:
    """The server of `tests.testing.front_world`, as a process."""

    def __init__(self, *arguments: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.testing.front_world", "--grace", str(GRACE), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._popen.stdout is not None
        while not (line := self._popen.stdout.readline()).startswith("{"):
            assert line, "the server did not start"
        self.port: int = json.loads(line)["port"]

    def terminate(self) -> tuple[float, int, str]:
        """Send SIGTERM; return how long it took, the exit status and what was printed."""
        began = time.monotonic()
        self._popen.send_signal(signal.SIGTERM)
        output, _ = self._popen.communicate(timeout=60)
        return time.monotonic() - began, self._popen.returncode, output

    def kill(self) -> None:
        self._popen.kill()
        self._popen.communicate()


async def test_sigterm_with_stalled_clients() -> None:
    process = await trio.to_thread.run_sync(Process)
    try:
        world = World(None, None, TestRoutes(), process.port, "http")  # type: ignore[arg-type]  # only a client of it
        not_reading = await world.connect()
        await not_reading.get("/endless")
        slow_head = await world.connect()
        await slow_head.send("GET /hello HT")
        slow_body = await world.connect()
        await slow_body.send("POST /echo HTTP/1.1\nHost: {host}\nContent-Length: 100\n\nabc")
        websocket = await world.connect()
        await websocket.send(websocket_handshake("/ws/flood"))
        mute = await world.connect()
        await mute.send(websocket_handshake("/ws/patient"))
        for client in (not_reading, websocket, mute):
            await client.read_head()
        took, status, output = await trio.to_thread.run_sync(process.terminate)
    finally:
        process.kill()
    for client in world.clients:
        await trio.aclose_forcefully(client.stream)
    assert output.endswith("bye\n")
    assert status == 0
    assert GRACE - 0.2 <= took < GRACE + 1


@pytest.mark.parametrize("clients", ["h2", "h1", "websocket", "all"])
async def test_sigterm_with_stalled_clients_over_tls(clients: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    process = await trio.to_thread.run_sync(
        Process, "--cert", str(authority.certificate), "--key", str(authority.key)
    )
    host = f"127.0.0.1:{process.port}"
    streams = []

    async def connect(alpn: str) -> trio.SSLStream[trio.SocketStream]:
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1",
            process.port,
            https_compatible=True,
            ssl_context=authority.client_context(alpn),
        )
        streams.append(stream)
        return stream

    try:
        if clients in ("h2", "all"):
            client = BareClient(await connect("h2"), host)
            await client.start()
            client.conn.increment_flow_control_window(1 << 30)
            stream_id = await client.request("GET", "/endless")
            client.conn.increment_flow_control_window(1 << 30, stream_id)
            upload = await client.request("POST", "/take_one", end=False)
            await client.flush()
            client.conn.send_data(upload, b"x")
            await client.flush()
            await client.wait_for(h2.events.DataReceived)
            await BareClient(await connect("h2"), host).start()  # Idle.
        if clients in ("h1", "all"):
            stream = await connect("http/1.1")
            await stream.send_all(f"GET /endless HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            await stream.receive_some(1)
        if clients in ("websocket", "all"):
            stream = await connect("http/1.1")
            text = websocket_handshake("/ws/flood").replace("\n", "\r\n").replace("{host}", host)
            await stream.send_all(text.encode())
            await stream.receive_some(1)
            raw = await trio.open_tcp_stream("127.0.0.1", process.port)
            streams.append(raw)  # type: ignore[arg-type]  # In the middle of its TLS handshake.
            await raw.send_all(b"\x16\x03\x01")
        took, status, output = await trio.to_thread.run_sync(process.terminate)
    finally:
        process.kill()
    for stream in streams:
        await trio.aclose_forcefully(stream)
    assert output.endswith("bye\n")
    assert status == 0
    assert took < GRACE + 1
