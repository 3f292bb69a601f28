"""HTTP/2 with a real client, and with a bare one that does what real ones do not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import httpx2
import pytest
import structlog
import trio
import trio.testing

from proxy import http2
from proxy.config import FrontConfig
from proxy.connections import Phase
from proxy.tls import server_context
from tests.testing.certificates import Authority
from tests.testing.front_world import World, open_front


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def open_tls_front(authority: Authority, *, grace: float = 1.0) -> AsyncIterator[World]:
    context = server_context(authority.certificate, authority.key)
    async with open_front(ssl_context=context, config=FrontConfig(grace=grace)) as world:
        yield world


@asynccontextmanager
async def client_of(world: World, authority: Authority) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        http2=True, verify=authority.client_context(), base_url=world.url, timeout=20
    ) as client:
        yield client


async def test_requests(authority: Authority) -> None:
    async with open_tls_front(authority) as world, client_of(world, authority) as client:
        answer = await client.get("/hello/a%20b?x=1")
        assert (answer.http_version, answer.status_code, answer.text) == ("HTTP/2", 200, "hello")
        scope = world.app.scopes[-1]
        assert scope["http_version"] == "2"
        assert scope["scheme"] == "https"
        assert scope["state"]["shared"] == "yes"
        assert len(scope["state"]["request_id"]) == 16
        big = bytes(range(256)) * 4000
        assert (await client.post("/echo", content=big)).content == big
        assert (await client.get("/stream")).text == "one,two,three"
        assert (await client.head("/hello")).content == b""


async def test_many_at_once(authority: Authority) -> None:
    async with open_tls_front(authority) as world, client_of(world, authority) as client:

        async def one(number: int) -> None:
            body = b"%d" % number * 1000
            assert (await client.post("/echo", content=body)).content == body

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, number)
        assert world.front.statistics().open[Phase.HTTP2] == 1


async def test_names_and_origins_hold_here_too(authority: Authority) -> None:
    async with open_tls_front(authority) as world, client_of(world, authority) as client:
        answer = await client.get("/hello", headers={"host": "evil.example"})
        assert answer.status_code == 421
        assert "evil.example" in answer.json()["detail"]
        answer = await client.post("/echo", headers={"origin": "https://evil.example"})
        assert answer.status_code == 403
        answer = await client.post("/echo", headers={"origin": world.url}, content=b"x")
        assert answer.status_code == 200


async def test_a_failing_app_is_answered_for(authority: Authority) -> None:
    with structlog.testing.capture_logs() as logs:
        async with open_tls_front(authority) as world, client_of(world, authority) as client:
            answer = await client.get("/fail?token=secret")
            assert answer.status_code == 500
            assert (await client.get("/hello")).text == "hello"
    (logged,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert logged["request_id"] == json.loads(answer.content)["request_id"]
    assert "secret" not in repr(logs)


async def test_an_upload_to_a_route_that_answers_early(authority: Authority) -> None:
    """The rest of the upload is dropped, and the connection goes on."""
    async with open_tls_front(authority) as world, client_of(world, authority) as client:
        for _ in range(3):
            answer = await client.post("/early", content=bytes(3_000_000))
            assert (answer.status_code, answer.content) == (403, b"no")
        assert (await client.get("/hello")).text == "hello"
        assert world.front.statistics().admitted == 1


class BareClient:
    """An HTTP/2 client, frame by frame."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], authority: str) -> None:
        self.stream = stream
        self.authority = authority
        self.conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.events: list[h2.events.Event] = []

    async def start(self) -> None:
        self.conn.initiate_connection()
        await self.flush()
        await self.wait_for(h2.events.RemoteSettingsChanged)

    async def flush(self) -> None:
        await self.stream.send_all(self.conn.data_to_send())

    async def wait_for(self, kind: type[h2.events.Event]) -> h2.events.Event:
        with trio.fail_after(20):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        self.events.remove(event)
                        return event
                data = await self.stream.receive_some()
                if not data:
                    raise AssertionError("the server ended the connection")
                self.events += self.conn.receive_data(bytes(data))
                await self.flush()

    async def request(self, method: str, path: str, *, end: bool = True) -> int:
        stream_id = self.conn.get_next_available_stream_id()
        self.conn.send_headers(
            stream_id,
            [
                (":method", method),
                (":path", path),
                (":scheme", "https"),
                (":authority", self.authority),
            ],
            end_stream=end,
        )
        await self.flush()
        return stream_id


