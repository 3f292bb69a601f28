"""A trunk and its owner over networks that are bad in one way at a time."""

from __future__ import annotations

import hashlib
import random

import pytest
import trio

from relay.carrier import Carrier
from relay.client import open_trunk
from relay.client_attachment import AttachOptions
from relay.endpoint import Endpoint, ExitStatus, Kind, StartRequest
from relay.inbox import Output
from relay.link import DEAD_AFTER, LinkEnd
from relay.protocol.messages import Start
from relay.protocol.reasons import CloseReason
from tests.testing.endpoints import EchoSource, Sink, exec_endpoint
from tests.testing.faulty import FINE, Cut, Fault, faulty_pair
from tests.testing.relay_world import SMALL, open_world


def echo(request: StartRequest) -> Endpoint:
    sink = Sink()
    return exec_endpoint(EchoSource(sink), b"", sink)


async def echo_through(
    faults: list[tuple[Fault, Fault]], size: int = 300_000
) -> tuple[int, float, list[LinkEnd]]:
    """Send bytes to an echo and back; return the links it took, the seconds, and their ends."""
    data = random.Random(3).randbytes(size)
    began = trio.current_time()
    rest = list(faults)
    async with open_world(echo, SMALL) as world:

        async def dial() -> Carrier:
            await trio.lowlevel.checkpoint()
            there, back = rest.pop(0) if rest else (FINE, FINE)
            ours, theirs = faulty_pair(there, back, seed=len(rest))
            world.serve(theirs)
            return ours

        async with open_trunk(dial, chance=lambda: 0.0) as trunk:
            attachment = await trunk.attach(
                AttachOptions("attachment-aaaaaa", Kind.EXEC, "t", start=Start())
            )

            async def send() -> None:
                await attachment.send(data)
                attachment.send_eof()

            digest, came = hashlib.sha256(), 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                while (item := await attachment.receive()) is not None:
                    assert isinstance(item, Output)
                    assert item.offset == came
                    digest.update(item.data)
                    came += len(item.data)
            assert await attachment.wait() == ExitStatus(code=0)
            links = trunk.statistics().links
            seconds = trio.current_time() - began
        await trio.sleep(100)
        assert world.servers == []
        assert len(world.starts) == 1
        for ring in world.stream().rings.values():
            assert ring.allocated <= SMALL.ring_bytes
        assert digest.digest() == hashlib.sha256(data).digest()
        return links, seconds, world.ends


async def test_a_good_network(autojump_clock: object) -> None:
    links, seconds, _ = await echo_through([])
    assert (links, seconds) == (1, 0.0)


@pytest.mark.parametrize("split", [1, 2, 11, 12, 13, 19, 20, 21, 1000])
async def test_splitting(split: int, autojump_clock: object) -> None:
    fault = Fault(split=split)
    links, _, _ = await echo_through([(fault, fault)], size=5000)
    assert links == 1


@pytest.mark.parametrize("capacity", [1, 1000])
async def test_a_narrow_network(capacity: int, autojump_clock: object) -> None:
    fault = Fault(capacity=capacity)
    links, _, _ = await echo_through([(fault, fault)])
    assert links == 1


async def test_latency(autojump_clock: object) -> None:
    fault = Fault(latency=0.25)
    links, seconds, _ = await echo_through([(fault, fault)])
    assert links == 1
    assert 1 < seconds < 20


@pytest.mark.parametrize("cut", list(Cut))
@pytest.mark.parametrize("direction", ["there", "back"])
@pytest.mark.parametrize("at", [1, 35, 150, 1000, 70_000, 250_000])
async def test_a_cut(cut: Cut, direction: str, at: int, autojump_clock: object) -> None:
    fault = Fault(at=at, cut=cut)
    faults = (fault, FINE) if direction == "there" else (FINE, fault)
    links, seconds, ends = await echo_through([faults])
    assert links == 2
    if cut is Cut.STALL:
        assert DEAD_AFTER <= seconds < DEAD_AFTER + 2
    else:
        assert seconds < 3
    assert {end.reason for end in ends} <= {CloseReason.CONNECTION_LOST, CloseReason.DETACHED}


async def test_a_network_that_forwards_little_at_a_time(autojump_clock: object) -> None:
    """Each link carries 5 kB at the most; that is still progress."""
    faults = [(Fault(at=5000, cut=Cut.END), Fault(at=5000, cut=Cut.END))] * 400
    links, _, _ = await echo_through(faults)
    assert 60 < links < 400


async def test_a_network_that_never_gets_far_enough_to_attach(autojump_clock: object) -> None:
    faults = [(Fault(at=at), FINE) for at in range(0, 160, 8)]
    links, _, _ = await echo_through(faults)
    assert links == len(faults) + 1
