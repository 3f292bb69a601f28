"""A trunk: dialling, coming back, giving up, going away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from relay.carrier import Carrier
from relay.client import (
    DIAL_TIMEOUT,
    FAREWELL,
    FINAL,
    MAX_RETRY_AFTER,
    Trunk,
    TrunkState,
    TrunkStatus,
    open_trunk,
)
from relay.client_attachment import AttachOptions
from relay.endpoint import Channel, Endpoint, ExitStatus, Kind, StartRequest
from relay.errors import AttachmentClosed, AttachRefused, DialFailed
from relay.link import Link
from relay.memory import carrier_pair
from relay.protocol.connection import MAX_STREAMS
from relay.protocol.messages import (
    Attach,
    Attached,
    Closed,
    Detach,
    GoAway,
    Start,
    encode,
)
from relay.protocol.reasons import CloseReason, Refusal
from relay.wakeup import Wakeup
from tests.testing.endpoints import ManualSource, Sink, exec_endpoint, pty_endpoint
from tests.testing.faulty import Cut, FaultyCarrier, faulty_pair
from tests.testing.raw_peer import RawPeer
from tests.testing.relay_world import RelayWorld, open_world

A, B = "attachment-aaaaaa", "attachment-bbbbbb"
NEW = Start()


def options(number: int = 0, kind: Kind = Kind.PTY, tag: str = "t") -> AttachOptions:
    return AttachOptions(f"attachment-{number:06}", kind, tag, start=NEW, takeover=True)


def shell(request: StartRequest) -> Endpoint:
    return pty_endpoint(ManualSource())


class Owner:
    """Takes the calls of a trunk with raw peers, one after the other."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.peers: list[RawPeer] = []
        self.failures: list[Exception] = []
        self.times: list[float] = []
        self.states: list[TrunkStatus] = []
        self.hang = False
        self.called = Wakeup()

    async def dial(self) -> Carrier:
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.hang:
            await trio.sleep_forever()
        if self.failures:
            raise self.failures.pop(0)
        ours, theirs = carrier_pair()
        peer = RawPeer(theirs, dialer=False)
        self.peers.append(peer)
        self._nursery.start_soon(peer.run)
        await peer.hello()
        self.called.set()
        return ours

    async def peer(self, number: int = 0) -> RawPeer:
        while len(self.peers) <= number:
            await self.called.wait()
        return self.peers[number]

    async def accept(self, number: int = 0) -> tuple[RawPeer, int]:
        """Wait for an ATTACH on the link `number` and accept it."""
        peer = await self.peer(number)
        id_, request = await peer.expect_from(Attach)
        await peer.send(encode(answer_to(request), id_))
        return peer, id_


def answer_to(request: Attach) -> Attached:
    return Attached(
        stream="s",
        tag=request.tag,
        kind=request.kind,
        mode=request.mode,
        resumed=request.resume is not None,
        start=dict.fromkeys(request.window, 0),
        credit=1000,
    )


@asynccontextmanager
async def owned(**arguments: object) -> AsyncIterator[tuple[Trunk, Owner]]:
    async with trio.open_nursery() as nursery:
        owner = Owner(nursery)
        arguments = {"chance": lambda: 1.0, "observe": owner.states.append, **arguments}
        async with open_trunk(owner.dial, **arguments) as trunk:  # type: ignore[arg-type]  # given by tests
            yield trunk, owner
        nursery.cancel_scope.cancel()


# -------------------------------------------------------------------------- coming back


async def test_it_says_what_it_does(autojump_clock: object) -> None:
    async with owned() as (_, owner):
        owner.failures = [OSError("no route to host"), trio.BrokenResourceError("TLS")]
        await owner.peer()
        await trio.testing.wait_all_tasks_blocked()
    assert owner.states == [
        TrunkStatus(TrunkState.CONNECTING),
        TrunkStatus(TrunkState.WAITING, "no route to host", 0.01),
        TrunkStatus(TrunkState.CONNECTING),
        TrunkStatus(TrunkState.WAITING, "TLS", 0.02),
        TrunkStatus(TrunkState.CONNECTING),
        TrunkStatus(TrunkState.CONNECTED),
        TrunkStatus(TrunkState.CLOSED),
    ]


