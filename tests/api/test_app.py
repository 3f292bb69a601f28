"""Errors in one format, the headers of every response, and what the log tells."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from api.problems import MAX_JSON_BODY
from tests.testing.api_world import CREDENTIAL, World, problem


@pytest.fixture(autouse=True)
def reset_structlog() -> Any:
    yield
    structlog.reset_defaults()


async def test_unknown_path_and_method(world: World) -> None:
    for bearer in (CREDENTIAL, None):
        await problem(await world.call("GET", "/nowhere", bearer=bearer), 404, "not-found")
        for path in ("/v1/sessions/", "/v1//sessions", "/favicon.ico"):
            await problem(await world.call("GET", path, bearer=bearer), 404, "not-found")
        response = await world.call("PUT", "/v1/sessions", bearer=bearer)
        await problem(response, 405, "method-not-allowed")
        assert response.headers["Allow"] == "GET, HEAD, POST"


async def test_options_is_no_method_of_ours(world: World) -> None:
    response = await world.call("OPTIONS", "/v1/sessions", bearer=None)
    await problem(response, 405, "method-not-allowed")


async def test_media_types(world: World) -> None:
    body = b'{"profile": "default", "ttl_seconds": 1}'
    for content_type in (
        "application/json",
        "application/json; charset=utf-8",
        "application/x+json",
        "",
    ):
        headers = {"Content-Type": content_type} if content_type else {}
        response = await world.call("POST", "/v1/sessions", data=body, headers=headers)
        assert response.status_code == 201, content_type
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = {"Content-Type": content_type}
        response = await world.call("POST", "/v1/sessions", data=body, headers=headers)
        await problem(response, 415, "unsupported-media-type")


async def test_a_body_that_is_too_large(world: World) -> None:
    json_type = {"Content-Type": "application/json"}
    padding = MAX_JSON_BODY - len(b'{"profile": "default", "ttl_seconds": 1}')
    body = b'{"profile": "default", "ttl_seconds": 1}' + b" " * padding
    response = await world.call("POST", "/v1/sessions", data=body, headers=json_type)
    assert response.status_code == 201
    response = await world.call("POST", "/v1/sessions", data=body + b" ", headers=json_type)
    await problem(response, 413, "body-too-large")


async def test_broken_json(world: World) -> None:
    response = await world.call(
        "POST", "/v1/sessions", data=b"{", headers={"Content-Type": "application/json"}
    )
    await problem(response, 400, "invalid-field", "body")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a secret inside"),
        KeyError("a secret inside"),
        ExceptionGroup("g", [ValueError("a secret inside")]),
    ],
)
async def test_a_bug_is_logged_once_and_never_shown(world: World, error: Exception) -> None:
    world.manager.error = error
    with capture_logs() as logs:
        response = await world.call("GET", "/v1/sessions")
    body = await problem(response, 500, "internal-error")
    assert "secret" not in (await response.get_data(as_text=True))
    failures = [line for line in logs if line["log_level"] == "error"]
    assert [line["request_id"] for line in failures] == [body["request_id"]]
    assert "a secret inside" in failures[0]["traceback"]
    assert "test_app" not in repr(failures[0].get("exc_info"))
    lines = [line for line in logs if line["event"] == "request"]
    assert [line["status"] for line in lines] == [500]


async def test_request_ids(world: World) -> None:
    ids = set()
    for _ in range(3):
        response = await world.call("GET", "/healthz", bearer=None)
        ids.add(response.headers["X-Request-Id"])
    assert len(ids) == 3
    given = await world.call("GET", "/nowhere", headers={"X-Request-Id": "abc-123.DEF_4"})
    assert given.headers["X-Request-Id"] == "abc-123.DEF_4"
    for bad in ("short", "x" * 65, "with space", "<script>aaaa", "ünicode-id"):
        response = await world.call("GET", "/nowhere", headers={"X-Request-Id": bad})
        assert response.headers["X-Request-Id"] not in (bad, "")


async def test_headers_on_everything(world: World) -> None:
    session_id = (await world.create())["session_id"]
    for method, path, bearer in (
        ("GET", "/", None),
        ("GET", "/static/app.mjs", None),
        ("GET", "/healthz", None),
        ("GET", "/openapi.json", None),
        ("GET", "/nowhere", None),
        ("PUT", "/healthz", None),
        ("GET", "/v1/sessions", None),
        ("GET", f"/v1/sessions/{session_id}", CREDENTIAL),
    ):
        headers = (await world.call(method, path, bearer=bearer)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "camera=()" in headers["Permissions-Policy"]
        assert headers["Content-Security-Policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert headers["X-Request-Id"]
        page = path in {"/", "/static/app.mjs"}
        assert headers["Cache-Control"] == ("no-cache" if page else "no-store")
        assert "Server" not in headers
        assert "Set-Cookie" not in headers


async def test_no_log_line_shows_a_credential(world: World) -> None:
    with capture_logs() as logs:
        created = await world.create()
        session_id, token = created["session_id"], created["attach"]["token"]
        await world.call("GET", f"/v1/sessions/{session_id}/pty?token={token}", bearer=None)
        world.manager.error = RuntimeError("bug")
        await world.call("GET", f"/v1/sessions/{session_id}?token={token}")
        await world.call("GET", "/v1/whoami", bearer="wrong\x7f" + CREDENTIAL)
    assert len(logs) == 5
    text = repr(logs)
    assert token not in text
    assert CREDENTIAL not in text


async def test_paths_in_the_log_are_bounded(world: World) -> None:
    with capture_logs() as logs:
        await world.call("GET", "/" + "x" * 5000, bearer=None)
    assert len(logs[0]["path"]) == 256
