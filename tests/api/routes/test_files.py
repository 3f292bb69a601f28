"""Files over HTTP, on the real agent and a real file system."""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.testing.api_world import problem
from tests.testing.files_world import FilesWorld, files_world

DATA = bytes(range(256)) * 1024  # 256 KiB: the test client holds few messages


@pytest.fixture
async def files(tmp_path: Path, static_root: Path) -> AsyncIterator[FilesWorld]:
    async with files_world(tmp_path, static_root) as world:
        yield world


def sha256_field(data: bytes) -> str:
    return f"sha-256=:{b64encode(hashlib.sha256(data).digest()).decode()}:"


async def test_write_and_read(files: FilesWorld) -> None:
    written = await files.call("PUT", path="a/b.txt", parents="true", mode="0640", data=DATA)
    assert written.status_code == 201
    told = await written.get_json()
    assert (told["path"], told["size"], told["mode"]) == ("a/b.txt", len(DATA), "0640")
    assert told["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert (files.home / "a" / "b.txt").read_bytes() == DATA
    read = await files.call("GET", path="a/b.txt")
    assert read.status_code == 200
    assert await read.get_data(as_text=False) == DATA
    assert read.headers["ETag"] == written.headers["ETag"] == f'"{told["etag"]}"'
    assert read.headers["Content-Length"] == str(len(DATA))
    assert read.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert read.headers["Accept-Ranges"] == "bytes"
    assert read.headers["X-Content-Type-Options"] == "nosniff"
    again = await files.call("PUT", path="a/b.txt", data=b"short")
    assert again.status_code == 200
    assert not (await again.get_json())["created"]
    assert (files.home / "a" / "b.txt").stat().st_mode & 0o777 == 0o640


async def test_head_tells_what_get_would(files: FilesWorld) -> None:
    (files.home / "page.html").write_text("<script>alert(1)</script>")
    get = await files.call("GET", path="page.html")
    head = await files.call("HEAD", path="page.html")
    assert head.status_code == 200
    assert await head.get_data(as_text=False) == b""
    for name in ("ETag", "Content-Type", "Last-Modified", "Content-Disposition"):
        assert head.headers[name] == get.headers[name]
    assert get.headers["Content-Disposition"].startswith("attachment;")
    assert "sandbox" in get.headers["Content-Security-Policy"]
    assert (await files.call("HEAD", path="none")).status_code == 404


async def test_the_time_is_kept(files: FilesWorld) -> None:
    when = "2001-02-03T04:05:06.123456789Z"
    written = await files.call("PUT", path="f", modified=when, data=b"")
    assert (await written.get_json())["modified"] == when
    told = await (await files.call("GET", "/stat", path="f")).get_json()
    assert told["modified"] == when
    got = await files.call("GET", path="f")
    assert got.headers["Last-Modified"] == "Sat, 03 Feb 2001 04:05:06 GMT"
    made = await files.call("POST", "/mkdir", json={"path": "d", "mode": "0700", "modified": when})
    assert made.status_code == 201
    assert ((await made.get_json())["modified"], (await made.get_json())["mode"]) == (when, "0700")


@pytest.mark.parametrize(
    ("field", "status", "content", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-100", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=5-1000", 206, b"56789", "bytes 5-9/10"),
        ("bytes=0-1,4-5", 200, b"0123456789", None),
        ("bytes=4-2", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("nonsense", 200, b"0123456789", None),
    ],
)
async def test_ranges(
    files: FilesWorld, field: str, status: int, content: bytes, content_range: str | None
) -> None:
    (files.home / "f").write_bytes(b"0123456789")
    answer = await files.call("GET", path="f", headers={"Range": field})
    assert answer.status_code == status
    assert await answer.get_data(as_text=False) == content
    assert answer.headers.get("Content-Range") == content_range
    assert answer.headers["Content-Length"] == str(len(content))


async def test_a_range_beyond_the_end(files: FilesWorld) -> None:
    (files.home / "f").write_bytes(b"0123456789")
    for field in ("bytes=10-", "bytes=-0"):
        answer = await files.call("GET", path="f", headers={"Range": field})
        await problem(answer, 416, "range-not-satisfiable")
        assert answer.headers["Content-Range"] == "bytes */10"
    (files.home / "empty").touch()
    assert (await files.call("GET", path="empty", headers={"Range": "bytes=0-"})).status_code == 200


async def test_a_range_of_a_certain_version(files: FilesWorld) -> None:
    (files.home / "f").write_bytes(b"0123456789")
    etag = (await files.call("HEAD", path="f")).headers["ETag"]
    for value, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200)):
        headers = {"Range": "bytes=0-0", "If-Range": value}
        assert (await files.call("GET", path="f", headers=headers)).status_code == status
    os.utime(files.home / "f", (10**9, 10**9))
    date = (await files.call("HEAD", path="f")).headers["Last-Modified"]
    headers = {"Range": "bytes=0-0", "If-Range": date}
    assert (await files.call("GET", path="f", headers=headers)).status_code == 206
    headers["If-Range"] = "Sun, 09 Sep 2001 01:46:41 GMT"
    assert (await files.call("GET", path="f", headers=headers)).status_code == 200