async def test_it_waits_longer_each_time_and_then_no_longer(autojump_clock: object) -> None:
    async with owned() as (_, owner):
        owner.failures = [OSError("no")] * 12
        await owner.peer()
        waits = [b - a for a, b in zip(owner.times, owner.times[1:], strict=False)]
        assert waits == pytest.approx([min(10.0, 0.01 * 2**n) for n in range(12)])


async def test_a_link_that_was_good_resets_the_wait(autojump_clock: object) -> None:
    async with owned() as (_, owner):
        owner.failures = [OSError("no")] * 5
        peer = await owner.peer()
        await trio.sleep(60)
        await peer.carrier.aclose()
        await owner.peer(1)
        assert owner.times[-1] - owner.times[-2] == pytest.approx(60, abs=2)
        assert owner.states[-3].retry_in == 0.01


async def test_one_need_not_wait(autojump_clock: object) -> None:
    async with owned() as (trunk, owner):
        owner.failures = [OSError("no")] * 20
        await trio.sleep(60)
        before = len(owner.times)
        owner.failures = []
        trunk.retry_now()
        await trio.testing.wait_all_tasks_blocked()
        assert len(owner.times) == before + 1
        assert trunk.statistics().state is TrunkState.CONNECTED


@pytest.mark.parametrize(("asked", "waited"), [(7.5, 7.5), (0.0, 0.0), (1e300, MAX_RETRY_AFTER)])
async def test_the_server_says_when(asked: float, waited: float, autojump_clock: object) -> None:
    async with owned() as (_, owner):
        peer = await owner.peer()
        await peer.send(encode(GoAway(reason=CloseReason.DRAINING, retry_after=asked)))
        await peer.carrier.aclose()
        lost = trio.current_time()
        await owner.peer(1)
        assert owner.times[1] - lost == pytest.approx(waited, abs=0.1)


async def test_it_gives_up(autojump_clock: object) -> None:
    async with owned(give_up_after=100.0) as (trunk, owner):
        peer = await owner.peer()
        with trio.fail_after(1000):
            await trio.sleep(500)
            owner.failures = [OSError("gone")] * 1000
            await peer.carrier.aclose()
            began = trio.current_time()
            with pytest.raises(AttachmentClosed, match="no connection for 100 s: gone") as caught:
                await trunk.attach(options())
        assert caught.value.reason is CloseReason.CONNECTION_LOST
        assert 100 <= trio.current_time() - began <= 111
        assert trunk.statistics() == trunk.statistics()
        assert trunk.statistics().attachments == 0
        with pytest.raises(AttachmentClosed):
            await trunk.attach(options())


async def test_there_is_no_point_in_trying_again(autojump_clock: object) -> None:
    async with owned() as (trunk, owner):
        owner.failures = [
            DialFailed("busy", permanent=False),
            DialFailed("the session has ended", permanent=True, reason=CloseReason.SESSION_ENDED),
        ]
        with pytest.raises(AttachmentClosed, match="the session has ended") as caught:
            await trunk.attach(options())
        assert caught.value.reason is CloseReason.SESSION_ENDED
        assert len(owner.times) == 2


@pytest.mark.parametrize("reason", list(CloseReason))
async def test_which_ends_are_final(reason: CloseReason, autojump_clock: object) -> None:
    async with owned() as (trunk, owner):
        peer = await owner.peer()
        await peer.send(encode(GoAway(reason=reason)))
        await peer.carrier.aclose()
        await trio.sleep(20)
        assert (len(owner.peers) == 1) is (reason in FINAL)
        assert (trunk.statistics().state is TrunkState.CLOSED) is (reason in FINAL)


async def test_a_server_that_does_not_answer(autojump_clock: object) -> None:
    async with owned() as (_, owner):
        owner.hang = True
        await trio.sleep(DIAL_TIMEOUT + 1)
        owner.hang = False
        await owner.peer()
        assert owner.states[1].reason == "the server does not answer"


async def test_a_server_that_breaks_the_rules(autojump_clock: object) -> None:
    async with owned() as (trunk, owner):
        peer = await owner.peer()
        await peer.send(b"\xff" * 50)
        with pytest.raises(AttachmentClosed) as caught:
            await trunk.attach(options())
        assert caught.value.reason is CloseReason.PROTOCOL_ERROR


