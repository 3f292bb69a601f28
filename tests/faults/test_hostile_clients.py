"""Clients that keep to the letter of the protocol, or not even that, and mean harm.

Whatever they do, the stream goes on, others are served, and nothing piles up.
"""

from __future__ import annotations

import gc

import pytest
import trio

from relay.client_attachment import AttachOptions
from relay.endpoint import Channel, Kind
from relay.errors import AttachmentClosed, AttachRefused
from relay.grant import Mode
from relay.inbox import Output
from relay.protocol.frames import MAX_OFFSET, FrameType, encode_control
from relay.protocol.messages import Attached, Credit, Fin, Ping, Resize, Signal, Start, encode
from relay.protocol.reasons import CloseReason
from tests.testing.endpoints import (
    BlockedSink,
    FloodSource,
    ManualSource,
    ScriptedEndpoint,
    Sink,
    exec_endpoint,
    pty_endpoint,
)
from tests.testing.relay_world import SMALL, RelayWorld, open_world

VIEW = AttachOptions("a-bystander-attachment", Kind.PTY, "t", mode=Mode.VIEW, replay="none")


async def check_that_others_are_served(world: RelayWorld, source: ManualSource) -> None:
    async with world.trunk() as trunk:
        attachment = await trunk.attach(VIEW)
        source.write(b"still here")
        item = await attachment.receive()
        assert isinstance(item, Output)
        assert item.data == b"still here"
        trunk.detach(attachment)


# -------------------------------------------------------------------------- input


@pytest.mark.parametrize("how", ["takes over", "detaches"])
async def test_input_that_nobody_reads_is_one_window_however_many_send_it(
    how: str, autojump_clock: object
) -> None:
    sink = BlockedSink()
    async with (
        open_world(lambda _: exec_endpoint(ManualSource(), b"", sink), SMALL) as world,
        world.raw() as peer,
    ):
        sent = b""
        for number in range(50):
            id_, answer = await peer.attach(
                attachment=f"hostile-attachment-{number}", takeover=True, start=Start()
            )
            piece = bytes([number]) * (answer.credit - answer.accepted)
            if piece:
                await peer.input(id_, answer.accepted, piece)
                sent += piece
            if how == "detaches":
                await peer.detach(id_)
            await world.settle()
            assert world.stream().input_waiting <= SMALL.input_window
        assert len(sent) == SMALL.input_window
        id_, answer = await peer.attach(
            attachment="attachment-of-the-last", takeover=True, start=Start()
        )
        assert answer.credit == answer.accepted == 0
        sink.opened.set()
        while (credit := await peer.expect(Credit, id_)).up_to is None:
            pass
        assert credit.up_to == SMALL.input_window
        await peer.input(id_, 0, b"and the last")
        await sink.wait_for(len(sent) + 12)
        assert bytes(sink.data) == sent + b"and the last"


@pytest.mark.parametrize("kind", [Kind.PTY, Kind.EXEC])
async def test_an_end_of_input_said_again_and_again(kind: Kind, autojump_clock: object) -> None:
    sink = BlockedSink()
    source = ManualSource()

    def start(_: object) -> ScriptedEndpoint:
        return pty_endpoint(source, sink) if kind is Kind.PTY else exec_endpoint(source, b"", sink)

    async with open_world(start, SMALL) as world, world.raw() as peer:
        id_, answer = await peer.attach(kind=kind, start=Start())
        await peer.input(id_, 0, b"x")
        for _ in range(200):
            await peer.send(encode(Fin(at=1), id_, Channel.INPUT))
            id_, answer = await peer.resume(answer, dict.fromkeys(answer.start, 0))
        await world.settle()
        (stream,) = world.host._streams.values()
        assert len(stream._input) <= 1
        sink.opened.set()
        await sink.wait_for(1)
        await world.settle()
        assert sink.ended.is_set() == (kind is Kind.EXEC)


# -------------------------------------------------------------------------- credit


@pytest.mark.parametrize("window", [{}, {Channel.OUTPUT: 0}, {Channel.OUTPUT: MAX_OFFSET - 1}])
async def test_windows_of_nothing_and_of_everything(
    window: dict[Channel, int], autojump_clock: object
) -> None:
    source = FloodSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.raw() as peer:
        id_, _ = await peer.attach(kind=Kind.PTY, start=Start(), window=window)
        with trio.move_on_after(1):
            await peer.wait_for_bytes(id_, 10 * SMALL.ring_bytes)
        # Nothing was acknowledged, and this one paces.
        assert source.taken <= SMALL.ring_bytes + SMALL.read_bytes
        got = len(peer.received(id_).data)
        assert got == (SMALL.ring_bytes if window.get(Channel.OUTPUT) else 0)