async def test_a_copy_that_is_still_good(files: FilesWorld) -> None:
    (files.home / "f").write_bytes(b"x")
    first = await files.call("GET", path="f")
    etag, date = first.headers["ETag"], first.headers["Last-Modified"]
    for headers in (
        {"If-None-Match": etag},
        {"If-None-Match": f'"a", W/{etag}'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": date},
    ):
        answer = await files.call("GET", path="f", headers=headers)
        assert answer.status_code == 304
        assert answer.headers["ETag"] == etag
        assert await answer.get_data(as_text=False) == b""
    assert (
        await files.call("GET", path="f", headers={"If-None-Match": '"other"'})
    ).status_code == 200
    await problem(
        await files.call("GET", path="f", headers={"If-Match": '"x"'}), 412, "precondition-failed"
    )


async def test_preconditions_of_a_write(files: FilesWorld) -> None:
    async def put(expected: int, data: bytes, **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await files.call("PUT", path="f", data=data, headers=named)
        assert answer.status_code == expected, await answer.get_json(force=True)
        return answer.headers.get("ETag", "")

    await put(412, b"0", If_Match="*")
    first = await put(201, b"1", If_None_Match="*")
    await put(412, b"2", If_None_Match="*")
    await put(412, b"2", If_None_Match=first)
    await put(412, b"2", If_Match='"other"')
    await put(412, b"2", If_Match=f"W/{first}")
    await put(412, b"2", If_Unmodified_Since="Mon, 01 Jan 2001 00:00:00 GMT")
    assert (files.home / "f").read_bytes() == b"1"
    second = await put(200, b"3", If_Match=f'"other", {first}')
    await put(200, b"4", If_None_Match=first)
    assert second != first
    assert (files.home / "f").read_bytes() == b"4"
    answer = await files.call("DELETE", path="f", headers={"If-Match": first})
    await problem(answer, 412, "precondition-failed")
    etag = (await files.call("HEAD", path="f")).headers["ETag"]
    assert (await files.call("DELETE", path="f", headers={"If-Match": etag})).status_code == 204
    assert os.listdir(files.home) == []


@pytest.mark.parametrize("name", ["Content-Digest", "Repr-Digest"])
async def test_digests_are_checked(files: FilesWorld, name: str) -> None:
    sha512 = b64encode(hashlib.sha512(b"right").digest()).decode()
    for value in (sha256_field(b"right"), f"sha-512=:{sha512}:, unixsum=:AAAA:"):
        answer = await files.call("PUT", path="f", data=b"wrong", headers={name: value})
        await problem(answer, 400, "digest-mismatch")
        assert os.listdir(files.home) == []
        answer = await files.call("PUT", path="f", data=b"right", headers={name: value})
        assert answer.status_code == 201
        assert (await files.call("DELETE", path="f")).status_code == 204
    answer = await files.call("PUT", path="f", data=b"x", headers={name: "sha-256=nonsense"})
    await problem(answer, 400, "invalid-field", field="Content-Digest")


async def test_a_digest_is_told_when_it_is_wanted(files: FilesWorld) -> None:
    (files.home / "f").write_bytes(DATA)
    wish = {"Want-Repr-Digest": "sha-512=3, sha-256=5"}
    for method in ("GET", "HEAD"):
        answer = await files.call(method, path="f", headers=wish)
        assert answer.headers["Repr-Digest"] == sha256_field(DATA)
    part = await files.call("GET", path="f", headers={**wish, "Range": "bytes=0-1"})
    assert part.status_code == 206
    assert part.headers["Repr-Digest"] == sha256_field(DATA)
    assert "Repr-Digest" not in (await files.call("GET", path="f")).headers
    answer = await files.call("GET", path="f", headers={"Want-Repr-Digest": "sha-256=0"})
    assert "Repr-Digest" not in answer.headers


async def test_parts_and_codings_of_a_write_are_refused(files: FilesWorld) -> None:
    answer = await files.call("PUT", path="f", data=b"x", headers={"Content-Range": "bytes 0-0/2"})
    await problem(answer, 400, "invalid-field", field="Content-Range")
    answer = await files.call("PUT", path="f", data=b"x", headers={"Content-Encoding": "gzip"})
    await problem(answer, 415, "unsupported-media-type", field="Content-Encoding")


async def test_listing(files: FilesWorld) -> None:
    (files.home / "d" / "e").mkdir(parents=True)
    (files.home / "d" / "f").write_bytes(b"123")
    (files.home / "link").symlink_to("d/f")
    answer = await files.call("GET", "/list")
    body = await answer.get_json()
    assert (body["path"], body["truncated"]) == (".", False)
    entries = {entry["path"]: entry for entry in body["entries"]}
    assert set(entries) == {"d", "link"}
    assert (entries["link"]["type"], entries["link"]["target"]) == ("symlink", "d/f")
    body = await (await files.call("GET", "/list", path="/home", depth=2)).get_json()
    assert {entry["path"] for entry in body["entries"]} == {"d", "link", "d/e", "d/f"}
    await problem(await files.call("GET", "/list", path="d/f"), 409, "not-a-directory")
    await problem(await files.call("GET", "/list", depth=65), 400, "invalid-field", field="depth")


async def test_a_long_list_is_cut(files: FilesWorld) -> None:
    for n in range(1200):
        (files.home / str(n)).touch()
    body = await (await files.call("GET", "/list")).get_json()
    assert len(body["entries"]) == 1200
    assert not body["truncated"]
    for limit in (1, 1199):
        body = await (await files.call("GET", "/list", limit=limit)).get_json()
        assert len(body["entries"]) == limit
        assert body["truncated"]
    body = await (await files.call("GET", "/list", limit=1200)).get_json()
    assert (len(body["entries"]), body["truncated"]) == (1200, False)


async def test_moving_and_removing(files: FilesWorld) -> None:
    (files.home / "a").write_text("a")
    (files.home / "b").write_text("b")
    wish: dict[str, Any] = {"path": "a", "target": "b", "overwrite": False}
    await problem(await files.call("POST", "/move", json=wish), 409, "file-exists")
    moved = await files.call("POST", "/move", json={"path": "a", "target": "b"})
    assert (await moved.get_json())["path"] == "b"
    assert (files.home / "b").read_text() == "a"
    (files.home / "d" / "e").mkdir(parents=True)
    await problem(await files.call("DELETE", path="d"), 409, "directory-not-empty")
    assert (await files.call("DELETE", path="d", recursive="true")).status_code == 204
    await problem(await files.call("DELETE", path="d"), 404, "file-not-found")
    await problem(await files.call("DELETE", path=".", recursive="1"), 403, "file-forbidden")
    await problem(
        await files.call("POST", "/move", json={"path": "b"}), 400, "invalid-field", field="target"
    )
    await problem(await files.call("POST", "/mkdir", json={"path": "b"}), 409, "file-exists")
    await problem(
        await files.call("POST", "/mkdir", json={"path": "n", "mode": "999"}),
        400,
        "invalid-field",
        field="mode",
    )


async def test_nothing_leads_out(files: FilesWorld, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    (files.home / "out").symlink_to(tmp_path / "secret")
    (files.home / "up").symlink_to("../../..")
    for path in ("out", "up/secret", "../../secret", "/../secret", str(tmp_path / "secret")):
        await problem(await files.call("GET", path=path), 404, "file-not-found")
        await files.call("PUT", path=path, data=b"overwritten")
        await files.call("DELETE", path=path)
    assert (tmp_path / "secret").read_text() == "outside"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "path"),
        ("path=", "path"),
        ("path=a&path=b", "path"),
        ("path=%00", "path"),
        ("path=%ff", "query"),
        ("path=" + "x" * 4097, "path"),
        ("path=f&mode=9", "mode"),
        ("path=f&modified=yesterday", "modified"),
        ("path=f&modified=1969-12-31T23:59:59Z", "modified"),
        ("path=f&parents=perhaps", "parents"),
    ],
)
async def test_bad_queries(files: FilesWorld, query: str, field: str) -> None:
    path = f"{files.session}/files?{query}"
    await problem(await files.world.call("PUT", path, data=b"x"), 400, "invalid-field", field=field)
    assert os.listdir(files.home) == []


