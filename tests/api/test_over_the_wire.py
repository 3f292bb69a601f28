"""The application behind a real server, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from tests.testing.api_world import CREDENTIAL, World

BEARER = {"Authorization": f"Bearer {CREDENTIAL}"}


@asynccontextmanager
async def served(world: World, keep_alive: float = 5) -> AsyncIterator[str]:
    """Serve the application on a free port; yields its address."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 1
    config.keep_alive_timeout = keep_alive
    stop = trio.Event()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(
                lambda task_status: serve(
                    world.app,
                    config,
                    shutdown_trigger=stop.wait,
                    task_status=task_status,
                )
            )
            try:
                yield addresses[0]
            finally:
                stop.set()


async def talk(address: str, *requests: bytes) -> bytes:
    """Send raw requests one after the other; return everything until the server hangs up."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        for one in requests:
            await stream.send_all(one)
        return b"".join([chunk async for chunk in stream])


async def test_a_life_of_a_session(world: World) -> None:
    async with (
        served(world) as address,
        httpx2.AsyncClient(base_url=address, headers=BEARER) as client,
    ):
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        created = await client.post("/v1/sessions", json={"profile": "default", "ttl_seconds": 9})
        assert created.status_code == 201
        session_id = created.json()["session_id"]
        host = address.removeprefix("http://")
        assert created.json()["attach"]["ws_url"] == f"ws://{host}/v1/sessions/{session_id}/pty"
        location = created.headers["Location"]
        assert (await client.get(location)).json()["status"] == "running"
        ticket = await client.post(f"{location}/attach")  # no body, no media type
        assert ticket.status_code == 201
        assert (await client.request("DELETE", f"{location}/attach")).json() == {"revoked": True}
        assert (await client.delete(location)).json() == {"terminated": True}
        assert (await client.get(location)).json()["status"] == "terminated"
        assert (await client.get(location, headers={"Authorization": ""})).status_code == 401
        head = await client.head("/v1/sessions")
        assert (head.status_code, head.content) == (200, b"")


async def test_pages_and_their_copies(world: World) -> None:
    async with served(world) as address, httpx2.AsyncClient(base_url=address) as client:
        page = await client.get("/")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        module = await client.get("/static/app.mjs")
        again = await client.get(
            "/static/app.mjs", headers={"If-None-Match": module.headers["ETag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
        assert "Content-Type" not in again.headers
        assert "Content-Length" not in again.headers


async def test_an_upload_that_nobody_wants(world: World) -> None:
    async with served(world) as address:
        host, _, port = address.removeprefix("http://").rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            head = (
                b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer " + CREDENTIAL.encode() + b"\r\n"
                b"Content-Length: 1000000000\r\n\r\n"
            )
            await stream.send_all(head)
            answer = await stream.receive_some(65_536)
        assert answer.startswith(b"HTTP/1.1 413")
        async with httpx2.AsyncClient(base_url=address, headers=BEARER) as client:
            assert (await client.get("/v1/whoami")).status_code == 200  # unharmed


async def test_garbage_is_answered_and_harms_nothing(world: World) -> None:
    heads = [
        b"GET / HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\nConnection: close\r\n\r\n",
        b"GET /?\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /?%ff&=&&a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET http://y/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nCookie: \xff=\x80;;;=\r\nConnection: close\r\n\r\n",
        b'GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: \xff"\r\nConnection: close\r\n\r\n',
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Type: \xff/;;=\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: \xff\xff\xff\xff\xff\r\nConnection: close\r\n\r\n",
        b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\nConnection: close\r\n\r\n",
        b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: a\r\nAuthorization: b\r\nConnection: close\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]
    async with served(world) as address:
        for head in heads:
            answer = await talk(address, head)
            status = int(answer.split()[1])
            assert status < 500, (head, answer[:500])
        async with httpx2.AsyncClient(base_url=address, headers=BEARER) as client:
            assert (await client.get("/v1/whoami")).status_code == 200


async def test_the_server_hangs_up_on_an_idle_connection(world: World) -> None:
    # Its time-out was lost when a late disconnect cancelled the server's own code.
    async with served(world, keep_alive=0.2) as address:
        answer = await talk(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
