"""The carrier in memory keeps the promises of `relay.carrier`."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from relay.carrier import CarrierStatistics
from relay.memory import CAPACITY, MemoryCarrier, carrier_pair


async def test_bytes_both_ways() -> None:
    one, two = carrier_pair("name")
    await one.send([b"ab", bytearray(b"cd"), memoryview(b"ef")])
    await two.send([b"back"])
    assert await two.receive() == b"abcdef"
    assert await one.receive() == b"back"
    assert one.description == "name"
    assert one.statistics() == CarrierStatistics(bytes_sent=6, bytes_received=4)
    assert two.statistics() == CarrierStatistics(bytes_sent=4, bytes_received=6)


async def test_it_holds_only_so_much(autojump_clock: object) -> None:
    one, two = carrier_pair()
    with trio.move_on_after(1) as scope:
        while True:
            await one.send([bytes(1000)])
    assert scope.cancelled_caught
    held = len(await two.receive())
    assert CAPACITY <= held < CAPACITY + 1000
    await one.send([b"room again"])


async def test_closing_ends_what_the_other_reads() -> None:
    one, two = carrier_pair()
    await one.send([b"last words"])
    await one.aclose()
    await one.aclose()
    assert await two.receive() == b"last words"
    assert await two.receive() == b""
    with pytest.raises(trio.BrokenResourceError):
        await two.send([b"x"])
    with pytest.raises(trio.ClosedResourceError):
        await one.send([b"x"])
    with pytest.raises(trio.ClosedResourceError):
        await one.receive()


@pytest.mark.parametrize("closes", ["sender", "receiver"])
async def test_closing_wakes_those_who_wait(closes: str, autojump_clock: object) -> None:
    one, two = carrier_pair()
    await one.send([bytes(CAPACITY)])
    outcomes: list[object] = []

    async def send() -> None:
        try:
            await one.send([b"x"])
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            outcomes.append(type(error))

    async def receive(carrier: MemoryCarrier) -> None:
        try:
            outcomes.append(await carrier.receive())
        except trio.ClosedResourceError as error:
            outcomes.append(type(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(receive, one)
        await trio.testing.wait_all_tasks_blocked()
        await (one if closes == "sender" else two).aclose()
    expected = (
        [trio.ClosedResourceError] * 2 if closes == "sender" else [b"", trio.BrokenResourceError]
    )
    assert sorted(map(str, outcomes)) == sorted(map(str, expected))


async def test_a_cancelled_receive_loses_nothing() -> None:
    one, two = carrier_pair()
    await one.send([b"x"])
    with trio.CancelScope() as scope:
        scope.cancel()
        await two.receive()
    assert await two.receive() == b"x"