@asynccontextmanager
async def bare_client(world: World, authority: Authority) -> AsyncIterator[BareClient]:
    stream = await trio.open_ssl_over_tcp_stream(
        "127.0.0.1",
        world.port,
        https_compatible=True,
        ssl_context=authority.client_context("h2"),
    )
    client = BareClient(stream, f"127.0.0.1:{world.port}")
    await client.start()
    try:
        yield client
    finally:
        await trio.aclose_forcefully(stream)


async def test_browsers_are_not_offered_websockets_here(authority: Authority) -> None:
    async with open_tls_front(authority) as world, bare_client(world, authority) as client:
        code = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
        assert client.conn.remote_settings.get(code, 0) == 0
        client.conn.send_headers(1, [(":method", "CONNECT"), (":authority", client.authority)])
        await client.flush()
        await client.wait_for(h2.events.StreamReset)
        await client.request("GET", "/hello")
        await client.wait_for(h2.events.ResponseReceived)


async def test_data_for_an_answered_stream(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_tls_front(authority) as world, bare_client(world, authority) as client:
        stream_id = await client.request("POST", "/early", end=False)
        await client.wait_for(h2.events.StreamEnded)
        monkeypatch.setattr(http2, "DROPPED_MAX", 40_000)
        for _ in range(5):
            client.conn.send_data(stream_id, bytes(10_000))
        await client.flush()
        reset = await client.wait_for(h2.events.StreamReset)
        assert isinstance(reset, h2.events.StreamReset)
        assert reset.error_code == 0
        await client.request("GET", "/hello")
        await client.wait_for(h2.events.ResponseReceived)


@pytest.mark.parametrize("how", ["reset", "disconnect"])
async def test_the_app_learns_that_the_client_left(authority: Authority, how: str) -> None:
    async with open_tls_front(authority) as world, bare_client(world, authority) as client:
        stream_id = await client.request("GET", "/wait_gone")
        await world.app.reached.wait()
        if how == "reset":
            client.conn.reset_stream(stream_id)
            await client.flush()
        else:
            await trio.aclose_forcefully(client.stream)
        with trio.fail_after(20):
            while world.app.events[-1] != "http.disconnect":
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_an_app_that_waits_for_the_client_to_leave_is_told_when_its_answer_is_over(
    authority: Authority,
) -> None:
    async with open_tls_front(authority) as world, client_of(world, authority) as client:
        for _ in range(2):
            assert (await client.get("/watch")).text == "watched"
        assert world.app.events[1:] == ["http.request", "http.disconnect", "done"] * 2


async def test_a_broken_client_ends_its_own_connection_only(authority: Authority) -> None:
    async with open_tls_front(authority) as world:
        for garbage in (bytes(1000), b"\x00\x00\x05\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff\xff"):
            async with bare_client(world, authority) as client:
                await client.stream.send_all(garbage)
                with trio.fail_after(20):
                    while await client.stream.receive_some():
                        pass
        async with client_of(world, authority) as good:
            assert (await good.get("/hello")).text == "hello"


async def test_idle_connections_are_told_to_go_when_the_server_stops(authority: Authority) -> None:
    async with (
        open_tls_front(authority, grace=30) as world,
        bare_client(world, authority) as idle,
        bare_client(world, authority) as busy,
    ):
        await busy.request("GET", "/hold")
        await world.app.reached.wait()
        world.front.stop()
        with trio.fail_after(20):
            await read_rest(idle)
        world.app.go_on.set()
        await busy.wait_for(h2.events.StreamEnded)
        with trio.fail_after(20):
            await read_rest(busy)


async def read_rest(client: BareClient) -> bytes:
    data = b""
    while piece := await client.stream.receive_some():
        data += piece
    return data
