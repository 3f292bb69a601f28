"""What the parts of the runtime contract have in common: requests, readers, and a bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from relay.endpoint import Channel, Endpoint, Kind, StartRequest
from runtimes.base import Runtime, Sandbox, SandboxSpec

PIECE = 65536
CONTRACT = SandboxSpec("contract")
BOUND_SECONDS = 30  # only so that a broken runtime fails a test instead of hanging it
STUBBORN = ("sh", "-c", "trap '' HUP TERM INT; echo ready; sleep 1000; sleep 1000; sleep 1000")


def exec_request(*command: str) -> StartRequest:
    return StartRequest(Kind.EXEC, command)


def pty_request(*command: str) -> StartRequest:
    return StartRequest(Kind.PTY, command)


async def read_all(endpoint: Endpoint, channel: Channel = Channel.OUTPUT) -> bytes:
    pieces = []
    while piece := await endpoint.receive(channel, PIECE):
        pieces.append(bytes(piece))
    return b"".join(pieces)


async def read_until(endpoint: Endpoint, wanted: bytes, times: int = 1) -> bytes:
    seen = b""
    while seen.count(wanted) < times:
        piece = await endpoint.receive(Channel.OUTPUT, PIECE)
        assert piece, f"the output ended before {wanted!r}: {seen!r}"
        seen += piece
    return seen


async def send_for_ever(endpoint: Endpoint) -> NoReturn:
    while True:
        await endpoint.send(bytes(PIECE))


async def fill_input(endpoint: Endpoint) -> None:
    """Send until the endpoint takes no more."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_for_ever, endpoint)
        # A real pipe fills within the cushion; were it still filling, the caller's own send
        # would be the next to be held up, and nothing depends on which one is.
        await wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()


class ContractBase:
    """Fixtures and short cuts."""

    @pytest.fixture
    def runtime(self) -> Runtime:
        raise NotImplementedError("a subclass says which runtime")

    @asynccontextmanager
    async def open(self, runtime: Runtime, spec: SandboxSpec = CONTRACT) -> AsyncIterator[Sandbox]:
        with trio.fail_after(BOUND_SECONDS):
            async with runtime.open_sandbox(spec) as sandbox:
                yield sandbox