async def test_a_dialler_with_a_bug(autojump_clock: object) -> None:
    async def dial() -> Carrier:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    began = trio.current_time()
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True):
        async with open_trunk(dial):
            await trio.sleep_forever()
    assert trio.current_time() == began


# -------------------------------------------------------------------------- attaching


async def test_attaching_before_there_is_a_link(autojump_clock: object) -> None:
    async with owned() as (trunk, owner):
        owner.failures = [OSError("no")] * 3
        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner.accept)
            attachment = await trunk.attach(options())
        assert attachment.answer is not None


async def test_a_refusal(autojump_clock: object) -> None:
    async with open_world(shell) as world, world.trunk() as trunk:
        with pytest.raises(AttachRefused, match="no stream 't'") as caught:
            await trunk.attach(AttachOptions(A, Kind.PTY, "t"))
        assert caught.value.code is Refusal.NOT_FOUND
        assert trunk.statistics().attachments == 0
        assert trunk._by_stream == {}
        await trunk.attach(AttachOptions(A, Kind.PTY, "t", start=NEW))


async def test_an_id_that_is_in_use(autojump_clock: object) -> None:
    async with open_world(shell) as world, world.trunk() as trunk:
        first = await trunk.attach(options())
        with pytest.raises(ValueError, match="in use"):
            await trunk.attach(options())
        assert not first.is_over
        trunk.detach(first)
        await trunk.attach(options())


async def test_too_many_attachments(autojump_clock: object) -> None:
    async with open_world(shell) as world, world.trunk() as trunk, trio.open_nursery() as nursery:
        for number in range(MAX_STREAMS):
            nursery.start_soon(trunk.attach, options(number, tag="slow"))
            await trio.testing.wait_all_tasks_blocked()
        # They took control from each other, so all but the last are closed: all is as before.
        assert trunk.statistics().attachments == 1
        await trunk.attach(options(MAX_STREAMS))


async def test_more_attachments_than_a_link_takes(autojump_clock: object) -> None:
    async with owned() as (trunk, owner):
        await owner.peer()
        refusals: list[AttachRefused] = []

        async def attach(number: int) -> None:
            try:
                await trunk.attach(options(number))
            except AttachRefused as refused:
                refusals.append(refused)

        async with trio.open_nursery() as nursery:
            for number in range(MAX_STREAMS + 3):
                nursery.start_soon(attach, number)
            await trio.testing.wait_all_tasks_blocked()
            assert [refused.code for refused in refusals] == [Refusal.LIMIT] * 3
            assert trunk.statistics().attachments == MAX_STREAMS
            nursery.cancel_scope.cancel()
        # The old ones are on their way out and still count on the link.
        with pytest.raises(AttachRefused) as caught:
            await trunk.attach(options(9999))
        assert caught.value.code is Refusal.LIMIT
        assert trunk.statistics().attachments == 0
        peer = await owner.peer()
        await trio.testing.wait_all_tasks_blocked()
        ids = [id_ for id_, _, m in peer.messages if isinstance(m, Detach)]
        assert len(ids) == MAX_STREAMS
        await peer.send(*(encode(Closed(reason=CloseReason.DETACHED), id_) for id_ in ids))
        peer.messages.clear()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner.accept)
            await trunk.attach(options(10_000))


async def test_a_cancelled_attach_is_given_up(autojump_clock: object) -> None:
    async with owned() as (trunk, owner):
        peer = await owner.peer()
        with trio.move_on_after(1):
            await trunk.attach(options())
        await peer.expect(Detach)
        assert trunk.statistics().attachments == 0
        assert trunk._by_stream == {}


async def test_nothing_is_left_of_attachments_that_were_given_up(autojump_clock: object) -> None:
    async with open_world(shell) as world, world.trunk() as trunk:
        for number in range(20):
            attachment = await trunk.attach(options(number))
            trunk.detach(attachment)
        await trio.testing.wait_all_tasks_blocked()
        assert trunk._by_stream == {}
        assert trunk._link is not None
        assert trunk._link.connection.statistics().streams == 0


async def test_an_owner_that_wants_something_of_ours(autojump_clock: object) -> None:
    async with owned() as (_, owner):
        peer = await owner.peer()
        refused = await peer.refused()
        assert refused.code is Refusal.UNSUPPORTED


# -------------------------------------------------------------------------- closing


