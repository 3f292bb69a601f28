from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from tests.testing.api_world import World, problem

UUID = "550e8400-e29b-41d4-a716-446655440000"


@pytest.mark.parametrize("path", ["/", f"/t/{UUID}", f"/t/{UUID.upper()}", "/static/index.html"])
async def test_the_page(world: World, static_root: Path, path: str) -> None:
    response = await world.call("GET", path, bearer=None)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache"
    html = (static_root / "index.html").read_text(encoding="utf-8")
    assert await response.get_data(as_text=True) == html
    found = re.search(r'<script type="importmap">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert response.headers["Content-Security-Policy"] == (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}';"
        " style-src 'self' 'unsafe-inline'; connect-src 'self' ws://localhost wss://localhost; img-src 'self' data:;"
        " font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("app.mjs", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("vendor/x/LICENSE", "application/octet-stream"),
    ],
)
async def test_files(world: World, static_root: Path, path: str, content_type: str) -> None:
    response = await world.call("GET", f"/static/{path}", bearer=None)
    assert (response.status_code, response.headers["Content-Type"]) == (200, content_type)
    assert await response.get_data(as_text=False) == (static_root / path).read_bytes()


async def test_conditional_get(world: World) -> None:
    etag = (await world.call("GET", "/static/app.mjs", bearer=None)).headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = await world.call(
            "GET", "/static/app.mjs", bearer=None, headers={"If-None-Match": known}
        )
        assert response.status_code == 304, known
        assert await response.get_data(as_text=False) == b""
        assert response.headers["ETag"] == etag
        assert response.headers["Cache-Control"] == "no-cache"
    response = await world.call(
        "GET", "/static/app.mjs", bearer=None, headers={"If-None-Match": '"other"'}
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../outside.txt",
        "/static/%2e%2e/outside.txt",
        "/static/..%2foutside.txt",
        "/static/%2e%2e%2foutside.txt",
        "/static/..%5coutside.txt",
        "/static/vendor/../../outside.txt",
        "/static/vendor/x/..%2f..%2f..%2foutside.txt",
        "/static//etc/passwd",
        "/static/%2fetc/passwd",
        "/static/%252e%252e/outside.txt",
        "/static/app.mjs%00.css",
        "/static/./app.mjs",
        "/static/.hidden",
        "/static/leak.txt",
        "/static/vendor",
        "/static/vendor/",
        "/static/",
        "/static",
        "/static/%ff",
        "/static/nothing.mjs",
    ],
)
async def test_nothing_else_can_be_named(world: World, path: str) -> None:
    await problem(await world.call("GET", path, bearer=None), 404, "not-found")


@pytest.mark.parametrize("path", ["/t/x", "/desktop/x", "/desktop/", f"/desktop/{UUID}/x"])
async def test_a_page_of_no_session(world: World, path: str) -> None:
    await problem(await world.call("GET", path, bearer=None), 404, "not-found")


async def test_the_page_of_a_desktop(world: World, static_root: Path) -> None:
    response = await world.call("GET", f"/desktop/{UUID}", bearer=None)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert await response.get_data(as_text=True) == (static_root / "desktop.html").read_text()


async def test_without_pages(tmp_path: Path) -> None:
    world = World(tmp_path / "missing")
    await problem(await world.call("GET", "/", bearer=None), 404, "not-found")
