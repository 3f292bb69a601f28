"""The windows of one trunk grow where the path needs it, together no further than they may."""

from __future__ import annotations

import trio

from relay.carrier import Carrier
from relay.client import Trunk, open_trunk
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.endpoint import Channel, Kind
from relay.inbox import Output
from relay.limits import StreamLimits
from relay.protocol.messages import Start
from relay.protocol.windows import INITIAL_WINDOW, MAX_GROWTH, MAX_WINDOW
from tests.testing.endpoints import FloodSource, pty_endpoint
from tests.testing.faulty import Cut, Fault, FaultyCarrier, faulty_pair
from tests.testing.relay_world import open_world

STREAMS = 7
"""More than can all have the largest window."""
FAT_AND_LONG = Fault(latency=0.1, capacity=64 * 1024 * 1024)


async def drink(attachment: ClientAttachment) -> None:
    while True:
        assert isinstance(await attachment.receive(), Output)


def grown(trunk: Trunk, attachments: list[ClientAttachment]) -> int:
    """Return what the windows have grown by, and check that this is what is counted."""
    windows = [a.statistics().windows[Channel.OUTPUT].window for a in attachments]
    assert all(INITIAL_WINDOW <= window <= MAX_WINDOW for window in windows)
    growth = trunk.statistics().growth
    assert growth.taken == sum(windows) - INITIAL_WINDOW * len(attachments)
    assert growth.peak <= growth.total == MAX_GROWTH
    return growth.taken


async def test_a_trunk_has_a_bound_for_all_its_windows(autojump_clock: object) -> None:
    limits = StreamLimits(ring_bytes=2 * MAX_WINDOW)
    carriers: list[FaultyCarrier] = []
    assert STREAMS * (MAX_WINDOW - INITIAL_WINDOW) > MAX_GROWTH
    async with open_world(lambda _: pty_endpoint(FloodSource()), limits) as world:

        async def dial() -> Carrier:
            ours, theirs = faulty_pair(FAT_AND_LONG, FAT_AND_LONG)
            carriers.append(ours)
            world.serve(theirs)
            return ours

        async with open_trunk(dial, chance=lambda: 0.0) as trunk:
            attachments = [
                await trunk.attach(
                    AttachOptions(f"attachment-number-{n}", Kind.PTY, f"t{n}", start=Start())
                )
                for n in range(STREAMS)
            ]
            await trio.sleep(1)  # the round trip is known
            async with trio.open_nursery() as readers:
                for attachment in attachments:
                    readers.start_soon(drink, attachment)
                await trio.sleep(3)
                assert grown(trunk, attachments) == MAX_GROWTH
                carriers[-1].network.cut(Cut.RESET)
                await trio.sleep(3)
                assert len(carriers) == 2
                assert grown(trunk, attachments) == MAX_GROWTH
                readers.cancel_scope.cancel()
            for attachment in attachments:
                trunk.detach(attachment)
            assert trunk.statistics().growth.taken == 0