async def test_what_is_not_there_or_no_file(files: FilesWorld) -> None:
    (files.home / "d").mkdir()
    os.mkfifo(files.home / "pipe")
    await problem(await files.call("GET", path="nothing"), 404, "file-not-found")
    await problem(await files.call("GET", path="d"), 409, "is-a-directory")
    await problem(
        await files.call("GET", path="d", headers={"Range": "bytes=0-"}), 409, "is-a-directory"
    )
    await problem(await files.call("PUT", path="d", data=b""), 409, "is-a-directory")
    await problem(await files.call("PUT", path="x/y", data=b""), 404, "file-not-found")
    await problem(await files.call("PUT", path="pipe", data=b""), 400, "invalid-file-request")
    await problem(await files.call("GET", "/stat", path="nothing"), 404, "file-not-found")


async def test_who_may(files: FilesWorld) -> None:
    await problem(await files.call("GET", path="f", bearer=None), 401, "unauthenticated")
    await problem(await files.call("GET", path="f", bearer="other"), 403, "not-owner")
    await problem(await files.call("PUT", path="f", data=b"", bearer="other"), 403, "not-owner")
    nobody = "/v1/sessions/00000000-0000-0000-0000-000000000000/files?path=f"
    await problem(await files.world.call("GET", nobody), 404, "session-not-found")
    await files.world.call("DELETE", files.session)
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        answer = await files.call(method, path="f")
        assert answer.status_code == 409
    await problem(await files.call("GET", "/list"), 409, "session-not-running")


async def test_the_session_ends_during_an_upload(files: FilesWorld) -> None:
    client = files.world.client
    headers = {"Authorization": "Bearer the-owner's-credential-0123456789"}
    async with client.request(
        f"{files.session}/files?path=f", method="PUT", headers=headers
    ) as connection:
        await connection.send(b"begun")
        while not files.agent.streams(files.session_id):
            await trio.sleep(0.01)
        await files.world.call("DELETE", files.session)
        await connection.send_complete()
        answer = await connection.as_response()
    await problem(answer, 409, "session-not-running")
    assert os.listdir(files.home) == []


async def test_the_document_describes_the_endpoints(files: FilesWorld) -> None:
    document = await (await files.world.call("GET", "/openapi.json")).get_json()
    operations = document["paths"]["/v1/sessions/{session_id}/files"]
    assert set(operations) >= {"get", "put", "delete"}
    (path,) = [p for p in operations["put"]["parameters"] if p["name"] == "path"]
    assert (path["in"], path["required"]) == ("query", True)
    assert "412" in operations["put"]["responses"]
    assert re.search("appears", operations["put"]["description"] + operations["put"]["summary"])
