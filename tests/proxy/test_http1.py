"""HTTP/1.1 over real sockets: connection reuse, bodies both ways, bad input."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import structlog
import trio
import trio.testing

from proxy.config import FrontConfig
from proxy.connections import Phase
from tests.testing.front_world import App, Client, World, open_front


async def test_one_request() -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.get("/hello")
        assert await client.read_answer() == (200, b"hello")


async def test_the_scope_says_what_was_asked() -> None:
    app = App()
    async with open_front(app) as world:
        client = await world.connect()
        await client.send(
            "GET /hello/a%20b%C3%A9?x=1&y=%20 HTTP/1.1\nHost: {host}\nX-One: 1\nX-One: 2\n\n"
        )
        await client.read_answer()
        (scope,) = app.scopes
        assert scope["path"] == "/hello/a bé"
        assert scope["raw_path"] == b"/hello/a%20b%C3%A9"
        assert scope["query_string"] == b"x=1&y=%20"
        assert [v for n, v in scope["headers"] if n == b"x-one"] == [b"1", b"2"]
        assert scope["client"] == client.stream.socket.getsockname()
        assert scope["server"] == ("127.0.0.1", world.port)
        assert scope["scheme"] == "http"
        assert scope["state"]["shared"] == "yes"
        assert len(scope["state"]["request_id"]) == 16


async def test_keep_alive_and_pipelining() -> None:
    async with open_front() as world:
        client = await world.connect()
        for _ in range(3):
            await client.get("/hello")
            assert await client.read_answer() == (200, b"hello")
        post = "POST /echo HTTP/1.1\nHost: {host}\nContent-Length: 3\n\n"
        hello = "GET /hello HTTP/1.1\nHost: {host}\n\n"
        await client.send(f"{post}abc{hello}{post}def")
        assert await client.read_answer() == (200, b"abc")
        assert await client.read_answer() == (200, b"hello")
        assert await client.read_answer() == (200, b"def")


async def test_bytes_one_at_a_time() -> None:
    async with open_front() as world:
        client = await world.connect()
        for byte in f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1:{world.port}\r\n".encode():
            await client.send(bytes([byte]))
        for byte in b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n":
            await client.send(bytes([byte]))
        assert await client.read_answer() == (200, b"abc")


async def test_chunked_both_ways() -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.send(
            "POST /echo HTTP/1.1\nHost: {host}\nTransfer-Encoding: chunked\n\n"
            "3\nabc\n5;x=y\ndefgh\n0\nTrailer: t\n\n"
        )
        assert await client.read_answer() == (200, b"abcdefgh")
        await client.get("/stream")
        status, headers = await client.read_head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        body = await client.read_until(b"0\r\n\r\n")
        assert body == b"4\r\none,\r\n4\r\ntwo,\r\n5\r\nthree\r\n0\r\n\r\n"
        await client.get("/hello")
        assert await client.read_answer() == (200, b"hello")


async def test_http_1_0_is_answered_and_closed() -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.send("GET /stream HTTP/1.0\nHost: {host}\n\n")
        answer = await client.read_rest()
        assert b"connection: close" in answer.lower()
        assert b"chunked" not in answer
        assert answer.endswith(b"\r\n\r\none,two,three")


@pytest.mark.parametrize("path", ["/hello", "/stream"])
async def test_head_has_no_body(path: str) -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.send(f"HEAD {path} HTTP/1.1\nHost: {{host}}\n\n")
        status, headers = await client.read_head()
        assert status == 200
        assert headers.get("content-length") == ("5" if path == "/hello" else None)
        await client.get("/hello")
        assert await client.read_answer() == (200, b"hello")


async def test_no_content_has_no_body() -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.get("/empty")
        status, headers = await client.read_head()
        assert status == 204
        assert "date" in headers
        await client.get("/hello")
        assert await client.read_answer() == (200, b"hello")


async def test_the_client_is_told_to_go_on_only_when_the_body_is_wanted() -> None:
    async with open_front() as world:
        client = await world.connect()
        head = "HTTP/1.1\nHost: {host}\nContent-Length: 3\nExpect: 100-continue\n\n"
        await client.send(f"POST /echo {head}")
        assert (await client.read_head())[0] == 100
        await client.send("abc")
        assert await client.read_answer() == (200, b"abc")
        await client.send(f"POST /early {head}")
        assert await client.read_answer() == (403, b"no")
        # Whether the client now sends the body is unknown, so the connection must end.
        assert await client.read_rest() == b""


async def test_an_unread_body_is_discarded_and_the_connection_kept() -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.send("POST /early HTTP/1.1\nHost: {host}\nContent-Length: 100000\n\n")
        assert await client.read_answer() == (403, b"no")
        await client.send(bytes(100000))
        await client.get("/hello")
        assert await client.read_answer() == (200, b"hello")


async def test_a_large_unread_body_ends_the_connection_after_the_answer() -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.send("POST /early HTTP/1.1\nHost: {host}\nContent-Length: 5000000\n\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_quietly, client, bytes(5_000_000))
            assert await client.read_answer() == (403, b"no")
            assert await client.read_rest() == b""
            await client.stream.aclose()


async def _send_quietly(client: Client, data: bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await client.send(data)


async def test_a_body_that_the_app_does_not_take_stays_with_the_client() -> None:
    app = App()
    async with open_front(app) as world:
        client = await world.connect()
        size = 64 << 20
        await client.send(f"POST /take_one HTTP/1.1\nHost: {{host}}\nContent-Length: {size}\n\n")
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < size:
                sent += await client.stream.socket.send(bytes(min(1 << 20, size - sent)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await app.reached.wait()
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert app.taken <= 1 << 18
            assert sent < size // 2
            app.go_on.set()
        assert await client.read_answer() == (200, b"%d" % size)


async def test_the_app_learns_that_the_client_left() -> None:
    app = App()
    async with open_front(app) as world:
        client = await world.connect()
        await client.get("/wait_gone")
        await app.reached.wait()
        await client.stream.aclose()
        with trio.fail_after(20):
            while app.events[-1] != "http.disconnect":
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_an_app_that_waits_for_the_client_to_leave_is_told_when_its_answer_is_over() -> None:
    app = App()
    async with open_front(app) as world:
        client = await world.connect()
        for _ in range(2):
            await client.get("/watch")
            assert await client.read_answer() == (200, b"watched")
        assert app.events[1:] == ["http.request", "http.disconnect", "done"] * 2


async def test_a_sending_app_learns_that_the_client_left() -> None:
    app = App()
    async with open_front(app) as world:
        client = await world.connect()
        await client.get("/endless")
        await app.reached.wait()
        await client.stream.aclose()
        with trio.fail_after(20):
            while world.front.statistics().open[Phase.REQUEST]:
                await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.parametrize("path", ["/fail", "/silent", "/out_of_order"])
async def test_a_failing_app_is_answered_for(path: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with open_front() as world:
            client = await world.connect()
            await client.get(f"{path}?token=secret")
            status, body = await client.read_answer()
            assert status == 500
            problem = json.loads(body)
            assert problem["status"] == 500
            await _assert_unharmed(world)
    (logged,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert logged["request_id"] == problem["request_id"]
    assert logged["path"] == path
    assert "secret" not in repr(logs)


@pytest.mark.parametrize("path", ["/fail_late", "/too_much"])
async def test_an_app_that_fails_in_its_answer_cuts_it(path: str) -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.get(path)
        assert not (await client.read_rest()).endswith(b"0\r\n\r\n")


GET = "GET /hello HTTP/1.1\n"
POST = "POST /echo HTTP/1.1\nHost: {host}\n"


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        pytest.param(POST + "Content-Length: 3\nTransfer-Encoding: chunked\n\n", 400, id="both"),
        pytest.param(POST + "Transfer-Encoding: chunked\n\nxyz\n", 400, id="bad chunk"),
        pytest.param(POST + "Transfer-Encoding: chunked\n\n-1\n", 400, id="negative chunk"),
        pytest.param(POST + "Transfer-Encoding: gzip\n\n", 501, id="unknown coding"),
        pytest.param(POST + "X-A: b\n c\n\n", 400, id="obs-fold"),
        pytest.param(POST + "X-A : b\n\n", 400, id="space before colon"),
        pytest.param(POST + "Content-Length: 1\nContent-Length: 2\n\n", 400, id="two lengths"),
        pytest.param(
            POST + "Content-Length: 1\nContent-Length: 1\n\n", 400, id="same length twice"
        ),
        pytest.param(POST + "Content-Length: +1\n\n", 400, id="signed length"),
        pytest.param(POST + "Content-Length: 1, 1\n\nx", 400, id="list of lengths"),
        pytest.param(GET + "\n", 400, id="no host"),
        pytest.param(GET + "Host: {host}\nHost: {host}\n\n", 400, id="two hosts"),
        pytest.param("GET /hello HTTP/1.0\n\n", 400, id="no host, HTTP/1.0"),
        pytest.param(GET + "Host: evil.example\n\n", 421, id="foreign host"),
        pytest.param("GET http://evil.example/hello HTTP/1.1\nHost: {host}\n\n", 421, id="target"),
        pytest.param("GET http://{host}/hello HTTP/1.1\nHost: x\n\n", 200, id="absolute target"),
        pytest.param("GET hello HTTP/1.1\nHost: {host}\n\n", 400, id="relative target"),
        pytest.param("GET /hello#x HTTP/1.1\nHost: {host}\n\n", 400, id="fragment"),
        pytest.param("CONNECT a.example:443 HTTP/1.1\nHost: {host}\n\n", 400, id="connect"),
        pytest.param(POST + "Origin: http://evil.example\n\n", 403, id="foreign origin"),
        pytest.param(POST + "Origin: null\n\n", 403, id="null origin"),
        pytest.param(POST + "Origin: http://{host}\n\n", 200, id="own origin"),
        pytest.param(GET + "Host: {host}\nOrigin: http://evil.example\n\n", 200, id="safe method"),
        pytest.param("GET /hello HTTP/3.7\nHost: {host}\n\n", 505, id="version"),
        pytest.param("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, id="TLS hello"),
        pytest.param("\x00\xff\xfe garbage \x01\x02\n\n", 400, id="garbage"),
        pytest.param("SSH-2.0-OpenSSH_9.9\n\n", 400, id="SSH"),
        pytest.param(GET + f"Host: {{host}}\nX: {'x' * 70000}\n\n", 431, id="large head"),
    ],
)
async def test_bad_requests(request_text: str, status: int) -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.send(request_text)
        answer, body = await client.read_answer()
        assert answer == status
        if status != 200:
            assert json.loads(body)["detail"]
            assert await client.read_rest() == b""
        await _assert_unharmed(world)


async def _assert_unharmed(world: World) -> None:
    other = await world.connect()
    await other.get("/hello")
    assert await other.read_answer() == (200, b"hello")
    await other.stream.aclose()


async def test_bare_line_feeds() -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.send(b"GET /hello HTTP/1.1\nHost: 127.0.0.1:%d\n\n" % world.port)
        assert (await client.read_answer())[0] == 400


async def test_a_whole_head_over_the_limit_in_one_read() -> None:
    async with open_front(config=FrontConfig(max_head_bytes=1000)) as world:
        client = await world.connect()
        await client.get("/hello", f"X: {'x' * 1000}\n")
        assert (await client.read_answer())[0] == 431
        client = await world.connect()
        await client.get("/hello", f"X: {'x' * 800}\n")
        assert (await client.read_answer())[0] == 200


async def test_slow_heads_are_ended(autojump_clock: trio.testing.MockClock) -> None:
    # The clock jumps only when everything waits, so the server's deadlines pass one by one.
    async with open_front() as world:
        silent = await world.connect()
        began = trio.current_time()
        assert await silent.read_rest() == b""
        assert trio.current_time() - began == pytest.approx(10, abs=0.5)
        slow = await world.connect()
        began = trio.current_time()
        await slow.send("GET /hello HTTP/1.1\nHost:")
        assert (await slow.read_answer())[0] == 408
        assert trio.current_time() - began == pytest.approx(10, abs=0.5)


async def test_idle_and_slow_later_heads(autojump_clock: trio.testing.MockClock) -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.get("/hello")
        await client.read_answer()
        await trio.sleep(55)
        began = trio.current_time()
        await client.send("GET /hello HTTP/1.1\n")
        await trio.sleep(9)
        await client.send("Host: {host}\n\n")
        assert await client.read_answer() == (200, b"hello")
        await client.send("GET")
        assert (await client.read_answer())[0] == 408
        assert trio.current_time() - began == pytest.approx(19, abs=0.5)
        idle = await world.connect()
        await idle.get("/hello")
        await idle.read_answer()
        began = trio.current_time()
        with trio.fail_after(61):
            assert await idle.stream.receive_some() == b""
        assert trio.current_time() - began == pytest.approx(60, abs=0.5)


async def test_connections_over_the_limit_are_turned_away() -> None:
    async with open_front(config=FrontConfig(max_connections=2, grace=1.0)) as world:
        clients = [await world.connect() for _ in range(2)]
        for client in clients:
            await client.get("/hello")
            assert (await client.read_answer())[0] == 200
        extra = await world.connect()
        status, headers = await extra.read_head()
        assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "1")
        assert world.front.statistics().turned_away == 1
        await clients[0].stream.aclose()
        with trio.fail_after(20):
            while sum(world.front.statistics().open.values()) > 1:
                await trio.testing.wait_all_tasks_blocked(0.01)
        await _assert_unharmed(world)
