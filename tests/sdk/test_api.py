from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx2
import pytest
import trio

from trunkline.sdk.api import Api, root_of
from trunkline.sdk.discovery import Server
from trunkline.sdk.errors import ApiError, ServerUnreachable

EMPTY = "Content-Length: 0\r\n\r\n"


def answer(status: str, body: str, media_type: str = "application/json") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n\r\n{body}"
    ).encode()


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[Api, list[bytes]]]:
    """A server that gives these answers, one to a connection; and the requests that it got."""
    left = iter(answers)
    requests: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await stream.receive_some()
        requests.append(request)
        await stream.send_all(next(left))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(30):
            async with Api(Server(f"http://127.0.0.1:{port}", "the-token")) as api:
                yield api, requests
        nursery.cancel_scope.cancel()


async def test_the_credential_is_sent() -> None:
    async with answering(answer("200 OK", '{"sessions": []}')) as (api, requests):
        assert await api.sessions() == []
    assert b"\r\nauthorization: bearer the-token\r\n" in requests[0].lower()


async def test_a_problem() -> None:
    problem = (
        '{"title": "Bad", "detail": "ttl_seconds is too long", "field": "ttl_seconds",'
        ' "request_id": "abc", "status": 400}'
    )
    async with answering(answer("400 Bad Request", problem, "application/problem+json")) as (
        api,
        _,
    ):
        with pytest.raises(ApiError) as caught:
            await api.create_session("default", 1)
    error = caught.value
    assert str(error) == "ttl_seconds is too long"
    assert (error.status, error.title, error.field) == (400, "Bad", "ttl_seconds")
    assert error.request_id == "abc"


@pytest.mark.parametrize("body", ["", "no JSON", "[1]", "null", '"text"'])
async def test_an_error_that_is_no_problem(body: str) -> None:
    async with answering(answer("502 Bad Gateway", body, "text/plain")) as (api, _):
        with pytest.raises(ApiError) as caught:
            await api.sessions()
    assert caught.value.status == 502
    assert str(caught.value)


@pytest.mark.parametrize("body", ["", "hello", "null", "{}", '{"sessions": [{"session_id": 1}]}'])
async def test_an_answer_that_is_not_understood(body: str) -> None:
    async with answering(answer("200 OK", body)) as (api, _):
        with pytest.raises(ApiError) as caught:
            await api.sessions()
    assert caught.value.title == "the server's answer is not understood"


async def test_a_redirection_is_not_followed() -> None:
    """It could carry the credential elsewhere."""
    moved = (
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n"
    )
    async with answering(moved) as (api, requests):
        with pytest.raises(ApiError):
            await api.sessions()
        assert len(requests) == 1


@pytest.mark.parametrize("words", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nConte"])
async def test_no_answer(words: bytes) -> None:
    async with answering(words) as (api, _):
        with pytest.raises(ServerUnreachable, match=r"^http://127\.0\.0\.1:\d+ does not answer: ."):
            await api.sessions()


@pytest.mark.parametrize("session_id", ["", "a/b", "a?b", "a#b", "../x"])
async def test_ids_that_would_change_the_path(session_id: str) -> None:
    async with Api(Server("http://127.0.0.1:1", "t")) as api:
        for call in (api.session, api.delete_session):
            with pytest.raises(ApiError) as caught:
                await call(session_id)
            assert caught.value.status == 404


def test_what_lies_behind_an_error() -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    group = OSError("all attempts to connect failed")
    group.__cause__ = ExceptionGroup("several", [refused])
    outer = httpx2.ConnectError("")
    outer.__cause__ = group
    assert root_of(outer) == "Connection refused"
    verification = ssl.SSLCertVerificationError(1, "certificate verify failed")
    verification.__context__ = OSError(32, "Broken pipe")
    broken = trio.BrokenResourceError()
    broken.__cause__ = verification
    assert root_of(broken) == "certificate verify failed"
    assert root_of(httpx2.ReadTimeout("")) == "ReadTimeout"
