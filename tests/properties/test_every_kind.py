"""Streams of every kind on one bad link, with readers of every sort: each gets what it was promised.

Every run is a session with a stream of each kind.  All are controlled over one link and watched over
another, both cut anywhere, again and again, by readers that are fast, slow, dead, or do not even
read their carrier.  An independent reader on each link checks every frame against the credit.
"""

from __future__ import annotations

import hashlib
import random

import pytest
import trio
import trio.testing

from relay.carrier import Carrier
from relay.client import Dial, Trunk, open_trunk
from relay.client_attachment import INPUT_BUFFER, AttachOptions, ClientAttachment
from relay.endpoint import OUTPUT_CHANNELS, Channel, Kind, StartRequest
from relay.errors import AttachmentClosed, AttachRefused
from relay.grant import Mode
from relay.host import StreamHost
from relay.inbox import Missed, Output
from relay.limits import StreamLimits
from relay.protocol.connection import MAX_BACKLOG
from relay.protocol.messages import Attach, Hello, encode
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason
from relay.protocol.windows import MAX_GROWTH, RENEW_BYTES
from relay.service_nursery import open_service_nursery
from tests.testing.endpoints import ScriptedEndpoint
from tests.testing.faulty import FINE, faulty_pair
from tests.testing.random_process import (
    Process,
    make_process,
    number_of,
    random_faults,
    start_of,
)
from tests.testing.relay_world import RelayWorld, open_world
from tests.testing.watched_carrier import Ledger, WatchedCarrier

BATCHES = 4
RUNS = 12
CUTS_WANTED = 1000
CHANNELS = sum(len(channels) for channels in OUTPUT_CHANNELS.values())
LIMITS = StreamLimits(
    ring_bytes=192 * 1024,
    read_bytes=16 * 1024,
    input_window=16 * 1024,
    linger=1e6,  # a link that stalls costs 30 s, and there may be many in a row
    connection_linger=1e6,
    budget_bytes=CHANNELS * RENEW_BYTES + 128 * 1024,  # so that not every ring can grow
)
WINDOW = 24 * 1024
SLOW_WINDOW = 4 * 1024
"""Bytes that those have who do not keep up."""
READERS = ("pace", "skip", "drop", "dead skip", "dead drop", "rude")
"""Sorts of viewers: by policy; the dead never receive, the rude do not read their carrier."""


