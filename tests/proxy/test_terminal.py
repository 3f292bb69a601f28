from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from proxy.terminal import TerminalRoutes
from relay.websocket import Text, WebSocket
from tests.testing.served import Served, served
from trunkline.config import Config
from trunkline.sdk.client import Session
from trunkline.sdk.websocket import HandshakeRefused, open_websocket


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/sessions/x/pty", True),
        ("/v1/sessions//pty", False),
        ("/v1/sessions/x/y/pty", False),
        ("/v1/sessions/x/pty/", False),
        ("/v1/sessions/x/pty\n", False),
        ("/v1/sessions/x", False),
        ("//v1/sessions/x/pty", False),
        ("/", False),
    ],
)
def test_which_paths_it_serves(path: str, *, known: bool) -> None:
    routes = TerminalRoutes(None, None)  # type: ignore[arg-type]  # neither is used for that
    assert (routes.match(path) is not None) is known


class Fog:
    """A client of the JSON frames."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.output = b""

    async def send(self, **frame: object) -> None:
        await self.websocket.send_text(json.dumps(frame))

    async def type(self, data: bytes) -> None:
        await self.send(type="stdin", data_b64=base64.b64encode(data).decode())

    async def receive(self) -> dict[str, object] | None:
        with trio.fail_after(20):
            message = await self.websocket.receive()
        if message is None:
            return None
        assert isinstance(message, Text)
        frame: dict[str, object] = json.loads(message.text)
        if frame["type"] == "stdout":
            self.output += base64.b64decode(str(frame["data_b64"]))
        return frame

    async def expect(self, wanted: bytes) -> None:
        while wanted not in self.output:
            frame = await self.receive()
            assert frame is not None, self.output
            assert frame["type"] == "stdout", (frame, self.output)

    async def ended(self) -> tuple[dict[str, object] | None, int, str]:
        """Read to the end; return the exit frame, and how the WebSocket was closed."""
        exit_frame = None
        while (frame := await self.receive()) is not None:
            if frame["type"] == "exit":
                exit_frame = frame
        close = self.websocket.peer_close
        assert close is not None
        return exit_frame, close.code or 0, close.reason


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    async with served(tmp_path / "data", config=Config(grace=0.5)) as running:
        yield running


@pytest.fixture
async def session(world: Served) -> Session:
    return await world.client.create_session()


@asynccontextmanager
async def fog(world: Served, session: Session, ticket: str) -> AsyncIterator[Fog]:
    url = f"{world.ready.url.replace('http', 'ws')}/v1/sessions/{session.id}/pty?token={ticket}"
    websocket, _ = await open_websocket(url)
    try:
        yield Fog(websocket)
    finally:
        await websocket.close()


async def ticket(world: Served, session: Session, **wish: object) -> str:
    # The SDK's own tickets are for trunk/1; this is what any program would ask for.
    from relay.endpoint import Kind
    from relay.grant import Mode

    mode = Mode(str(wish.get("mode", "control")))
    return (await world.client.api.ticket(session.id, frozenset({Kind.PTY}), mode)).token


async def test_a_terminal(world: Served, session: Session) -> None:
    async with fog(world, session, await ticket(world, session)) as client:
        await client.expect(b"$ ")
        await client.send(type="resize", cols=91, rows=17)
        await client.type(b"stty size\r")
        await client.expect(b"17 91\r\n")
        await client.type(b"exit 7\r")
        assert await client.ended() == ({"type": "exit", "code": 7}, 1000, "exited")


async def test_typing_past_the_end(world: Served, session: Session) -> None:
    """What is typed after the shell has ended costs nobody the exit status."""
    async with fog(world, session, await ticket(world, session)) as client:
        await client.expect(b"$ ")
        await client.type(b"echo last words; exit 3\r")
        for _ in range(50):
            await client.type(b"more\r")
        ended = await client.ended()
        assert ended == ({"type": "exit", "code": 3}, 1000, "exited")
        assert b"last words\r\n" in client.output


async def test_a_viewer_that_types_goes_on_viewing(world: Served, session: Session) -> None:
    async with fog(world, session, await ticket(world, session)) as controller:
        await controller.expect(b"$ ")
        async with fog(world, session, await ticket(world, session, mode="view")) as viewer:
            await viewer.expect(b"$ ")
            await viewer.type(b"exit 9\r")
            await viewer.send(type="resize", cols=1, rows=1)
            await controller.type(b"stty size\r")
            await viewer.expect(b"24 80\r\n")
            await controller.type(b"exit 2\r")
            assert (await viewer.ended())[0] == {"type": "exit", "code": 2}


async def test_a_viewer_of_nothing(world: Served, session: Session) -> None:
    async with fog(world, session, await ticket(world, session, mode="view")) as viewer:
        assert await viewer.ended() == (None, 1008, "not_found")


async def test_the_session_ends(world: Served, session: Session) -> None:
    async with fog(world, session, await ticket(world, session)) as client:
        await client.expect(b"$ ")
        await session.delete()
        assert await client.ended() == (None, 1000, "session_ended")


async def test_a_client_that_vanishes(world: Served, session: Session) -> None:
    """Its shell goes on; nothing is told to nobody."""
    async with fog(world, session, await ticket(world, session)) as client:
        await client.expect(b"$ ")
        await client.type(b"echo re''member\r")
        await client.expect(b"remember\r\n")
    async with fog(world, session, await ticket(world, session)) as client:
        await client.expect(b"remember\r\n")


async def test_refusals(world: Served, session: Session) -> None:
    base = f"{world.ready.url.replace('http', 'ws')}/v1/sessions/{session.id}/pty"
    for query, status in (
        ("", 401),
        ("?token=", 401),
        ("?token=garbage", 401),
        ("?token=a&token=b", 400),
    ):
        with pytest.raises(HandshakeRefused) as caught:
            await open_websocket(base + query)
        assert caught.value.status == status
        assert caught.value.body
    with pytest.raises(HandshakeRefused) as caught:
        await open_websocket(base, subprotocols=["chat", "trunk.ticket.x"])
    assert caught.value.status == 400
