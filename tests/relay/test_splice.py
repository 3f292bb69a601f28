from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing

from relay.splice import splice

Stapled = trio.StapledStream[Any, Any]


class Spliced:
    """Two ends, joined in the background."""

    def __init__(self) -> None:
        self.left, self._inner_left = trio.testing.memory_stream_pair()
        self.right, self._inner_right = trio.testing.memory_stream_pair()
        self.in_order: bool | None = None

    async def run(self) -> None:
        self.in_order = await splice(self._inner_left, self._inner_right)


async def read_all(stream: Stapled) -> bytes:
    return b"".join([piece async for piece in stream])


async def test_bytes_and_ends_go_both_ways() -> None:
    joined = Spliced()
    data = random.Random(1).randbytes(1_000_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(joined.run)
        await joined.left.send_all(data)
        await joined.left.send_eof()
        assert await read_all(joined.right) == data
        assert joined.in_order is None  # the other direction goes on
        await joined.right.send_all(data[::-1])
        await joined.right.send_eof()
        assert await read_all(joined.left) == data[::-1]
    assert joined.in_order is True


async def test_who_takes_no_more_may_still_speak() -> None:
    joined = Spliced()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(joined.run)
        joined.right.receive_stream.close()
        await joined.left.send_all(b"too much")
        await trio.testing.wait_all_tasks_blocked()
        await joined.right.send_all(b"that is too much")
        await joined.right.send_eof()
        assert await read_all(joined.left) == b"that is too much"
    assert joined.in_order is False


async def test_what_breaks_is_over_at_once() -> None:
    joined = Spliced()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(joined.run)
        await joined.left.send_all(b"half")
        assert await joined.right.receive_some() == b"half"
        broken = joined._inner_left.receive_stream

        async def receive_some(max_bytes: int | None = None) -> bytes:
            raise trio.BrokenResourceError("reset")

        broken.receive_some = receive_some  # type: ignore[assignment, method-assign]  # breaks on demand
        await joined.left.send_all(b"wakes it")
    assert joined.in_order is False


async def test_what_was_closed_here_is_told() -> None:
    joined = Spliced()
    joined._inner_left.receive_stream.close()
    with pytest.raises(trio.ClosedResourceError):
        await joined.run()
