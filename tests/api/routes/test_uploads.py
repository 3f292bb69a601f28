"""The tus protocol, request by request, on the real agent and a real file system."""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.testing.api_world import CREDENTIAL, problem
from tests.testing.files_world import FilesWorld, files_world

OCTETS = "application/offset+octet-stream"


@pytest.fixture
async def files(tmp_path: Path, static_root: Path) -> AsyncIterator[FilesWorld]:
    async with files_world(tmp_path, static_root) as world:
        yield world


def metadata(**values: str) -> str:
    return ",".join(f"{key} {b64encode(value.encode()).decode()}" for key, value in values.items())


async def create(files: FilesWorld, length: int, **values: str) -> str:
    """Begin an upload; return its address."""
    headers = {"Upload-Length": str(length), "Upload-Metadata": metadata(**values)}
    answer = await files.tus("POST", headers=headers)
    assert answer.status_code == 201, await answer.get_data()
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    return answer.headers["Location"]


async def offset(files: FilesWorld, url: str) -> int:
    answer = await files.tus("HEAD", url)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    return int(answer.headers["Upload-Offset"])


def patch(at: int, **more: str) -> dict[str, str]:
    return {"Upload-Offset": str(at), "Content-Type": OCTETS, **more}


async def test_what_is_spoken(files: FilesWorld) -> None:
    for bearer in (CREDENTIAL, None):
        answer = await files.world.call("OPTIONS", f"{files.session}/uploads", bearer=bearer)
        assert answer.status_code == 204
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        extensions = answer.headers["Tus-Extension"].split(",")
        assert {"creation", "creation-with-upload", "termination", "checksum"} <= set(extensions)
        assert "sha1" in answer.headers["Tus-Checksum-Algorithm"].split(",")


async def test_an_upload_in_two_parts(files: FilesWorld) -> None:
    values = metadata(path="d/f.txt", parents="true", mode="0600", filename="ä.txt")
    headers = {"Upload-Length": "10", "Upload-Metadata": values}
    answer = await files.tus("POST", headers=headers)
    assert answer.status_code == 201
    assert answer.headers["Upload-Expires"].endswith("GMT")
    url = answer.headers["Location"]
    assert url.startswith(f"{files.session}/uploads/")
    answer = await files.tus("PATCH", url, patch(0), data=b"01234")
    assert answer.status_code == 204
    assert answer.headers["Upload-Offset"] == "5"
    assert not (files.home / "d" / "f.txt").exists()
    head = await files.tus("HEAD", url)
    assert (head.headers["Upload-Offset"], head.headers["Upload-Length"]) == ("5", "10")
    assert head.headers["Upload-Metadata"] == values
    answer = await files.tus("PATCH", url, patch(5), data=b"56789")
    assert answer.headers["Upload-Offset"] == "10"
    assert "Upload-Expires" not in answer.headers
    assert (files.home / "d" / "f.txt").read_bytes() == b"0123456789"
    assert (files.home / "d" / "f.txt").stat().st_mode & 0o777 == 0o600
    assert await offset(files, url) == 10
    assert (await files.tus("PATCH", url, patch(10), data=b"")).status_code == 204


async def test_creation_with_content(files: FilesWorld) -> None:
    headers = {
        "Upload-Length": "4",
        "Upload-Metadata": metadata(path="f"),
        "Content-Type": OCTETS,
    }
    answer = await files.tus("POST", headers=headers, data=b"ab")
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "2")
    url = answer.headers["Location"]
    assert (await files.tus("PATCH", url, patch(2), data=b"cd")).status_code == 204
    assert (files.home / "f").read_bytes() == b"abcd"
    answer = await files.tus("POST", headers=headers, data=b"abcd")
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "4")
    headers = {"Upload-Length": "0", "Upload-Metadata": metadata(path="empty")}
    assert (await files.tus("POST", headers=headers)).headers["Upload-Offset"] == "0"
    assert (files.home / "empty").read_bytes() == b""


async def test_a_wrong_offset(files: FilesWorld) -> None:
    url = await create(files, 10, path="f")
    await files.tus("PATCH", url, patch(0), data=b"0123")
    for at in (0, 3, 5, 11):
        answer = await files.tus("PATCH", url, patch(at), data=b"x")
        await problem(answer, 409, "upload-offset")
        assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert await offset(files, url) == 4


async def test_more_than_was_announced(files: FilesWorld) -> None:
    url = await create(files, 3, path="f")
    await problem(await files.tus("PATCH", url, patch(0), data=b"1234"), 413, "file-too-large")
    assert os.listdir(files.home) == []
    assert await offset(files, url) == 0


async def test_checksums(files: FilesWorld) -> None:
    url = await create(files, 6, path="f")
    headers: dict[str, str] = {}
    for algorithm in ("sha1", "sha256"):
        value = b64encode(hashlib.new(algorithm, b"abc").digest()).decode()
        headers = patch(0, **{"Upload-Checksum": f"{algorithm} {value}"})
        await problem(await files.tus("PATCH", url, headers, data=b"xyz"), 460, "checksum-mismatch")
        assert await offset(files, url) == 0
    assert (await files.tus("PATCH", url, headers, data=b"abc")).status_code == 204
    for value in ("md5 AAAA", "sha1 nonsense", "sha1"):
        answer = await files.tus("PATCH", url, patch(3, **{"Upload-Checksum": value}), data=b"def")
        await problem(answer, 400, "invalid-field", field="Upload-Checksum")
    assert await offset(files, url) == 3


