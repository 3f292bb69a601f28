"""Files through the whole of it: the command line, real sockets, a real server, cuts."""

# ruff: noqa: ASYNC240 - a look at the disk is what these tests are about

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import socket
import stat
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from tests.testing.cli import open_cli, open_terminal_cli, run_cli
from tests.testing.cutting_proxy import CuttingProxy, open_cutting_proxy
from tests.testing.server_process import ServerProcess, running_server

SEED = 20261122
MIB = 1024 * 1024
UPLOAD_MIB = int(os.environ.get("TRUNKLINE_TEST_UPLOAD_MIB", "64"))
"""Size of the large upload; 5120 for the real thing."""
ALLOWED_GROWTH = 64 * MIB
"""Bytes by which the server may grow for it."""
CUTS = 10


@pytest.fixture
def home(server: ServerProcess) -> Iterator[Path]:
    """The home of every session; empty before and after."""
    before = set(server.home.iterdir())
    yield server.home
    left = [p.name for p in server.home.iterdir() if p.name.startswith(".trunkline-")]
    assert left == []
    for path in set(server.home.iterdir()) - before:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def tree(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return modes, times and contents of all files and directories."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(top))] = (
            stat.S_IMODE(status.st_mode),
            status.st_mtime_ns,
            content,
        )
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with a bit of everything that can be copied."""
    top = tmp_path / "source"
    rng = random.Random(SEED)
    (top / "empty-directory").mkdir(parents=True)
    (top / "a" / "b").mkdir(parents=True)
    for name, size in (("one", 10), ("a/two", 700_000), ("a/b/three", 3), ("a/b/empty", 0)):
        (top / name).write_bytes(rng.randbytes(size))
        (top / name).chmod(rng.choice([0o600, 0o644, 0o755]))
    (top / "ümläut [x].txt").write_text("x")
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**18 + number, 10**18 + number))
    return top


async def test_a_file_there_and_back(
    env: dict[str, str], session_id: str, home: Path, source: Path, tmp_path: Path
) -> None:
    done = await run_cli(env, "cp", str(source / "a" / "two"), f"{session_id}:copy")
    assert (done.code, done.stdout, done.errors) == (0, b"", "")
    assert (home / "copy").read_bytes() == (source / "a" / "two").read_bytes()
    assert (await run_cli(env, "cp", f"{session_id}:copy", str(tmp_path))).code == 0
    assert (tmp_path / "copy").stat().st_mtime_ns == (source / "a" / "two").stat().st_mtime_ns
    done = await run_cli(env, "cp", f"{session_id}:copy", "-")
    assert done.stdout == (source / "a" / "two").read_bytes()
    assert (await run_cli(env, "cp", "-", f"{session_id}:in", stdin=b"piped")).code == 0
    assert (home / "in").read_bytes() == b"piped"


async def test_a_tree_there_and_back(
    env: dict[str, str], session_id: str, home: Path, source: Path, tmp_path: Path
) -> None:
    assert (await run_cli(env, "cp", "-r", str(source), f"{session_id}:tree")).errors == ""
    assert tree(home / "tree") == tree(source)
    assert (await run_cli(env, "cp", "-r", f"{session_id}:tree", str(tmp_path / "back"))).code == 0
    assert tree(tmp_path / "back") == tree(source)
    # Into a directory that is there, under its own name; and over what is there.
    for _ in range(2):
        assert (await run_cli(env, "cp", "-r", str(source), f"{session_id}:")).code == 0
        assert tree(home / "source") == tree(source)
        (tmp_path / "into").mkdir(exist_ok=True)
        await run_cli(env, "cp", "-r", f"{session_id}:tree", str(tmp_path / "into"))
        assert tree(tmp_path / "into" / "tree") == tree(source)
    listed = await run_cli(env, "files", session_id, "tree", "--depth", "3")
    assert len(listed.stdout.splitlines()) == len(tree(source))


async def test_links_are_told_of_and_not_followed(
    env: dict[str, str], session_id: str, home: Path, tmp_path: Path
) -> None:
    for top in (home / "there", tmp_path / "here"):
        top.mkdir()
        (top / "file").write_text("x")
        (top / "link").symlink_to("/etc/passwd")
        (top / "loop").symlink_to(".")
        os.mkfifo(top / "pipe")
    up = await run_cli(env, "cp", "-r", str(tmp_path / "here"), f"{session_id}:up")
    down = await run_cli(env, "cp", "-r", f"{session_id}:there", str(tmp_path / "down"))
    for done, copied in ((up, home / "up"), (down, tmp_path / "down")):
        assert done.code == 1
        assert [p.name for p in copied.iterdir()] == ["file"]
        assert len(re.findall("not copied: .*link$", done.errors, re.MULTILINE)) == 2
        assert "neither file nor directory" in done.errors


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ID:nothing", "LOCAL/x"], 1, "'nothing' does not exist"),
        (["LOCAL/nothing", "ID:x"], 1, "No such file"),
        (["LOCAL/file", "ID:no/x"], 1, "does not exist"),
        (["LOCAL", "ID:x"], 1, "add -r"),
        (["ID:.", "LOCAL/x"], 1, "add -r"),
        (["-n", "LOCAL/file", "ID:taken"], 1, "exists already"),
        (["-n", "ID:taken", "LOCAL/file"], 1, "exists already"),
        (["LOCAL/file", "ID:new/"], 1, "not a directory"),
        (["ID:taken", "LOCAL/new/"], 1, "not a directory"),
        (["a", "b"], 2, "ID:PATH"),
        (["ID:a", "ID:b"], 2, "ID:PATH"),
        (["-r", "-", "ID:b"], 2, "leave out -r"),
        (["00000000-0000-0000-0000-000000000000:a", "b"], 1, "No session has the id"),
    ],
)
async def test_what_cannot_be_copied(
    env: dict[str, str],
    session_id: str,
    home: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    (home / "taken").write_text("there")
    (tmp_path / "file").write_text("here")
    given = [a.replace("ID:", f"{session_id}:").replace("LOCAL", str(tmp_path)) for a in arguments]
    done = await run_cli(env, "cp", *given)
    assert (done.code, done.stdout) == (code, b"")
    assert message in done.errors
    assert (home / "taken").read_text() == "there"
    assert (tmp_path / "file").read_text() == "here"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


async def test_a_bar_on_a_terminal(
    env: dict[str, str], session_id: str, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(3 * MIB))
    with open_terminal_cli(env, "cp", str(tmp_path / "file"), f"{session_id}:f") as terminal:
        assert await terminal.wait() == 0
        assert re.search(rb"3\.1/3\.1 MB", terminal.seen)
    with open_terminal_cli(env, "cp", "-q", f"{session_id}:f", str(tmp_path / "g")) as terminal:
        assert await terminal.wait() == 0
        assert terminal.seen == b""
    assert (tmp_path / "g").read_bytes() == bytes(3 * MIB)


def test_heads_on_the_wire(server: ServerProcess, session_id: str, home: Path) -> None:
    (home / "f.txt").write_bytes(b"0123456789")
    url = f"/v1/sessions/{session_id}/files?path=f.txt"
    with server.client() as client:
        head = client.head(url)
        assert head.headers["Content-Length"] == "10"
        assert head.content == b""
        same = client.get(url, headers={"If-None-Match": head.headers["ETag"]})
        assert same.status_code == 304
        assert "Content-Type" not in same.headers
        part = client.get(url, headers={"Range": "bytes=2-3"})
        assert (part.status_code, part.content) == (206, b"23")


def test_a_client_that_leaves_in_the_middle_of_a_file(
    server: ServerProcess, session_id: str, home: Path
) -> None:
    (home / "f").write_text("old")
    before = server.usage().descriptors
    for framing in ("Content-Length: 1000000", "Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            head = (
                f"PUT /v1/sessions/{session_id}/files?path=f HTTP/1.1\r\nHost: {server.host}\r\n"
                f"Authorization: Bearer {server.token}\r\n{framing}\r\n\r\n"
            )
            raw.sendall(head.encode() + b"10\r\n" + bytes(100_000))
    wait_until(lambda: streams(server, session_id) == 0)
    assert (home / "f").read_text() == "old"
    assert [p.name for p in home.iterdir() if "trunkline" in p.name] == []
    # Each upload held three at least; the server is shared, so one or two more may be somebody's.
    wait_until(lambda: server.usage().descriptors <= before + 2)


def test_a_client_that_stops_reading_a_file(
    server: ServerProcess, session_id: str, home: Path
) -> None:
    """It costs its windows and no more, and its stream ends with it."""
    with (home / "large").open("wb") as file:
        file.truncate(200 * MIB)
    before = server.usage()
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        head = (
            f"GET /v1/sessions/{session_id}/files?path=large HTTP/1.1\r\nHost: {server.host}\r\n"
            f"Authorization: Bearer {server.token}\r\n\r\n"
        )
        raw.sendall(head.encode())
        raw.recv(1000)
        wait_until(lambda: streams(server, session_id) == 1)
        with server.client() as client:
            for _ in range(20):
                assert client.get("/healthz").status_code == 200
        assert server.usage().rss - before.rss < 32 * MIB
    wait_until(lambda: streams(server, session_id) == 0)


def streams(server: ServerProcess, session_id: str) -> int:
    with server.client() as client:
        return len(client.get(f"/v1/sessions/{session_id}/streams").json()["streams"])


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Ask over and over: each time is a request, so nothing else is needed to pass the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"


# ---------------------------------------------------------------- cuts


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening


@pytest.fixture(scope="module")
def proxied(
    listener: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    config = f'allowed_hosts = ["127.0.0.1:{listener.getsockname()[1]}"]'
    with running_server(tmp_path_factory.mktemp("files"), config=config) as server:
        yield server


@pytest.fixture
def proxied_session(proxied: ServerProcess) -> Iterator[str]:
    session: str = proxied.create_session()["session_id"]
    yield session
    proxied.delete_session(session)
    proxied.check_log()


def make_file(path: Path, mebibytes: int) -> str:
    """Write a file of that size; return its digest."""
    rng = random.Random(SEED)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mebibytes):
            piece = rng.randbytes(MIB)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def cut_now_and_then(proxy: CuttingProxy, step: int) -> None:
    """Cut everything whenever `step` more bytes have passed, `CUTS` times."""
    for number in range(1, CUTS + 1):
        while proxy.moved < number * step:
            await trio.sleep(0.005)
        proxy.cut()


async def watch_growth(server: ServerProcess, growth: list[int]) -> None:
    before = server.usage().rss
    while True:
        growth.append(server.usage().rss - before)
        await trio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_large_upload_with_cuts_in_flat_memory(
    proxied: ServerProcess, proxied_session: str, listener: socket.socket, tmp_path: Path
) -> None:
    env = {
        **proxied.environment,
        "TRUNKLINE_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
        "TRUNKLINE_TOKEN": proxied.token,
    }
    wanted = await trio.to_thread.run_sync(make_file, tmp_path / "large", UPLOAD_MIB)
    step = UPLOAD_MIB * MIB // (CUTS + 2)
    growth: list[int] = []
    async with (
        open_cutting_proxy(listener, proxied.port, budgets=iter([step] * CUTS), seed=SEED) as proxy,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch_growth, proxied, growth)
        for arguments in (
            ("cp", str(tmp_path / "large"), f"{proxied_session}:large"),
            ("cp", f"{proxied_session}:large", str(tmp_path / "back")),
        ):
            done = await run_cli(env, *arguments, seconds=60 + UPLOAD_MIB)
            assert done.code == 0, done.errors
            assert len(proxy.cuts) == CUTS
        nursery.cancel_scope.cancel()
    assert digest_of(proxied.home / "large") == wanted
    assert digest_of(tmp_path / "back") == wanted
    assert max(growth) < ALLOWED_GROWTH
    (proxied.home / "large").unlink()


async def tus_upload(client: httpx2.AsyncClient, url: str, source: Path) -> int:
    """Upload as a tus client does, in pieces of no fixed size; return how often it was cut off."""
    size = source.stat().st_size
    path = b64encode(b"tus").decode()
    headers = {"Tus-Resumable": "1.0.0"}
    cuts = 0

    async def call(method: str, address: str, more: dict[str, str], content: Any = None) -> Any:
        nonlocal cuts
        while True:
            try:
                return await client.request(
                    method, address, headers={**headers, **more}, content=content
                )
            except httpx2.TransportError:
                cuts += 1
                if method == "PATCH":
                    return None

    async def rest(offset: int) -> Any:
        with source.open("rb") as file:
            file.seek(offset)
            while piece := file.read(256 * 1024):
                yield piece

    created = await call(
        "POST", url, {"Upload-Length": str(size), "Upload-Metadata": f"path {path}"}
    )
    location = created.headers["Location"]
    while True:
        head = await call("HEAD", location, {})
        offset = int(head.headers["Upload-Offset"])
        if offset == size:
            return cuts
        more = {
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(size - offset),
        }
        answer = await call("PATCH", location, more, rest(offset))
        assert answer is None or answer.status_code in {204, 409}, answer.text


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_large_tus_upload_with_cuts_in_flat_memory(
    proxied: ServerProcess, proxied_session: str, listener: socket.socket, tmp_path: Path
) -> None:
    wanted = await trio.to_thread.run_sync(make_file, tmp_path / "large", UPLOAD_MIB)
    growth: list[int] = []
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with (
        open_cutting_proxy(listener, proxied.port, seed=SEED) as proxy,
        httpx2.AsyncClient(
            base_url=base,
            headers={"Authorization": f"Bearer {proxied.token}"},
            timeout=30,
            trust_env=False,
        ) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch_growth, proxied, growth)
        nursery.start_soon(partial(cut_now_and_then, proxy, step=UPLOAD_MIB * MIB // (CUTS + 2)))
        with trio.fail_after(60 + UPLOAD_MIB):
            cuts = await tus_upload(
                client, f"/v1/sessions/{proxied_session}/uploads", tmp_path / "large"
            )
        nursery.cancel_scope.cancel()
    assert cuts >= CUTS // 2
    assert digest_of(proxied.home / "tus") == wanted
    assert max(growth) < ALLOWED_GROWTH
    (proxied.home / "tus").unlink()


async def test_a_copy_that_is_interrupted_leaves_nothing(
    env: dict[str, str], session_id: str, home: Path, tmp_path: Path
) -> None:
    with (home / "large").open("wb") as file:
        file.truncate(1024 * MIB)

    def has_begun() -> bool:
        return any(path.stat().st_size for path in tmp_path.glob(".large.*"))

    async with open_cli(
        env, "cp", f"{session_id}:large", str(tmp_path / "large"), stdin=None
    ) as process:
        with trio.fail_after(30):
            while not has_begun():
                await trio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
    assert [p.name for p in tmp_path.glob("*large*")] == []
