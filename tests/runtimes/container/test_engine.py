"""Talking to engines that are dead, strange, or say no; no real one is needed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from relay.endpoint import Channel, ExitStatus
from runtimes.base import SandboxError, SandboxSpec
from runtimes.container import ContainerRuntime, EngineAddress
from runtimes.container.engine import open_engine
from runtimes.container.errors import EngineError, EngineUnreachable
from runtimes.exec_inside.endpoint import exit_status
from runtimes.exec_inside.process import ExecSpec
from tests.testing.socket_servers import open_server

VERSION = {"ApiVersion": "1.44", "MinAPIVersion": "1.24"}


def answer(body: object, status: str = "200 OK") -> bytes:
    content = json.dumps(body).encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    ).encode() + content


@asynccontextmanager
async def playing(path: Path, answers: dict[str, bytes]) -> AsyncIterator[EngineAddress]:
    """Serve an engine that answers a request by the first of `answers` whose name is in its target."""

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            if not data:
                return
            head += data
        target = head.split(b" ")[1].decode()
        await stream.send_all(next(a for part, a in answers.items() if part in target))

    socket = str(path / "engine")
    async with open_server(serve, path=socket):
        yield EngineAddress(path=socket)


async def test_no_engine(tmp_path: Path) -> None:
    address = EngineAddress(path=str(tmp_path / "none"))
    with pytest.raises(
        SandboxError, match=r"unix://.*/none cannot be reached \(No such file.*start"
    ):
        async with ContainerRuntime(address, image="x").open_sandbox(SandboxSpec("s")):
            pytest.fail("it opened")
    with pytest.raises(SandboxError, match="cannot be reached"):
        await ContainerRuntime(address).remove_orphans(())


async def test_nobody_listens_on_the_port() -> None:
    with pytest.raises(EngineUnreachable, match=r"http://127.0.0.1:1 cannot be reached"):
        async with open_engine(EngineAddress.parse("tcp://127.0.0.1:1")):
            pytest.fail("it opened")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ({"ApiVersion": "1.39", "MinAPIVersion": "1.12"}, "1.12 to 1.39 .* another release"),
        ({"ApiVersion": "9.9", "MinAPIVersion": "9.1"}, "9.1 to 9.9 .* another release"),
        ({"ApiVersion": "new"}, "is it a container engine"),
        ({}, "is it a container engine"),
    ],
)
async def test_versions_that_do_not_fit(
    tmp_path: Path, version: dict[str, str], message: str
) -> None:
    async with playing(tmp_path, {"/version": answer(version)}) as address:
        with pytest.raises(EngineUnreachable, match=message):
            async with open_engine(address):
                pytest.fail("it opened")


async def test_something_else_listens(tmp_path: Path) -> None:
    page = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>"
    async with playing(tmp_path, {"": page}) as address:
        with pytest.raises(EngineUnreachable, match="is no container engine"):
            async with open_engine(address):
                pytest.fail("it opened")


async def test_a_process_that_is_refused(tmp_path: Path) -> None:
    refused = answer({"message": "container is paused"}, "409 Conflict")
    answers = {"/version": answer(VERSION), "/start": refused, "/exec": answer({"Id": "7"})}
    async with playing(tmp_path, answers) as address, open_engine(address) as engine:
        with pytest.raises(EngineError, match=r"^container is paused$") as caught:
            await engine.start_exec("c", ExecSpec(("true",), {}))
        assert caught.value.status == 409


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n",
    ],
)
async def test_bytes_that_come_with_the_answer_are_kept(tmp_path: Path, head: bytes) -> None:
    answers = {
        "/version": answer(VERSION),
        "/start": head + b"early bytes",
        "/exec": answer({"Id": "7"}),
    }
    async with playing(tmp_path, answers) as address, open_engine(address) as engine:
        running = await engine.start_exec("c", ExecSpec(("true",), {}, terminal=True))
        got = b""
        while pieces := await running.receive():
            for channel, piece in pieces:
                assert channel is Channel.OUTPUT
                got += piece
        assert got == b"early bytes"
        await running.aclose()


async def test_a_connection_that_ends_before_the_answer(tmp_path: Path) -> None:
    answers = {"/version": answer(VERSION), "/start": b"", "/exec": answer({"Id": "7"})}
    async with playing(tmp_path, answers) as address, open_engine(address) as engine:
        with pytest.raises(EngineUnreachable):
            await engine.start_exec("c", ExecSpec(("true",), {}))


def test_exit_codes() -> None:
    assert exit_status(0) == ExitStatus(code=0)
    assert exit_status(128) == ExitStatus(code=128)
    assert exit_status(137) == ExitStatus(signal="KILL")
    assert exit_status(143) == ExitStatus(signal="TERM")
    assert exit_status(255) == ExitStatus(code=255)