async def test_the_checksum_of_the_whole(files: FilesWorld) -> None:
    right = hashlib.sha256(b"abc").hexdigest()
    url = await create(files, 3, path="f", sha256=right)
    await problem(await files.tus("PATCH", url, patch(0), data=b"abd"), 400, "digest-mismatch")
    await problem(await files.tus("PATCH", url, patch(0), data=b"abc"), 404, "upload-not-found")
    url = await create(files, 3, path="f", sha256=right.upper())
    assert (await files.tus("PATCH", url, patch(0), data=b"abc")).status_code == 204
    url = await create(files, 3, path="g", overwrite="false")
    (files.home / "g").touch()
    await problem(await files.tus("PATCH", url, patch(0), data=b"abc"), 409, "file-exists")


async def test_giving_up(files: FilesWorld) -> None:
    url = await create(files, 3, path="f")
    answer = await files.tus("DELETE", url)
    assert answer.status_code == 204
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    for method, headers in (("DELETE", {}), ("HEAD", {}), ("PATCH", patch(0))):
        answer = await files.tus(method, url, headers, data=b"" if method == "PATCH" else None)
        assert answer.status_code == 404
        assert answer.headers["Tus-Resumable"] == "1.0.0"


async def test_methods_by_another_name(files: FilesWorld) -> None:
    url = await create(files, 3, path="f")
    headers = patch(0, **{"X-HTTP-Method-Override": "PATCH"})
    assert (await files.tus("POST", url, headers, data=b"ab")).status_code == 204
    answer = await files.tus("POST", url, {"X-HTTP-Method-Override": "HEAD"})
    assert answer.headers["Upload-Offset"] == "2"
    assert (await files.tus("POST", url, {"X-HTTP-Method-Override": "DELETE"})).status_code == 204
    await problem(await files.tus("POST", url, patch(0), data=b""), 405, "method-not-allowed")
    await problem(await files.tus("GET", url), 405, "method-not-allowed")


async def test_another_version_of_the_protocol(files: FilesWorld) -> None:
    url = await create(files, 3, path="f")
    for version in ("", "0.2.2"):
        for method, path in (("POST", ""), ("PATCH", url), ("DELETE", url)):
            answer = await files.tus(method, path, {"Tus-Resumable": version}, data=b"")
            await problem(answer, 412, "tus-version")
            assert answer.headers["Tus-Version"] == "1.0.0"


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Upload-Metadata": metadata(path="f")}, "Upload-Length"),
        ({"Upload-Length": "-1", "Upload-Metadata": metadata(path="f")}, "Upload-Length"),
        ({"Upload-Length": "9" * 30, "Upload-Metadata": metadata(path="f")}, "Upload-Length"),
        ({"Upload-Defer-Length": "1"}, "Upload-Defer-Length"),
        ({"Upload-Length": "1"}, "Upload-Metadata"),
        ({"Upload-Length": "1", "Upload-Metadata": "path !!"}, "Upload-Metadata"),
        ({"Upload-Length": "1", "Upload-Metadata": "path Zg==,path Zg=="}, "Upload-Metadata"),
        ({"Upload-Length": "1", "Upload-Metadata": metadata(path="")}, "path"),
        ({"Upload-Length": "1", "Upload-Metadata": metadata(path="f", mode="9")}, "mode"),
        (
            {"Upload-Length": "1", "Upload-Metadata": metadata(path="f", sha256="0")},
            "Upload-Metadata",
        ),
        ({"Upload-Length": "1", "Upload-Metadata": metadata(path="x" * 5000)}, "Upload-Metadata"),
    ],
)
async def test_what_is_no_creation(files: FilesWorld, headers: dict[str, str], field: str) -> None:
    await problem(await files.tus("POST", headers=headers), 400, "invalid-field", field=field)


async def test_what_cannot_be_created(files: FilesWorld) -> None:
    for path, status, name in (
        ("x/y", 404, "file-not-found"),
        (".", 403, "file-forbidden"),
        ("../..", 400, "invalid-file-request"),
    ):
        headers = {"Upload-Length": "1", "Upload-Metadata": metadata(path=path)}
        answer = await files.tus("POST", headers=headers)
        assert answer.status_code in {status, 409}, (path, name)
    headers = {"Upload-Length": str(2**62), "Upload-Metadata": metadata(path="f")}
    await problem(await files.tus("POST", headers=headers), 507, "no-space")


async def test_other_types_of_content(files: FilesWorld) -> None:
    url = await create(files, 3, path="f")
    headers = {"Upload-Offset": "0", "Content-Type": "text/plain"}
    await problem(
        await files.tus("PATCH", url, headers, data=b"abc"), 415, "unsupported-media-type"
    )
    headers = {
        "Upload-Length": "3",
        "Upload-Metadata": metadata(path="g"),
        "Content-Type": "application/octet-stream",
    }
    assert (await files.tus("POST", headers=headers)).status_code == 201
    for more in ({"Content-Length": "1"}, {"Transfer-Encoding": "chunked"}):
        answer = await files.tus("POST", headers={**headers, **more}, data=b"a")
        await problem(answer, 415, "unsupported-media-type")


async def test_names_of_uploads(files: FilesWorld) -> None:
    for name in ("short", "x" * 65, "sixteen.and.more"):
        answer = await files.tus("PATCH", f"{files.session}/uploads/{name}", patch(0), data=b"")
        await problem(answer, 404, "upload-not-found")


async def test_who_may(files: FilesWorld) -> None:
    url = await create(files, 3, path="f")
    for bearer, status in ((None, 401), ("somebody", 403)):
        for method, path in (("POST", ""), ("HEAD", url), ("PATCH", url), ("DELETE", url)):
            headers = patch(0, **{"Upload-Length": "1", "Upload-Metadata": metadata(path="f")})
            answer = await files.tus(
                method, path, headers, data=None if method == "HEAD" else b"", bearer=bearer
            )
            assert answer.status_code == status
    await files.world.call("DELETE", files.session)
    assert (await files.tus("HEAD", url)).status_code == 409
