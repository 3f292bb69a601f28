"""How the double of an API server carries the bytes of processes and ports."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import trio

from relay.websocket import Binary, WebSocket
from tests.testing.kube_pod import PodJail, Started

PIECE = 32 * 1024
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


async def serve_exec(
    websocket: WebSocket,
    jail: PodJail,
    query: Mapping[str, list[str]],
    protocol: str,
    reapers: trio.Nursery,
) -> None:
    """Run a process and carry its bytes, until it ends or the client goes away."""
    terminal = query.get("tty") == ["true"]
    started = await jail.start(query["command"], terminal=terminal)
    reapers.start_soon(started.process.wait)
    outputs: list[tuple[int, trio.abc.ReceiveStream]] = []
    stdin: trio.abc.SendStream
    if started.master is not None:
        stdin = trio.lowlevel.FdStream(os.dup(started.master))
        outputs.append((1, trio.lowlevel.FdStream(started.master)))
    else:
        process = started.process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        stdin = process.stdin
        outputs += [(1, process.stdout), (2, process.stderr)]
    try:
        for channel in (1, 2, 3):
            await websocket.send_binary(bytes((channel,)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_take_input, websocket, stdin, started, protocol, nursery)
            reading = _Reading()
            async with trio.open_nursery() as copying:
                for channel, stream in outputs:
                    copying.start_soon(_copy, websocket, channel, stream, started.master, reading)
                code = await started.process.wait()
                if started.master is not None:
                    # As container runtimes do, whoever else may have the terminal open.
                    reading.end()
            await websocket.send_binary(b"\x03" + _status(code if code >= 0 else 128 - code))
            nursery.cancel_scope.cancel()
        await websocket.close()
    except* GONE:
        pass
    finally:
        for resource in (stdin, *(stream for _, stream in outputs)):
            await trio.aclose_forcefully(resource)
        await trio.aclose_forcefully(websocket)


def _status(code: int) -> bytes:
    if code == 0:
        return json.dumps({"metadata": {}, "status": "Success"}).encode()
    status = {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
    return json.dumps(status).encode()


class _Reading:
    """Waiting for output, which ends when the process has; sending is never broken off."""

    def __init__(self) -> None:
        self.ended = False
        self._scope = trio.CancelScope()

    def scope(self) -> trio.CancelScope:
        self._scope = trio.CancelScope()
        if self.ended:
            self._scope.cancel()
        return self._scope

    def end(self) -> None:
        self.ended = True
        self._scope.cancel()


async def _copy(
    websocket: WebSocket,
    channel: int,
    stream: trio.abc.ReceiveStream,
    master: int | None,
    reading: _Reading,
) -> None:
    """Carry output until it ends, or what is there when `reading` is cancelled."""
    while True:
        data = b""
        with reading.scope():
            try:
                data = bytes(await stream.receive_some(PIECE))
            except trio.BrokenResourceError:  # how a terminal ends
                return
        if master is not None:
            data += _read_more(master)
        if data:
            await websocket.send_binary((bytes((channel,)), data))
        elif reading.ended or master is None:
            return


def _read_more(master: int) -> bytes:
    """Read what else a terminal has, as the pipe between runtime and kubelet collects it."""
    pieces: list[bytes] = []
    with suppress(OSError):  # which includes that there is nothing
        while sum(map(len, pieces)) < PIECE and (data := os.read(master, PIECE)):
            pieces.append(data)
    return b"".join(pieces)


async def _take_input(
    websocket: WebSocket,
    stdin: trio.abc.SendStream,
    started: Started,
    protocol: str,
    nursery: trio.Nursery,
) -> None:
    """Carry input, sizes and its end; when the client is gone, so is everything."""
    message = bytearray()
    while isinstance(event := await websocket.receive(), Binary):
        message += event.data
        if not event.final:
            continue
        channel, content = message[0], bytes(message[1:])
        message.clear()
        if channel == 0 and content:
            with suppress(*GONE):  # if it does not read any more, nobody is told
                await stdin.send_all(content)
        elif channel == 4:
            size = json.loads(content)
            started.resize(size["Height"], size["Width"])
        elif channel == 255:
            assert protocol == "v5.channel.k8s.io"
            assert content == b"\0"
            await stdin.aclose()
    nursery.cancel_scope.cancel()


async def serve_forward(websocket: WebSocket, jail: PodJail, port: int) -> None:
    """Carry a connection to a port, or say why there is none."""
    process = await jail.connect(port)
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    number = port.to_bytes(2, "little")
    try:
        await websocket.send_binary(b"\x00" + number)
        await websocket.send_binary(b"\x01" + number)
        async with trio.open_nursery() as nursery:
            started = Started(process)
            nursery.start_soon(_take_input, websocket, stdin, started, "portforward", nursery)
            await _copy(websocket, 0, stdout, None, _Reading())
            said = b"".join([data async for data in stderr])
            if await process.wait():
                await websocket.send_binary(b"\x01error forwarding port: " + said)
            nursery.cancel_scope.cancel()
        await websocket.close()
    except* GONE:
        pass
    finally:
        process.kill()
        for stream in (stdin, stdout, stderr):
            await trio.aclose_forcefully(stream)
        await trio.aclose_forcefully(websocket)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await process.wait()


async def hand_on(
    client: trio.abc.Stream, url: str, headers: Mapping[str, str], early: bytes
) -> None:
    """Ask a node's server at `url` for what `client` asked for, and carry all bytes both ways."""
    parts = urlsplit(url)
    node = await trio.open_tcp_stream(parts.hostname or "", parts.port or 80)
    lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name != "host"]
    head = "\r\n".join((*lines, "", "")).encode()

    async def up() -> None:
        await node.send_all(head + early)
        async for data in client:
            await node.send_all(data)
        nursery.cancel_scope.cancel()

    try:
        async with node, trio.open_nursery() as nursery:
            nursery.start_soon(up)
            async for data in node:
                await client.send_all(data)
            nursery.cancel_scope.cancel()
    except* GONE:
        pass