async def test_closing_detaches_and_says_goodbye(autojump_clock: object) -> None:
    async with open_world(shell) as world:
        async with world.trunk() as trunk:
            attachment = await trunk.attach(options())
        await world.settle()
        assert world.stream().attachments == ()
        (end,) = world.ends
        assert end.by_peer
        assert end.reason is CloseReason.DETACHED
        with pytest.raises(AttachmentClosed):
            await attachment.receive()
        with pytest.raises(AttachmentClosed):
            await trunk.attach(options())


async def test_the_last_input_goes_before_the_goodbye(autojump_clock: object) -> None:
    sink = Sink()
    async with open_world(lambda _: exec_endpoint(ManualSource(), b"", sink)) as world:
        async with world.trunk() as trunk:
            attachment = await trunk.attach(options(kind=Kind.EXEC))
            await attachment.send(b"x" * 200_000)
            attachment.send_eof()
        await world.settle()
        assert len(sink.data) == 200_000
        assert sink.ended.is_set()
        assert world.stream().attachments == ()


async def test_closing_waits_for_a_dead_network_but_not_long(autojump_clock: object) -> None:
    async with open_world(shell) as world:

        async def dial() -> Carrier:
            ours, theirs = faulty_pair()
            world.serve(theirs)
            return ours

        with trio.CancelScope() as scope:
            async with open_trunk(dial) as trunk:
                await trunk.attach(options())
                assert isinstance(trunk._link, Link)
                assert isinstance(trunk._link.carrier, FaultyCarrier)
                trunk._link.carrier.network.cut(Cut.STALL)
                scope.cancel()
                await trio.sleep_forever()
        assert trio.current_time() <= FAREWELL


async def test_closing_does_not_wait_for_a_dial(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        owner = Owner(nursery)
        owner.hang = True
        async with open_trunk(owner.dial):
            await trio.sleep(1)
        assert trio.current_time() == pytest.approx(1)


async def test_closing_does_not_wait_for_the_next_try(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        owner = Owner(nursery)
        owner.failures = [OSError("no")] * 100
        async with open_trunk(owner.dial):
            await trio.sleep(100)
        assert trio.current_time() == pytest.approx(100)


async def test_an_error_in_the_block_comes_out(autojump_clock: object) -> None:
    async with open_world(shell) as world:
        with pytest.RaisesGroup(LookupError, allow_unwrapped=True, flatten_subgroups=True):
            async with world.trunk():
                raise LookupError
        await world.settle()
        assert world.servers == []


async def test_a_cancelled_block_says_goodbye(autojump_clock: object) -> None:
    async with open_world(shell) as world:
        with trio.CancelScope() as scope:
            async with world.trunk() as trunk:
                await trunk.attach(options())
                scope.cancel()
                await trio.sleep_forever()
        await world.settle()
        assert world.stream().attachments == ()


# -------------------------------------------------------------------------- what owners say


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda world: world.host.end(CloseReason.EXPIRED), CloseReason.EXPIRED),
        (lambda world: world.host.revoke(1), CloseReason.REVOKED),
    ],
)
async def test_the_owner_ends_it(
    end: Callable[[RelayWorld], None], reason: CloseReason, autojump_clock: object
) -> None:
    async with open_world(shell) as world, world.trunk() as trunk:
        attachment = await trunk.attach(options())
        end(world)
        with pytest.raises(AttachmentClosed) as caught:
            await attachment.wait()
        assert caught.value.reason is reason
        assert trunk.statistics().attachments == 0


async def test_many_attachments_over_a_link_that_is_lost(autojump_clock: object) -> None:
    sinks = [Sink() for _ in range(50)]

    def start(request: StartRequest) -> Endpoint:
        return exec_endpoint(b"out", b"err", sinks[int(request.command[0])])

    async with open_world(start) as world, world.trunk() as trunk:
        attachments = [
            await trunk.attach(
                AttachOptions(
                    f"attachment-{n:06}", Kind.EXEC, f"t{n}", start=Start(command=[str(n)])
                )
            )
            for n in range(50)
        ]
        for _ in range(3):
            for server in list(world.servers):
                await server.link.carrier.aclose()
            await trio.sleep(20)
        for attachment in attachments:
            assert attachment.resumes >= 1
            output = await attachment.receive()
            assert output is not None
            assert (await attachment.receive(Channel.ERROR)) is not None
            assert await attachment.wait() == ExitStatus(code=0)
