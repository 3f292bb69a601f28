"""Doing one operation on the files of a sandbox, as a stream would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from relay.endpoint import (
    Channel,
    Endpoint,
    ExitStatus,
    FileOperation,
    FileRequest,
    Kind,
    StartRequest,
)
from runtimes.base import Sandbox

PIECE = 64 * 1024


@dataclass(frozen=True)
class Done:
    """How an operation ended: its status, its content, and what was told, in order."""

    status: ExitStatus
    content: bytes
    told: list[dict[str, Any]]

    @property
    def last(self) -> dict[str, Any]:
        return self.told[-1]

    @property
    def error(self) -> str | None:
        error = self.last.get("error")
        assert (error is None) == (self.status == ExitStatus(code=0))
        return error

    @property
    def lines(self) -> dict[str, dict[str, Any]]:
        """The entries of a listing, by path."""
        return {e["path"]: e for e in map(json.loads, self.content.splitlines())}


def file_request(operation: str, path: str, **options: Any) -> StartRequest:
    wish = FileRequest(operation=FileOperation(operation), path=path, **options)
    return StartRequest(Kind.FILE, file=wish)


async def finish(endpoint: Endpoint, data: bytes | None = None) -> Done:
    """Send `data` (None: not even an end), read everything, wait for the end and close."""
    outputs = {Channel.OUTPUT: bytearray(), Channel.ERROR: bytearray()}

    async def read(channel: Channel) -> None:
        while piece := await endpoint.receive(channel, PIECE):
            outputs[channel] += piece

    async def feed(data: bytes) -> None:
        try:
            for start in range(0, len(data), PIECE):
                await endpoint.send(data[start : start + PIECE])
        except trio.BrokenResourceError:
            return
        await endpoint.send_eof()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for channel in outputs:
                nursery.start_soon(read, channel)
            if data is not None:
                nursery.start_soon(partial(feed, data))
        status = await endpoint.wait()
        await endpoint.aclose()
    told = [json.loads(line) for line in outputs[Channel.ERROR].splitlines()]
    return Done(status, bytes(outputs[Channel.OUTPUT]), told)


async def do(
    sandbox: Sandbox, operation: str, path: str, data: bytes | None = None, **options: Any
) -> Done:
    """Do one operation from beginning to end."""
    return await finish(await sandbox.start(file_request(operation, path, **options)), data)
