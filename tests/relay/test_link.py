"""A link on a clock: who is alive, who reads, who says why it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from relay.carrier import Buffer, Carrier, CarrierStatistics
from relay.endpoint import Channel, Kind
from relay.grant import Mode
from relay.link import (
    DEAD_AFTER,
    FAREWELL,
    LEAVE_AFTER,
    PING_AFTER,
    STALLED_AFTER,
    Link,
    LinkEnd,
)
from relay.memory import MemoryCarrier, carrier_pair
from relay.protocol.connection import Connection, Event, MessageReceived
from relay.protocol.errors import RemoteProtocolError
from relay.protocol.messages import (
    Attach,
    Attached,
    Detach,
    GoAway,
    Hello,
    Ping,
    Pong,
    encode,
)
from relay.protocol.reasons import CloseReason
from relay.protocol.ring import ReplayRing
from tests.testing.faulty import FINE, Cut, Fault, FaultyCarrier, faulty_pair
from tests.testing.raw_peer import RawPeer, open_raw_peer

ATTACH = Attach(attachment="a" * 16, kind=Kind.EXEC, tag="t")
ANSWER = Attached(stream="s", tag="t", kind=Kind.EXEC, mode=Mode.CONTROL, start={})


class Running:
    """A link that runs in the background."""

    def __init__(self, carrier: Carrier, *, dialer: bool = False) -> None:
        self.link = Link(carrier, Connection(dialer=dialer, software="test"))
        self.events: list[Event] = []
        self.end: LinkEnd | None = None
        self.handle: Callable[[Event], None] = self.events.append

    async def run(self) -> None:
        self.end = await self.link.run(lambda event: self.handle(event))


@asynccontextmanager
async def linked_to_raw() -> AsyncIterator[tuple[Running, RawPeer]]:
    ours, theirs = carrier_pair()
    running = Running(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        async with open_raw_peer(theirs) as peer:
            yield running, peer
        nursery.cancel_scope.cancel()


class Silent(Carrier):
    """Nothing ever comes, and nothing is ever taken unless told."""

    def __init__(self, *, takes: bool) -> None:
        self.takes = takes
        self.closed_with: list[CloseReason | None] = []

    @property
    def description(self) -> str:
        return "silence"

    async def receive(self) -> Buffer:
        await trio.sleep_forever()
        raise AssertionError

    async def send(self, buffers: Sequence[Buffer]) -> None:
        await trio.lowlevel.checkpoint()
        if not self.takes:
            await trio.sleep_forever()

    async def aclose(self, reason: CloseReason | None = None) -> None:
        self.closed_with.append(reason)
        await trio.lowlevel.checkpoint()

    def statistics(self) -> CarrierStatistics:
        return CarrierStatistics(0, 0)


# -------------------------------------------------------------------------- liveness


async def test_a_silent_peer_is_asked_and_then_given_up(autojump_clock: object) -> None:
    carrier = Silent(takes=True)
    running = Running(carrier)
    await running.run()
    assert trio.current_time() == pytest.approx(DEAD_AFTER, abs=1.1)
    assert running.end is not None
    assert running.end.reason is CloseReason.CONNECTION_LOST
    assert "30 s" in running.end.message
    assert carrier.closed_with == [CloseReason.CONNECTION_LOST]


async def test_a_peer_that_answers_lives(autojump_clock: object) -> None:
    async with linked_to_raw() as (running, peer):
        await trio.sleep(1000)
        assert running.end is None
        pings = [m for _, _, m in peer.messages if isinstance(m, Ping)]
        assert 1000 / PING_AFTER * 0.8 < len(pings) < 1000 / PING_AFTER * 1.2


async def test_a_peer_that_speaks_is_not_asked(autojump_clock: object) -> None:
    async with linked_to_raw() as (_, peer):
        await peer.expect(Ping)  # the one that measures the round trip
        for _ in range(100):
            await peer.send(encode(Pong(id=99)))
            await trio.sleep(PING_AFTER - 1)
        assert not peer.has(Ping)


async def test_the_round_trip_is_known_from_the_beginning(autojump_clock: object) -> None:
    slow = Fault(latency=0.1)
    one, two = faulty_pair(slow, slow)
    left, right = Running(one, dialer=True), Running(two)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.run)
        nursery.start_soon(right.run)
        await trio.sleep(1)
        assert left.link.connection.round_trip == pytest.approx(0.2)
        assert right.link.connection.round_trip == pytest.approx(0.2)
        nursery.cancel_scope.cancel()


async def test_a_peer_that_does_not_read(autojump_clock: object) -> None:
    """It is alive (it sends), but takes nothing."""
    ours, theirs = carrier_pair()
    running = Running(ours)

    async def chatter(carrier: MemoryCarrier) -> None:
        await carrier.send([encode(Hello(version=1))])
        await carrier.send([encode(ATTACH, 1)])
        while True:
            await carrier.send([encode(Pong(id=1))])
            await trio.sleep(5)

    def accept(event: Event) -> None:
        if isinstance(event, MessageReceived) and isinstance(event.message, Attach):
            ring = ReplayRing(10_000_000)
            ring.append(bytes(10_000_000))
            running.link.connection.accept(event.stream, ANSWER)
            running.link.connection.open_sender(event.stream, Channel.OUTPUT, ring, 0, 10**9)

    running.handle = accept
    async with trio.open_nursery() as nursery:
        nursery.start_soon(chatter, theirs)
        await running.run()
        nursery.cancel_scope.cancel()
    assert running.end is not None
    assert running.end.reason is CloseReason.SLOW_READER
    assert STALLED_AFTER <= trio.current_time() <= STALLED_AFTER + PING_AFTER + 2 * FAREWELL


# -------------------------------------------------------------------------- ends


async def test_closing_says_why(autojump_clock: object) -> None:
    async with linked_to_raw() as (running, peer):
        await trio.testing.wait_all_tasks_blocked()
        running.link.close(CloseReason.DRAINING, "back soon", 2.5)
        running.link.close(CloseReason.INTERNAL_ERROR)  # the first reason counts
        goodbye = await peer.wait_ended()
        assert goodbye == GoAway(reason=CloseReason.DRAINING, message="back soon", retry_after=2.5)
        await trio.testing.wait_all_tasks_blocked()
        assert running.end == LinkEnd(CloseReason.DRAINING, "back soon", False, 2.5)


async def test_closing_before_it_runs() -> None:
    ours, theirs = carrier_pair()
    running = Running(ours)
    running.link.close(CloseReason.REVOKED)
    async with open_raw_peer(theirs) as peer:
        await running.run()
        goodbye = await peer.wait_ended()
        assert goodbye is not None
        assert goodbye.reason is CloseReason.REVOKED


async def test_closing_lets_what_is_under_way_go_first(autojump_clock: object) -> None:
    """A unit that is being sent is finished; what was queued and GOAWAY follow."""
    ours, theirs = carrier_pair()
    running = Running(ours, dialer=True)
    connection = running.link.connection
    ring = ReplayRing(2_000_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        peer = RawPeer(theirs, dialer=False)
        await peer.hello()
        id_ = connection.attach(ATTACH)
        running.link.wake()
        await peer.send(encode(ANSWER, id_))
        await trio.testing.wait_all_tasks_blocked()
        connection.open_sender(id_, Channel.INPUT, ring, 0, 2_000_000)
        ring.append(bytes(2_000_000))
        connection.wake(id_, Channel.INPUT)
        running.link.wake()
        await trio.testing.wait_all_tasks_blocked()  # nobody reads: the writer is stuck
        connection.detach(id_)
        running.link.close(CloseReason.DETACHED)
        await trio.sleep(FAREWELL / 2)
        nursery.start_soon(peer.run)
        await peer.wait_ended()
        assert len(peer.received(id_, Channel.INPUT).data) == 2_000_000
        assert peer.order[-1] == "Detach"
        assert "GoAway" in peer.order


async def test_closing_does_not_wait_long_for_one_who_does_not_read(
    autojump_clock: object,
) -> None:
    carrier = Silent(takes=False)
    running = Running(carrier)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        await trio.sleep(1)
        running.link.close(CloseReason.SESSION_ENDED)
    assert trio.current_time() == pytest.approx(1 + FAREWELL)
    assert carrier.closed_with == [CloseReason.SESSION_ENDED]


async def test_the_peer_says_why(autojump_clock: object) -> None:
    async with linked_to_raw() as (running, peer):
        await peer.send(encode(GoAway(reason=CloseReason.DRAINING, retry_after=3.0)))
        await trio.testing.wait_all_tasks_blocked()
        assert running.end is None  # it may have more to say
        await peer.carrier.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert running.end == LinkEnd(CloseReason.DRAINING, "", True, 3.0)


async def test_a_peer_that_says_goodbye_must_go(autojump_clock: object) -> None:
    async with linked_to_raw() as (running, peer):
        await peer.send(encode(GoAway(reason=CloseReason.DRAINING)))
        began = trio.current_time()
        await peer.wait_ended()
        assert LEAVE_AFTER <= trio.current_time() - began <= LEAVE_AFTER + PING_AFTER
        await trio.testing.wait_all_tasks_blocked()
        assert running.end is not None
        assert running.end.by_peer


async def test_closing_after_the_peer_said_goodbye(autojump_clock: object) -> None:
    async with linked_to_raw() as (running, peer):
        await peer.send(encode(GoAway(reason=CloseReason.DRAINING)))
        await trio.testing.wait_all_tasks_blocked()
        running.link.close(CloseReason.REVOKED)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.ended is not None


async def test_rubbish(autojump_clock: object) -> None:
    async with linked_to_raw() as (running, peer):
        await peer.send(b"\xff" * 100)
        goodbye = await peer.wait_ended()
        assert goodbye is not None
        assert goodbye.reason is CloseReason.PROTOCOL_ERROR
        await trio.testing.wait_all_tasks_blocked()
        assert running.end is not None
        assert running.end.reason is CloseReason.PROTOCOL_ERROR


async def test_a_handler_that_finds_a_contradiction(autojump_clock: object) -> None:
    async with linked_to_raw() as (running, peer):

        def handle(event: Event) -> None:
            raise RemoteProtocolError("that cannot be")

        running.handle = handle
        await peer.send(encode(ATTACH, 1))
        goodbye = await peer.wait_ended()
        assert goodbye is not None
        assert goodbye.message == "that cannot be"


async def test_a_handler_with_a_bug(autojump_clock: object) -> None:
    ours, theirs = carrier_pair()
    running = Running(ours)

    def handle(event: Event) -> None:
        raise ZeroDivisionError

    running.handle = handle
    async with open_raw_peer(theirs) as peer:
        await peer.send(encode(ATTACH, 1))
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            await running.run()
        assert await peer.wait_ended() is None


async def test_cancelling_closes_at_once(autojump_clock: object) -> None:
    carrier = Silent(takes=False)
    running = Running(carrier)
    with trio.move_on_after(1):
        await running.run()
    assert trio.current_time() == pytest.approx(1)
    assert carrier.closed_with == [None]
    assert running.end is None


async def test_a_carrier_that_will_not_close(autojump_clock: object) -> None:
    class Stubborn(Silent):
        async def aclose(self, reason: CloseReason | None = None) -> None:
            await trio.sleep_forever()

    running = Running(Stubborn(takes=True))
    with trio.move_on_after(1):
        await running.run()
    assert trio.current_time() == pytest.approx(1 + FAREWELL)


# -------------------------------------------------------------------------- bad networks


@pytest.mark.parametrize("cut", list(Cut))
@pytest.mark.parametrize("at", [0, 5, 30, 100])
async def test_a_cut_ends_both_links(cut: Cut, at: int, autojump_clock: object) -> None:
    one, two = faulty_pair(Fault(at=at, cut=cut), FINE)
    left, right = Running(one, dialer=True), Running(two)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.run)
        nursery.start_soon(right.run)
        for _ in range(10):
            if left.end is None:
                left.link.connection.attach(ATTACH)
                left.link.wake()
            await trio.testing.wait_all_tasks_blocked()
    for running in (left, right):
        assert running.end is not None
        assert running.end.reason is CloseReason.CONNECTION_LOST
    assert isinstance(one, FaultyCarrier)
    assert one.closed
    assert two.closed


async def test_a_goaway_is_found_although_sending_failed(autojump_clock: object) -> None:
    """The peer said why and closed; that our own send broke first must not hide it."""

    class HalfBroken(Silent):
        def __init__(self, inner: MemoryCarrier) -> None:
            super().__init__(takes=True)
            self._inner = inner

        async def receive(self) -> Buffer:
            await trio.sleep(0.5)
            return await self._inner.receive()

        async def send(self, buffers: Sequence[Buffer]) -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError

    ours, theirs = carrier_pair()
    running = Running(HalfBroken(ours))
    async with open_raw_peer(theirs) as peer:
        await peer.send(encode(GoAway(reason=CloseReason.REVOKED)))
        await theirs.aclose()
        await running.run()
    assert running.end is not None
    assert running.end.reason is CloseReason.REVOKED


async def test_splitting_changes_nothing(autojump_clock: object) -> None:
    split = Fault(split=1)
    one, two = faulty_pair(split, split)
    left, right = Running(one, dialer=True), Running(two)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.run)
        nursery.start_soon(right.run)
        id_ = left.link.connection.attach(ATTACH)
        left.link.connection.detach(id_)
        left.link.wake()
        await trio.sleep(0.1)
        assert [type(e.message) for e in right.events if isinstance(e, MessageReceived)] == [
            Attach,
            Detach,
        ]
        left.link.close(CloseReason.DETACHED)
    assert right.end is not None
    assert right.end.by_peer