async def test_absurd_credit_is_taken_for_what_it_says(autojump_clock: object) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world:
        async with world.raw() as peer:
            id_, _ = await peer.attach(kind=Kind.PTY, start=Start(), window={})
            for up_to in (MAX_OFFSET - 1, 0, 5, MAX_OFFSET - 1):
                await peer.credit(id_, up_to=up_to)
            for channel in (0, 2, 7, 255):  # none of these is sent by an owner of a terminal
                await peer.send(encode(Credit(ack=99, up_to=99), id_, channel))
            source.write(b"hello")
            assert (await peer.wait_for_bytes(id_, 5)).data == b"hello"
            await peer.credit(id_, ack=6)
            goaway = await peer.wait_ended()
            assert goaway is not None
            assert goaway.reason is CloseReason.PROTOCOL_ERROR
            assert "6 acknowledged, 5 sent" in goaway.message
        await check_that_others_are_served(world, source)


# -------------------------------------------------------------------------- floods


async def test_floods_of_small_requests_pile_up_nowhere(autojump_clock: object) -> None:
    source = ManualSource()
    endpoint = pty_endpoint(source)
    async with open_world(lambda _: endpoint, SMALL) as world, world.raw() as peer:
        id_, _ = await peer.attach(kind=Kind.PTY, start=Start())
        for start in range(0, 20_000, 1000):
            numbers = range(start, start + 1000)
            await peer.send(*(encode(Ping(id=n)) for n in numbers))
            await peer.send(*(encode(Resize(columns=1 + n, rows=1 + n), id_) for n in numbers))
            await peer.send(*(encode(Signal(number=1, name="INT"), id_) for _ in numbers))
            await peer.send(*(encode(Credit(up_to=n), id_, Channel.OUTPUT) for n in numbers))
            await peer.send(*(encode_control(200, id_, 9, b"later versions") for _ in numbers))
        await world.settle()
        (server,) = world.servers
        assert server.link.connection.statistics().backlog == 0
        assert endpoint.signals == ["INT"]
        await check_that_others_are_served(world, source)


@pytest.mark.slow
async def test_ten_thousand_attachments_leave_nothing(autojump_clock: object) -> None:
    """On one link, by as many clients, half of whom do not wait for the answer."""
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.raw() as peer:
        await peer.attach(kind=Kind.PTY, start=Start())

        async def come_and_go(numbers: range) -> None:
            for number in numbers:
                name = f"passing-attachment-{number}"
                id_ = await peer.request(kind=Kind.PTY, attachment=name, mode=Mode.VIEW)
                if number % 2:
                    assert isinstance(await peer.answer(id_), Attached)
                await peer.detach(id_)
                peer.messages.clear()
            await world.settle()

        await come_and_go(range(1000))
        gc.collect()
        tasks, objects = trio.lowlevel.current_statistics().tasks_living, len(gc.get_objects())
        await come_and_go(range(1000, 10_000))
        gc.collect()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert len(gc.get_objects()) < objects + 5000
        (server,) = world.servers
        assert server.link.connection.statistics().streams == 1
        assert not server._attaching
        assert len(server._attached) == 1
        assert len(world.stream().attachments) == 1
        await check_that_others_are_served(world, source)


# -------------------------------------------------------------------------- frames


def corrupt(frame: bytes, at: int, value: int) -> bytes:
    return frame[:at] + bytes([value]) + frame[at + 1 :]


