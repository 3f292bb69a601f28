"""An attachment as its client sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing

from relay.carrier import Carrier
from relay.client import Trunk, open_trunk
from relay.client_attachment import (
    INPUT_BUFFER,
    SIGNALS_KEPT,
    AttachOptions,
    ClientAttachment,
)
from relay.endpoint import Channel, ExitStatus, Kind, TerminalSize
from relay.errors import AttachmentClosed, AttachRefused, InputUncertain
from relay.grant import Mode
from relay.inbox import Missed, Output
from relay.limits import StreamLimits
from relay.link import Link
from relay.memory import carrier_pair
from relay.protocol.connection import Connection, MessageReceived
from relay.protocol.errors import RemoteProtocolError
from relay.protocol.messages import Attached, Exit, Fin, Hello, Start, encode
from relay.protocol.reasons import CloseReason, Refusal
from relay.protocol.windows import INITIAL_WINDOW, MAX_WINDOW
from tests.testing.endpoints import (
    BlockedSink,
    BrokenSink,
    BytesSource,
    EchoSource,
    FloodSource,
    ManualSource,
    ScriptedEndpoint,
    Sink,
    exec_endpoint,
    pty_endpoint,
)
from tests.testing.faulty import Cut, Fault, FaultyCarrier, faulty_pair
from tests.testing.relay_world import SMALL, RelayWorld, open_world

A, B = "attachment-aaaaaa", "attachment-bbbbbb"
NEW = Start()
PTY = AttachOptions(A, Kind.PTY, "t", start=NEW)
EXEC = AttachOptions(A, Kind.EXEC, "t", start=NEW)


class Cuttable:
    """A trunk to a world, over networks that the test cuts."""

    def __init__(self, world: RelayWorld, fault: Fault) -> None:
        self.world = world
        self.fault = fault
        self.carriers: list[FaultyCarrier] = []
        self.down = False
        self.trunk: Trunk

    async def dial(self) -> Carrier:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise OSError("the network is down")
        ours, theirs = faulty_pair(self.fault, self.fault)
        self.world.serve(theirs)
        self.carriers.append(ours)
        return ours

    async def cut(self, *, down: bool = False) -> None:
        """Cut; return when both sides have noticed and (unless `down`) are back."""
        self.down = down
        self.carriers[-1].network.cut(Cut.RESET)
        await trio.sleep(0.5)

    async def up(self) -> None:
        self.down = False
        self.trunk.retry_now()
        await trio.sleep(0.5)


@asynccontextmanager
async def cuttable(
    endpoint: ScriptedEndpoint, limits: StreamLimits = SMALL, latency: float = 0.0
) -> AsyncIterator[Cuttable]:
    async with open_world(lambda _: endpoint, limits) as world:
        line = Cuttable(world, Fault(latency=latency, capacity=16 * 1024 * 1024))
        async with open_trunk(line.dial, chance=lambda: 0.0) as line.trunk:
            yield line


async def read(attachment: ClientAttachment, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        item = await attachment.receive()
        assert isinstance(item, Output)
        assert item.offset == len(data)
        data += item.data
    return bytes(data)


# -------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"attachment": "short"}, "attachment"),
        ({"attachment": "x" * 16 + "/"}, "attachment"),
        ({"tag": "no spaces"}, "tag"),
        ({"tag": ""}, "tag"),
        ({"start": Start(command=["a\0b"])}, "start"),
        ({"start": Start(command=["x" * 100_000])}, "65536"),
        ({"window": 0}, "window"),
    ],
)
def test_options_that_no_server_would_take(fields: dict[str, object], match: str) -> None:
    good: dict[str, object] = {"attachment": A, "kind": Kind.PTY, "tag": "t"}
    with pytest.raises(ValueError, match=match):
        AttachOptions(**(good | fields))  # type: ignore[arg-type]  # parametrized


# -------------------------------------------------------------------------- output


async def test_output_to_the_end(autojump_clock: object) -> None:
    endpoint = exec_endpoint(b"output", b"error")
    async with open_world(lambda _: endpoint) as world, world.trunk() as trunk:
        attachment = await trunk.attach(EXEC)
        assert await attachment.receive() == Output(Channel.OUTPUT, 0, b"output")
        assert await attachment.receive() is None
        assert await attachment.receive() is None
        assert await attachment.receive(Channel.ERROR) == Output(Channel.ERROR, 0, b"error")
        assert await attachment.receive(Channel.ERROR) is None
        assert await attachment.wait() == ExitStatus(code=0)


async def test_what_is_not_taken_holds_the_process_back(autojump_clock: object) -> None:
    source = FloodSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.trunk() as trunk:
        attachment = await trunk.attach(PTY)
        await world.settle()
        # The ring is smaller than the window, so it is what counts here.
        assert source.taken <= SMALL.ring_bytes + SMALL.read_bytes
        await read(attachment, 100)
        before = source.taken
        await trio.sleep(100)
        assert source.taken == before  # what was returned last is not consumed yet


async def test_bytes_count_as_consumed_when_the_caller_comes_back(
    autojump_clock: object,
) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source)) as world, world.trunk() as trunk:
        attachment = await trunk.attach(PTY)
        source.write(b"first")
        await attachment.receive()
        assert attachment.statistics().windows[Channel.OUTPUT].consumed == 0
        source.write(b"second")
        await attachment.receive()
        assert attachment.statistics().windows[Channel.OUTPUT].consumed == 5


async def test_a_cancelled_receive_loses_nothing(autojump_clock: object) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source)) as world, world.trunk() as trunk:
        attachment = await trunk.attach(PTY)
        with trio.move_on_after(1):
            await attachment.receive()
        source.write(b"here it comes")
        await world.settle()
        with trio.move_on_after(0):
            await attachment.receive()
        assert await read(attachment, 13) == b"here it comes"


async def test_a_large_window_does_not_wait_for_a_smaller_ring(autojump_clock: object) -> None:
    """The window grows with the round trip, beyond the ring: both must go on."""
    data = bytes(range(256)) * 80_000
    endpoint = pty_endpoint(BytesSource(data))
    async with cuttable(endpoint, latency=0.1) as line:
        attachment = await line.trunk.attach(PTY)
        await trio.sleep(1)
        with trio.fail_after(1000):
            assert await read(attachment, len(data)) == data
        assert line.trunk.statistics().growth.peak > 0
        assert SMALL.ring_bytes < INITIAL_WINDOW


async def test_a_window_grows_to_what_the_path_needs(autojump_clock: object) -> None:
    limits = StreamLimits(ring_bytes=2 * MAX_WINDOW)
    data = bytes(40_000_000)
    async with cuttable(pty_endpoint(BytesSource(data)), limits, latency=0.05) as line:
        attachment = await line.trunk.attach(PTY)
        await trio.sleep(1)
        began = trio.current_time()
        await read(attachment, len(data))
        seconds = trio.current_time() - began
        growth = line.trunk.statistics().growth
        assert growth.peak == MAX_WINDOW - INITIAL_WINDOW
        assert growth.taken == 0  # given back with the last byte
        # 256 KiB in 0.1 s would take 15 s.
        assert seconds < 5


async def test_replay_is_marked(autojump_clock: object) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source)) as world:
        async with world.trunk() as trunk:
            attachment = await trunk.attach(PTY)
            source.write(b"seen before")
            await attachment.receive()
        async with world.trunk() as trunk:
            attachment = await trunk.attach(AttachOptions(B, Kind.PTY, "t"))
            source.write(b" and not")
            first = await attachment.receive()
            assert first == Output(Channel.OUTPUT, 0, b"seen before", replay=True)
            second = await attachment.receive()
            assert second == Output(Channel.OUTPUT, 11, b" and not")


async def test_input_waits_for_the_replay_to_be_consumed(autojump_clock: object) -> None:
    source, sink = ManualSource(), Sink()
    async with open_world(lambda _: pty_endpoint(source, sink)) as world:
        async with world.trunk() as trunk:
            await trunk.attach(PTY)
            source.write(b"what are you?")
            await world.settle()
        async with world.trunk() as trunk:
            attachment = await trunk.attach(AttachOptions(B, Kind.PTY, "t"))
            await attachment.send(b"ls\n")
            await trio.sleep(10)
            await attachment.receive()
            await trio.sleep(10)
            assert sink.data == b""
            with trio.move_on_after(1):
                await attachment.receive()  # coming back says that it was drawn
            assert sink.data == b"ls\n"


async def test_a_viewer_is_told_what_it_missed(autojump_clock: object) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source), SMALL) as world, world.trunk() as trunk:
        control = await trunk.attach(PTY)
        viewer = await trunk.attach(AttachOptions(B, Kind.PTY, "t", mode=Mode.VIEW, window=1000))
        total = 3 * SMALL.ring_bytes
        source.write(bytes(total))
        await read(control, total)
        await world.settle()
        first = await viewer.receive()
        assert isinstance(first, Output)
        missed = await viewer.receive()
        assert isinstance(missed, Missed)
        assert missed.start == len(first.data)
        end = missed.to
        while end < total:
            item = await viewer.receive()
            assert isinstance(item, Output)
            assert item.offset == end
            end += len(item.data)


# -------------------------------------------------------------------------- input


async def test_an_echo(autojump_clock: object) -> None:
    sink = Sink()
    endpoint = exec_endpoint(EchoSource(sink), b"", sink)
    async with open_world(lambda _: endpoint) as world, world.trunk() as trunk:
        attachment = await trunk.attach(EXEC)
        for word in (b"one", b"two", b"three"):
            await attachment.send(word)
            item = await attachment.receive()
            assert isinstance(item, Output)
            assert item.data == word
        attachment.send_eof()
        assert await attachment.receive() is None
        assert await attachment.wait() == ExitStatus(code=0)


async def test_sending_waits_for_a_process_that_does_not_read(autojump_clock: object) -> None:
    sink = BlockedSink()
    endpoint = exec_endpoint(ManualSource(), b"", sink)
    data = bytes(3 * INPUT_BUFFER)
    async with open_world(lambda _: endpoint) as world, world.trunk() as trunk:
        attachment = await trunk.attach(EXEC)
        done = trio.Event()

        async def send() -> None:
            await attachment.send(data)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(100)
            assert not done.is_set()
            assert attachment.statistics().input_unacknowledged == INPUT_BUFFER
            sink.opened.set()
        assert done.is_set()
        await sink.wait_for(len(data))


async def test_a_process_that_reads_no_more(autojump_clock: object) -> None:
    endpoint = exec_endpoint(ManualSource(), b"", BrokenSink())
    async with open_world(lambda _: endpoint) as world, world.trunk() as trunk:
        attachment = await trunk.attach(EXEC)
        with pytest.raises(trio.BrokenResourceError, match="no input"):
            await attachment.send(bytes(10 * INPUT_BUFFER))
        assert not attachment.is_over


async def test_sending_after_the_end(autojump_clock: object) -> None:
    endpoint = exec_endpoint(ManualSource(), b"", BlockedSink())
    async with open_world(lambda _: endpoint) as world, world.trunk() as trunk:
        attachment = await trunk.attach(EXEC)
        await attachment.send(b"x")
        attachment.send_eof()
        attachment.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await attachment.send(b"y")


async def test_a_viewer_cannot_send(autojump_clock: object) -> None:
    async with open_world(lambda _: pty_endpoint(ManualSource())) as world, world.trunk() as trunk:
        await trunk.attach(PTY)
        viewer = await trunk.attach(AttachOptions(B, Kind.PTY, "t", mode=Mode.VIEW))
        with pytest.raises(ValueError, match="viewer"):
            await viewer.send(b"x")


# -------------------------------------------------------------------------- over cuts


async def test_input_during_a_cut_comes_once(autojump_clock: object) -> None:
    sink = Sink()
    endpoint = pty_endpoint(ManualSource(), sink)
    async with cuttable(endpoint) as line:
        attachment = await line.trunk.attach(PTY)
        await attachment.send(b"before ")
        await line.cut(down=True)
        await attachment.send(b"during ")
        await line.up()
        await attachment.send(b"after")
        await trio.sleep(1)
        assert sink.data == b"before during after"
        assert attachment.resumes == 1


async def test_the_last_size_and_every_signal_survive_a_cut(autojump_clock: object) -> None:
    endpoint = pty_endpoint(ManualSource())
    async with cuttable(endpoint) as line:
        attachment = await line.trunk.attach(
            AttachOptions(A, Kind.PTY, "t", start=NEW, size=TerminalSize(80, 24))
        )
        attachment.send_signal("S1")
        await trio.sleep(1)
        await line.cut(down=True)
        attachment.resize(TerminalSize(1, 1))
        attachment.resize(TerminalSize(132, 50))
        attachment.send_signal("S2")
        attachment.send_signal("S3")
        await line.up()
        await line.cut()
        assert endpoint.sizes[-1] == TerminalSize(132, 50)
        assert TerminalSize(1, 1) not in endpoint.sizes
        assert endpoint.signals == ["S1", "S2", "S3"]


async def test_only_so_many_signals_are_kept(autojump_clock: object) -> None:
    endpoint = pty_endpoint(ManualSource())
    async with cuttable(endpoint) as line:
        attachment = await line.trunk.attach(PTY)
        await line.cut(down=True)
        for number in range(SIGNALS_KEPT + 10):
            attachment.send_signal(f"S{number}")
        await line.up()
        assert endpoint.signals == [f"S{n}" for n in range(10, SIGNALS_KEPT + 10)]


async def test_a_name_that_is_no_signals(autojump_clock: object) -> None:
    endpoint = pty_endpoint(ManualSource())
    async with cuttable(endpoint) as line:
        attachment = await line.trunk.attach(PTY)
        for name in ("int", "", "SIG INT", "X" * 17):
            with pytest.raises(ValueError, match="Signal"):
                attachment.send_signal(name)
        attachment.send_signal("INT")
        await trio.sleep(1)
        assert endpoint.signals == ["INT"]


async def forget(line: Cuttable) -> None:
    """Let the owner forget the attachment while it is cut off."""
    stream = next(iter(line.world.host._streams.values()))
    stream.remove(stream.attachments[A], CloseReason.DETACHED)


async def test_input_of_which_nobody_knows(autojump_clock: object) -> None:
    sink = BlockedSink()
    async with cuttable(pty_endpoint(ManualSource(), sink)) as line:
        attachment = await line.trunk.attach(PTY)
        await attachment.send(b"rm -rf important")
        await trio.sleep(1)
        await line.cut(down=True)
        await forget(line)
        await line.up()
        for wait in (attachment.receive, attachment.wait):
            with pytest.raises(InputUncertain):
                await wait()
        with pytest.raises(InputUncertain):
            await attachment.send(b"x")
        await trio.sleep(1)
        assert line.world.stream().attachments == ()
        assert CloseReason.PROTOCOL_ERROR not in {end.reason for end in line.world.ends}


async def test_input_that_was_never_sent_is_not_uncertain(autojump_clock: object) -> None:
    endpoint = pty_endpoint(ManualSource())
    async with cuttable(endpoint) as line:
        attachment = await line.trunk.attach(PTY)
        attachment.send_signal("OLD")
        await trio.sleep(1)
        await line.cut(down=True)
        await forget(line)
        await attachment.send(b"typed while cut off")
        await line.up()
        assert endpoint.sink.data == b"typed while cut off"
        assert not attachment.is_over
        assert endpoint.signals == ["OLD"]  # not twice
        attachment.send_signal("NEW")
        await trio.sleep(1)
        assert endpoint.signals == ["OLD", "NEW"]


async def test_a_stream_that_is_gone(autojump_clock: object) -> None:
    async with cuttable(pty_endpoint(ManualSource())) as line:
        attachment = await line.trunk.attach(PTY)
        await line.cut(down=True)
        line.world.host._streams.clear()
        await line.up()
        with pytest.raises(AttachRefused) as caught:
            await attachment.wait()
        assert caught.value.code is Refusal.GONE


async def test_what_came_before_the_end_is_returned_first(autojump_clock: object) -> None:
    source = ManualSource()
    async with open_world(lambda _: pty_endpoint(source)) as world, world.trunk() as trunk:
        attachment = await trunk.attach(PTY)
        source.write(b"last words")
        await world.settle()
        world.host.end(CloseReason.EXPIRED)
        await world.settle()
        assert await read(attachment, 10) == b"last words"
        for _ in range(2):
            with pytest.raises(AttachmentClosed) as caught:
                await attachment.receive()
            assert caught.value.reason is CloseReason.EXPIRED


async def test_an_answer_that_contradicts_what_we_know(autojump_clock: object) -> None:
    """Each closes the link: to go on would lose or repeat bytes."""
    attachment = ClientAttachment(PTY)
    good = Attached(
        stream="s", tag="t", kind=Kind.PTY, mode=Mode.CONTROL, start={Channel.OUTPUT: 0}
    )

    def link_up(answer: Attached) -> None:
        link = Link(carrier_pair()[0], Connection(dialer=True, software="x"))
        id_ = attachment.bind(link)
        unit = encode(Hello(version=1)) + encode(answer, id_)
        for event in link.connection.receive_data(unit, 0.0):
            assert isinstance(event, MessageReceived)
            attachment.received(event)

    with pytest.raises(RemoteProtocolError, match="nothing of channel 1"):
        link_up(msgspec.structs.replace(good, start={}))
    link_up(good)
    attachment.unbind()
    resumed = msgspec.structs.replace(good, resumed=True)
    with pytest.raises(RemoteProtocolError, match="resumed at 5, not at 0"):
        link_up(msgspec.structs.replace(resumed, start={Channel.OUTPUT: 5}))
    attachment.unbind()
    with pytest.raises(RemoteProtocolError, match="input up to 3 accepted"):
        link_up(msgspec.structs.replace(resumed, accepted=3))
    for message in (Exit(), Exit(code=1, signal="X")):
        with pytest.raises(RemoteProtocolError):
            attachment.received(MessageReceived(1, 0, message))
    with pytest.raises(RemoteProtocolError, match="no output 2"):
        attachment.received(MessageReceived(1, 2, Fin(at=0)))
