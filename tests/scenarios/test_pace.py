"""What one stalled reader costs the others: their pace under a mock clock, in bytes per second."""

from __future__ import annotations

import pytest
import trio

from relay.carrier import Carrier
from relay.client import open_trunk
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.endpoint import Channel, Kind, StartRequest
from relay.grant import Mode
from relay.inbox import Missed
from relay.limits import StreamLimits
from relay.protocol.messages import Attach, Hello, Start, encode
from relay.protocol.policies import Policy
from tests.testing.endpoints import FloodSource, ScriptedEndpoint, pty_endpoint
from tests.testing.faulty import Fault, faulty_pair
from tests.testing.relay_world import RelayWorld, open_world

VIEWERS = 9
SECONDS = 1.0
LIMITS = StreamLimits(ring_bytes=1024 * 1024)
PATH = Fault(latency=0.005)
"""With the first window, 256 KiB in 10 ms; so the window paces who reads, not the machine."""


class PacedSource(FloodSource):
    """Writes 16 KiB every 5 ms: less than the path can carry."""

    async def read(self, max_bytes: int) -> bytes:
        await trio.sleep(0.005)
        return await super().read(16 * 1024)


async def count(attachment: ClientAttachment, counts: dict[str, int]) -> None:
    """Count the bytes that come; what is missed is not counted."""
    while (item := await attachment.receive()) is not None:
        if not isinstance(item, Missed):
            counts[attachment.options.attachment] += len(item.data)


async def measure(tenth: str) -> list[int]:
    """Return how many bytes each of nine viewers gets while a tenth does what it does."""
    counts: dict[str, int] = {}
    async with open_world(lambda _: pty_endpoint(PacedSource()), LIMITS) as world:

        async def dial() -> Carrier:
            ours, theirs = faulty_pair(PATH, PATH)
            world.serve(theirs)
            return ours

        async def view(number: int) -> None:
            async with open_trunk(dial) as trunk:
                name = f"viewing-attachment-{number}"
                counts[name] = 0
                await count(
                    await trunk.attach(AttachOptions(name, Kind.PTY, "t", Mode.VIEW)), counts
                )

        async with open_trunk(dial) as trunk, trio.open_nursery() as nursery:
            options = AttachOptions("control-attachment", Kind.PTY, "t", start=Start())
            controlled = await trunk.attach(options)
            nursery.start_soon(count, controlled, {"control-attachment": 0})
            for number in range(VIEWERS):
                nursery.start_soon(view, number)
            nursery.start_soon(stall, tenth, world)
            await trio.sleep(0.5)
            before = dict(counts)
            await trio.sleep(SECONDS)
            after = dict(counts)
            nursery.cancel_scope.cancel()
    return [after[name] - before[name] for name in counts]


async def stall(how: str, world: RelayWorld) -> None:
    """Be the tenth viewer."""
    policy = Policy.PACE if how == "paces" else Policy.SKIP
    window = 2**40 if how == "reads no carrier" else 64 * 1024
    request = Attach(
        attachment="stalled-attachment",
        kind=Kind.PTY,
        tag="t",
        mode=Mode.VIEW,
        policy=policy,
        window={Channel.OUTPUT: window},
    )
    if how == "nobody":
        return
    ours, theirs = faulty_pair(PATH, PATH)
    world.serve(theirs)
    await ours.send([encode(Hello(version=1)), encode(request, 1)])
    while how != "reads no carrier":
        await ours.receive()  # but grants nothing
    await trio.sleep_forever()


@pytest.mark.parametrize("tenth", ["grants nothing", "reads no carrier"])
async def test_nine_viewers_keep_their_pace_beside_a_stalled_tenth(
    tenth: str, autojump_clock: object
) -> None:
    alone = await measure("nobody")
    beside = await measure(tenth)
    assert len(alone) == len(beside) == VIEWERS
    assert min(alone) > 3_000_000 * SECONDS
    for before, after in zip(alone, beside, strict=True):
        assert after >= 0.95 * before


async def test_a_tenth_that_paces_does_hold_them_back(autojump_clock: object) -> None:
    """So the test above would notice."""
    assert max(await measure("paces")) == 0


@pytest.mark.parametrize("stalls", [False, True])
async def test_a_desktop_that_is_not_read_does_not_slow_a_terminal(
    stalls: bool, autojump_clock: object
) -> None:
    """Both on one link, the desktop a flood: the terminal has its first window each round trip."""
    floods = {Kind.VNC: FloodSource(), Kind.PTY: FloodSource()}

    def start(request: StartRequest) -> ScriptedEndpoint:
        return pty_endpoint(floods[request.kind])

    counts = {"terminal-attachment": 0, "desktop-attachment": 0}
    async with open_world(start, LIMITS) as world:

        async def dial() -> Carrier:
            ours, theirs = faulty_pair(PATH, PATH)
            world.serve(theirs)
            return ours

        async with open_trunk(dial) as trunk, trio.open_nursery() as nursery:
            desktop = await trunk.attach(
                AttachOptions("desktop-attachment", Kind.VNC, "d", start=Start(port=5900))
            )
            if not stalls:
                nursery.start_soon(count, desktop, counts)
            await trio.sleep(0.5)  # what there is credit for has come
            terminal = await trunk.attach(
                AttachOptions("terminal-attachment", Kind.PTY, "t", start=Start())
            )
            nursery.start_soon(count, terminal, counts)
            await trio.sleep(0.3)
            nursery.cancel_scope.cancel()
    rounds = 0.3 / (2 * PATH.latency)
    if stalls:
        assert counts["desktop-attachment"] == 0
        assert floods[Kind.VNC].taken <= 2 * LIMITS.ring_bytes
        assert counts["terminal-attachment"] >= 0.95 * rounds * 256 * 1024
    else:
        assert counts["desktop-attachment"] > 0
        # They share the carrier's 256 KiB of room, turn by turn.
        assert counts["terminal-attachment"] >= 0.4 * rounds * 256 * 1024