MALFORMED = {
    "no map": encode_control(FrameType.CREDIT, 1, 1, b"\x01"),
    "a map in a map, endlessly": encode_control(FrameType.CREDIT, 1, 1, b"\x81\xa1x" * 20_000),
    "a text that is none": encode_control(FrameType.SIGNAL, 1, 0, b"\x81\xa4name\xa2\xff\xfe"),
    "a length beyond the payload": encode_control(FrameType.CREDIT, 1, 1, b"\xdf\xff\xff\xff\xff"),
    "a negative offset": encode_control(FrameType.CREDIT, 1, 1, b"\x81\xa5up_to\xff"),
    "an offset of 2^63": encode_control(
        FrameType.CREDIT, 1, 1, b"\x81\xa5up_to\xcf\x80" + bytes(7)
    ),
    "something behind the map": encode_control(FrameType.CREDIT, 1, 1, b"\x80\x80"),
    "an empty DATA": encode_control(FrameType.DATA, 1, 0, bytes(8)),
    "a DATA of 4 GiB": corrupt(encode_control(FrameType.DATA, 1, 0, bytes(9)), 8, 0xFF),
    "a CREDIT of 4 GiB": corrupt(encode_control(FrameType.CREDIT, 1, 1, b"\x80"), 8, 0xFF),
    "a stream that never was": encode(Credit(up_to=1), 77, 1),
    "a stream of the owner's": encode(Credit(up_to=1), 2, 1),
    "an owner's frame": encode_control(FrameType.EXIT, 1, 0, b"\x80"),
    "HELLO twice": encode_control(FrameType.HELLO, 0, 0, b"\x81\xa7version\x01"),
    "a stream's frame without a stream": encode(Resize(columns=1, rows=1)),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_frame_ends_its_link_with_a_reason_and_nothing_else(
    name: str, autojump_clock: object
) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world:
        async with world.raw() as peer:
            await peer.attach(kind=Kind.PTY, start=Start())
            await peer.send(MALFORMED[name])
            goaway = await peer.wait_ended()
            assert goaway is not None
            assert goaway.reason is CloseReason.PROTOCOL_ERROR
            assert goaway.message
        assert len(world.ends) == 1
        await check_that_others_are_served(world, source)


async def test_a_client_that_hangs_up_before_it_hears_the_answer(autojump_clock: object) -> None:
    """It asks again and again, and the stream is started once."""
    sink = Sink()
    async with open_world(lambda _: pty_endpoint(b"output", sink), SMALL) as world:
        for number in range(60):
            async with world.raw() as peer:
                await trio.lowlevel.checkpoint()  # the answer is on its way when the carrier goes
                await peer.request(kind=Kind.PTY, start=Start(), generation=number)
                if number % 2:
                    await world.settle()
        assert len(world.starts) == 1
        async with world.raw() as peer:
            id_, answer = await peer.attach(kind=Kind.PTY, start=Start(), generation=1000)
            assert answer.started
            await peer.wait_for_fin(id_)
            assert peer.received(id_).data == b"output"


# -------------------------------------------------------------------------- the SDK, used wrongly


async def test_one_attachment_id_for_two(autojump_clock: object) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world:
        options = AttachOptions("one-attachment-id", Kind.PTY, "t", start=Start())
        async with world.trunk() as one, world.trunk() as two:
            first = await one.attach(options)
            with pytest.raises(ValueError, match="in use"):
                await one.attach(options)
            second = await two.attach(options)  # another process with the same id supersedes
            with pytest.raises(AttachmentClosed) as caught:
                await first.receive()
            assert caught.value.reason is CloseReason.SUPERSEDED
            source.write(b"x")
            item = await second.receive()
            assert isinstance(item, Output)
            two.detach(second)
            two.detach(second)
            with pytest.raises(AttachmentClosed):
                await second.send(b"x")
        with pytest.raises(AttachmentClosed):
            await two.attach(options)


async def test_more_attachments_than_a_link_has_places(autojump_clock: object) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.trunk() as trunk:
        await trunk.attach(AttachOptions("the-first-attachment", Kind.PTY, "t", start=Start()))
        refused = 0

        async def attach(number: int) -> None:
            nonlocal refused
            options = AttachOptions(f"crowd-attachment-{number}", Kind.PTY, "t", mode=Mode.VIEW)
            try:
                await trunk.attach(options)
            except AttachRefused as error:
                assert error.code == "limit"  # noqa: PT017 - others of them succeed
                refused += 1

        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(attach, number)
        attached = trunk.statistics().attachments - 1
        assert attached == SMALL.max_attachments - 2  # one place is kept for control
        assert refused == 300 - attached
        assert trunk.statistics().links == 1
        await check_that_others_are_served_after_leaving(world, source)


async def check_that_others_are_served_after_leaving(
    world: RelayWorld, source: ManualSource
) -> None:
    """Control always finds a place."""
    async with world.raw() as peer:
        id_, _ = await peer.attach(
            kind=Kind.PTY, attachment="control-attachment-2", takeover=True, replay="none"
        )
        source.write(b"y")
        await peer.wait_for_bytes(id_, 1)