class Run:
    """One session under two bad networks."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        kinds = list(Kind)
        self.chance.shuffle(kinds)
        self.all_started = trio.Event()
        self.processes = {
            number: make_process(kind, self.chance, self.all_started, much=number == 0)
            for number, kind in enumerate(kinds)
        }
        self.readers = {
            number: self.chance.sample(READERS, k=self.chance.randint(0, 4))
            for number in self.processes
        }
        self.readers[0] = list(READERS)
        self.ledger = Ledger()
        self.host: StreamHost
        self.attachments: list[ClientAttachment] = []
        self.endings: dict[str, list[str]] = {}
        self.missed = 0
        self.cuts = 0
        self.fullest = 0

    async def main(self) -> None:
        tasks = trio.lowlevel.current_statistics().tasks_living
        with trio.fail_after(90_000):
            async with open_world(self.start, LIMITS) as world:
                self.host = world.host
                async with (
                    open_trunk(self.dialler(world, 60)) as control,
                    open_trunk(self.dialler(world, 60)) as views,
                    open_service_nursery() as background,
                ):
                    background.start_soon(self.nudge, control, views)
                    background.start_soon(self.sample, world, control, views)
                    await self.use(world, control, views)
                    self.cuts = control.statistics().links + views.statistics().links - 2
                await trio.sleep(100)  # the last cut may have been noticed by one side only
                assert not world.servers
                assert {end.reason for end in world.ends}.isdisjoint(
                    {CloseReason.PROTOCOL_ERROR, CloseReason.INTERNAL_ERROR}
                )
                world.nursery.cancel_scope.cancel()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        for process in self.processes.values():
            assert process.starts == 1
            assert bytes(process.endpoint.sink.data) == process.input
            assert process.endpoint.closed

    def start(self, request: StartRequest) -> ScriptedEndpoint:
        process = self.processes[number_of(request)]
        assert process.kind is request.kind
        process.starts += 1
        process.started.set()
        if all(other.starts for other in self.processes.values()):
            self.all_started.set()
        return process.endpoint

    def dialler(self, world: RelayWorld, cuts: int) -> Dial:
        faults = random_faults(self.chance, cuts)

        async def dial() -> Carrier:
            await trio.lowlevel.checkpoint()
            ours, theirs = faulty_pair(*next(faults, (FINE, FINE)), self.seed)
            world.serve(theirs)
            return WatchedCarrier(ours, self.ledger)

        return dial

    async def nudge(self, *trunks: Trunk) -> None:
        """Do not let the back-off grow: what is under way at a cut shall be so still afterwards."""
        while True:
            await trio.sleep(self.chance.choice((0.01, 0.1, 1.0)))
            for trunk in trunks:
                trunk.retry_now()

    async def use(self, world: RelayWorld, control: Trunk, views: Trunk) -> None:
        async with open_service_nursery() as for_ever:
            async with trio.open_nursery() as dead:
                async with trio.open_nursery() as nursery:
                    for number, readers in self.readers.items():
                        nursery.start_soon(self.control, control, number)
                        for place, sort in enumerate(readers):
                            name = f"{sort.replace(' ', '-')}-attachment-{number}-{place}"
                            if sort == "rude":
                                for_ever.start_soon(self.be_rude, world, number, name)
                            elif sort.startswith("dead"):
                                dead.start_soon(self.stare, views, number, sort, name)
                            else:
                                nursery.start_soon(self.view, views, number, sort, name)
                world.host.end(CloseReason.SESSION_ENDED)  # nobody else waits for anything
        for name, endings in self.endings.items():
            assert len(endings) == 1, (name, endings)
        assert len(self.endings) == len(self.attachments)

    # ------------------------------------------------------------------ clients

    async def control(self, trunk: Trunk, number: int) -> None:
        process = self.processes[number]
        name = f"control-attachment-{number}"
        attachment = await trunk.attach(
            AttachOptions(
                name,
                process.kind,
                f"s{number}",
                start=start_of(process.kind, number),
                window=WINDOW,
            )
        )
        self.attachments.append(attachment)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.write, attachment, process)
            for channel in process.output:
                nursery.start_soon(self.read_all, attachment, channel, process)
            assert await attachment.wait() == process.status
        trunk.detach(attachment)
        self.endings.setdefault(name, []).append(await self.ending(attachment))

    async def write(self, attachment: ClientAttachment, process: Process) -> None:
        chance = random.Random(self.seed)
        rest = process.input
        while rest:
            size = chance.choice((1, 5, 500, 20_000))
            await attachment.send(rest[:size])
            rest = rest[size:]
            if chance.random() < 0.1:
                await trio.sleep(chance.random() * 0.2)
        attachment.send_eof()

    async def read_all(
        self, attachment: ClientAttachment, channel: Channel, process: Process
    ) -> None:
        """Read at one's own pace and miss nothing: for this the stream waits."""
        chance = random.Random(self.seed)
        pause = chance.choice((0.0, 0.0, 0.3))
        assert attachment.answer is not None
        begin = offset = attachment.answer.start[channel]
        digest = hashlib.sha256()
        while (item := await attachment.receive(channel)) is not None:
            assert isinstance(item, Output), f"bytes are gone: {item}"
            assert item.offset == offset
            digest.update(item.data)
            offset += len(item.data)
            if pause and chance.random() < 0.2:
                await trio.sleep(chance.random() * pause)
        assert begin == 0 or attachment.options.mode is Mode.VIEW
        assert digest.digest() == hashlib.sha256(process.output[channel][begin:]).digest()

    async def attach_view(
        self, trunk: Trunk, number: int, sort: str, name: str
    ) -> ClientAttachment:
        process = self.processes[number]
        await process.started.wait()
        await trio.sleep(random.Random(name).random())
        policy = Policy(sort.split()[-1])
        window = WINDOW if policy is Policy.PACE else SLOW_WINDOW
        options = AttachOptions(
            name, process.kind, f"s{number}", mode=Mode.VIEW, policy=policy, window=window
        )
        attachment = await trunk.attach(options)
        self.attachments.append(attachment)
        return attachment

    async def view(self, trunk: Trunk, number: int, sort: str, name: str) -> None:
        process = self.processes[number]
        try:
            attachment = await self.attach_view(trunk, number, sort, name)
        except (AttachRefused, AttachmentClosed) as error:
            # The stream has ended before this came, once all others have left.
            self.expect(error, "not_found", *(["too_far_behind"] if sort == "drop" else []))
            return
        async with trio.open_nursery() as nursery:
            for channel in process.output:
                read = self.read_all if sort == "pace" else self.read_some
                nursery.start_soon(read, attachment, channel, process)
        if sort != "drop":
            assert await attachment.wait() == process.status
        trunk.detach(attachment)
        self.endings.setdefault(name, []).append(await self.ending(attachment))

    async def read_some(
        self, attachment: ClientAttachment, channel: Channel, process: Process
    ) -> None:
        """Read slowly; account for every byte that does not come."""
        chance = random.Random(self.seed)
        expected = process.output[channel]
        answer = attachment.answer
        assert answer is not None
        begin = offset = answer.start[channel]
        got = missed = 0
        try:
            while (item := await attachment.receive(channel)) is not None:
                if isinstance(item, Missed):
                    assert attachment.options.policy is Policy.SKIP
                    assert item.start == offset
                    for stream in self.host.statistics():
                        if stream.tag == attachment.options.tag:
                            assert item.to <= stream.rings[channel].start, "it was still there"
                    offset = item.to
                    missed += item.to - item.start
                    continue
                assert item.offset == offset
                assert item.data == expected[offset : offset + len(item.data)]
                offset += len(item.data)
                got += len(item.data)
                await trio.sleep(4 * chance.random())
            assert begin + got + missed == offset == len(expected)
        except (AttachRefused, AttachmentClosed) as error:
            # Gone: that it was too far behind got lost in a cut, and the stream has gone since.
            dropped = attachment.options.policy is Policy.DROP
            self.expect(error, *(["too_far_behind", "gone"] if dropped else []))
        self.missed += missed

    async def stare(self, trunk: Trunk, number: int, sort: str, name: str) -> None:
        """Attach and never receive, until the session ends."""
        try:
            attachment = await self.attach_view(trunk, number, sort, name)
        except (AttachRefused, AttachmentClosed) as error:
            self.expect(error, "too_far_behind", "session_ended", "ending", "not_found")
            return
        while not attachment.is_over:
            await trio.sleep(1)
        ending = await self.ending(attachment)
        allowed = {"session_ended", "ending", "gone", "exited"}
        assert ending in allowed | ({"too_far_behind"} if sort == "dead drop" else set()), ending
        self.endings.setdefault(name, []).append(ending)

    @staticmethod
    def reason_of(error: Exception | None) -> str:
        assert isinstance(error, AttachmentClosed | AttachRefused)
        return str(error.reason if isinstance(error, AttachmentClosed) else error.code)

    def expect(self, error: Exception, *reasons: str) -> None:
        assert self.reason_of(error) in reasons

    async def ending(self, attachment: ClientAttachment) -> str:
        """Return why it is over, which does not change any more."""
        reason = self.reason_of(attachment._error)
        await trio.sleep(1)
        assert reason == self.reason_of(attachment._error)
        return reason

    async def be_rude(self, world: RelayWorld, number: int, name: str) -> None:
        """Ask for everything, grant everything, and do not read the carrier."""
        process = self.processes[number]
        await process.started.wait()
        ours, theirs = faulty_pair(seed=self.seed)
        world.serve(theirs)
        attach = Attach(
            attachment=name,
            kind=process.kind,
            tag=f"s{number}",
            mode=Mode.VIEW,
            window=dict.fromkeys(process.output, 2**40),
        )
        try:
            await ours.send([encode(Hello(version=1)), encode(attach, 1)])
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await ours.aclose()

    # ------------------------------------------------------------------ memory

    async def sample(self, world: RelayWorld, *trunks: Trunk) -> None:
        while True:
            self.check_memory(world, *trunks)
            await trio.sleep(self.chance.choice((0.01, 0.3, 5.0)))

    def check_memory(self, world: RelayWorld, *trunks: Trunk) -> None:
        """Hold what statistics tell against docs/topics/memory.md, line by line and in sum."""
        held = documented = 0
        reserved = 0
        for stream in world.host.statistics():
            for ring in stream.rings.values():
                assert ring.end - ring.start <= ring.allocated <= ring.capacity
                assert ring.capacity == LIMITS.ring_bytes
                reserved += max(ring.allocated, RENEW_BYTES if ring.allocated > 1 else 0)
            held += sum(ring.allocated for ring in stream.rings.values()) + stream.input_waiting
            assert stream.input_waiting <= LIMITS.input_window
            documented += LIMITS.input_window
            assert len(stream.attachments) <= LIMITS.max_attachments
        assert reserved <= LIMITS.budget_bytes
        documented += LIMITS.budget_bytes
        for server in world.servers:
            backlog = server.link.connection.statistics().backlog
            assert backlog <= MAX_BACKLOG
            held += backlog
            documented += MAX_BACKLOG
        for trunk in trunks:
            assert trunk.statistics().growth.peak <= MAX_GROWTH
            documented += MAX_GROWTH
        for attachment in self.attachments:
            client = attachment.statistics()
            assert client.input_unacknowledged <= INPUT_BUFFER
            held += client.input_unacknowledged
            documented += INPUT_BUFFER
            for channel, waiting in client.waiting.items():
                window = client.windows[channel]
                assert waiting <= window.window
                held += waiting
                documented += attachment.options.window
        assert held <= documented
        self.fullest = max(self.fullest, held)


def run(seed: int) -> Run:
    run = Run(seed)
    trio.run(run.main, clock=trio.testing.MockClock(autojump_threshold=0))
    return run


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_thousand_cuts_through_streams_of_every_kind(batch: int) -> None:
    runs = [run(seed) for seed in range(batch, RUNS, BATCHES)]
    assert sum(run.cuts for run in runs) >= CUTS_WANTED / BATCHES
    # What the readers are for did happen.
    assert sum(run.missed for run in runs) > 0
    assert sum(run.ledger.gaps for run in runs) > 0
    assert max(run.fullest for run in runs) > LIMITS.ring_bytes
