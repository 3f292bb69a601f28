"""The mux, and a peer that keeps to no rule."""

from __future__ import annotations

import itertools
import random

import pytest

from relay.endpoint import Channel, Kind
from relay.protocol.connection import (
    MAX_BACKLOG,
    MAX_STREAM_ID,
    MAX_STREAMS,
    Connection,
)
from relay.protocol.errors import LocalProtocolError, RemoteProtocolError
from relay.protocol.frames import (
    MAX_CONTROL_BYTES,
    ControlFrame,
    FrameDecoder,
    FrameType,
    encode_control,
    encode_data_header,
)
from relay.protocol.messages import (
    MAX_TEXT,
    MESSAGES,
    Attach,
    Closed,
    Credit,
    Detach,
    Exit,
    Fin,
    Gap,
    GoAway,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    Resize,
    Resume,
    Screen,
    Signal,
    Stop,
    encode,
)
from relay.protocol.reasons import CloseReason, Refusal
from relay.protocol.ring import ReplayRing
from relay.protocol.windows import ReceiveWindow
from tests.testing.pair import (
    ANSWER,
    ATTACH,
    HELLO,
    fresh,
    full_ring,
    receive,
    sent,
)


@pytest.mark.parametrize(
    "first",
    [
        encode(Ping(id=1)),
        encode(GoAway(reason=CloseReason.DRAINING)),
        encode(ATTACH, 1),
        encode_control(0x55, 0, 0, b""),
        encode_data_header(1, 0, 0, 1) + b"x",
        encode(Hello(version=2)),
    ],
)
def test_hello_comes_first(first: bytes) -> None:
    connection = Connection(dialer=False, software="ours")
    with pytest.raises(RemoteProtocolError, match=r"HELLO|version 2"):
        receive(connection, first)


def test_hello_comes_once_and_tells_the_software() -> None:
    connection = fresh()
    assert connection.peer_software == "raw"
    with pytest.raises(RemoteProtocolError, match="Hello"):
        receive(connection, HELLO)


@pytest.mark.parametrize("type_", [*MESSAGES, FrameType.DATA])
@pytest.mark.parametrize("stream", [0, 1, 2, 3])
@pytest.mark.parametrize("dialer", [True, False])
def test_every_frame_where_nothing_is_open(type_: FrameType, stream: int, dialer: bool) -> None:
    """Anything but a frame of the link, or an ATTACH with the next id of the peer, is an error."""
    connection = fresh(dialer=dialer)
    payload = bytes(8) + b"x" if type_ is FrameType.DATA else MINIMAL[type_]
    wire = encode_control(type_, stream, 0, payload)
    link = {FrameType.PING, FrameType.PONG, FrameType.GOAWAY}
    theirs = stream > 0 and stream % 2 == (0 if dialer else 1)
    if (stream == 0 and type_ in link) or (type_ is FrameType.ATTACH and theirs):
        receive(connection, wire)
        return
    with pytest.raises(RemoteProtocolError):
        receive(connection, wire)


def minimal(message: Message) -> bytes:
    (frame,) = FrameDecoder().feed(encode(message))
    assert isinstance(frame, ControlFrame)
    return frame.payload


MINIMAL: dict[FrameType, bytes] = {
    FrameType.HELLO: minimal(Hello(version=1)),
    FrameType.CREDIT: minimal(Credit()),
    FrameType.GAP: minimal(Gap(start=0, to=1)),
    FrameType.FIN: minimal(Fin(at=0)),
    FrameType.ATTACH: minimal(ATTACH),
    FrameType.ATTACHED: minimal(ANSWER),
    FrameType.REFUSED: minimal(Refused(code=Refusal.BUSY)),
    FrameType.DETACH: minimal(Detach()),
    FrameType.CLOSED: minimal(Closed(reason=CloseReason.EXITED)),
    FrameType.EXIT: minimal(Exit(code=0)),
    FrameType.RESIZE: minimal(Resize(columns=1, rows=1)),
    FrameType.SIGNAL: minimal(Signal(number=1, name="INT")),
    FrameType.PING: minimal(Ping(id=1)),
    FrameType.PONG: minimal(Pong(id=1)),
    FrameType.GOAWAY: minimal(GoAway(reason=CloseReason.DRAINING)),
    FrameType.STOP: minimal(Stop()),
    FrameType.SCREEN: minimal(Screen(data=b"", at=0, columns=1, rows=1)),
}


@pytest.mark.parametrize("type_", [t for t in MINIMAL if t is not FrameType.DETACH])
def test_nothing_but_detach_before_the_answer(type_: FrameType) -> None:
    connection = fresh()
    receive(connection, encode(ATTACH, 1))
    with pytest.raises(RemoteProtocolError):
        receive(connection, encode_control(type_, 1, 0, MINIMAL[type_]))


@pytest.mark.parametrize("channel", [0, 1, 2, 3, 255])
@pytest.mark.parametrize("type_", [FrameType.DATA, FrameType.FIN, FrameType.STOP, FrameType.CREDIT])
def test_a_viewer_that_writes(type_: FrameType, channel: int) -> None:
    """Bytes on a channel that nobody reads break the link; STOP and CREDIT there mean nothing."""
    connection = fresh()
    receive(connection, encode(ATTACH, 1))
    connection.accept(1, ANSWER)
    payload = bytes(8) + b"x" if type_ is FrameType.DATA else MINIMAL[type_]
    wire = encode_control(type_, 1, channel, payload)
    if type_ in {FrameType.STOP, FrameType.CREDIT}:
        receive(connection, wire)
        return
    with pytest.raises(RemoteProtocolError, match="nobody reads"):
        receive(connection, wire)


@pytest.mark.parametrize("ids", [(2,), (1, 1), (3, 1), (5, 4)])
def test_ids_that_cannot_be(ids: tuple[int, ...]) -> None:
    connection = fresh()
    with pytest.raises(RemoteProtocolError, match="ATTACH with id"):
        receive(connection, *(encode(ATTACH, id_) for id_ in ids))


def test_ids_grow_and_may_skip() -> None:
    connection = fresh()
    assert len(receive(connection, *(encode(ATTACH, id_) for id_ in (1, 3, 101, 2**32 - 1)))) == 4


def test_ids_run_out() -> None:
    connection = fresh(dialer=True)
    connection._next_id = MAX_STREAM_ID
    assert connection.attach(ATTACH) == MAX_STREAM_ID
    with pytest.raises(LocalProtocolError, match="no stream ids left"):
        connection.attach(ATTACH)


def test_too_many_streams() -> None:
    ours, theirs = fresh(dialer=True), fresh()
    ids = [ours.attach(ATTACH) for _ in range(MAX_STREAMS)]
    with pytest.raises(LocalProtocolError, match="at most 256"):
        ours.attach(ATTACH)
    receive(theirs, b"".join(encode(ATTACH, id_) for id_ in ids))
    assert theirs.statistics().streams == MAX_STREAMS
    with pytest.raises(RemoteProtocolError, match="more than 256"):
        receive(theirs, encode(ATTACH, ids[-1] + 2))


def test_a_request_that_is_too_long_takes_no_id() -> None:
    connection = fresh(dialer=True)
    resume = Resume(stream="x" * MAX_CONTROL_BYTES, have={})
    with pytest.raises(LocalProtocolError, match="frame takes"):
        connection.attach(Attach(attachment="a" * 16, kind=Kind.PTY, tag="t", resume=resume))
    assert connection.statistics().streams == 0
    assert connection.attach(ATTACH) == 1


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (encode_data_header(1, 1, 1, 1) + b"x", "offset 1, expected 0"),
        (encode_data_header(1, 1, 0, 11) + b"x" * 11, "credit given up to 10"),
        (encode(Gap(start=5, to=9), 1, 1), "gap 5..9"),
        (encode(Gap(start=0, to=0), 1, 1), "gap 0..0"),
        (encode(Fin(at=3), 1, 1), "FIN at 3, expected 0"),
        (encode(Gap(start=0, to=3), 1, 2), "channel 2, which nobody reads"),
        (encode(Credit(ack=1), 1, 0), "1 acknowledged, 0 sent"),
        (encode(ANSWER, 1), "ATTACHED for a stream that is OPEN"),
        (encode(ATTACH, 1), "ATTACH with id 1"),
        (encode(Detach(), 1), "DETACH for a stream"),
        (encode(Resize(columns=1, rows=1), 1), "RESIZE for a stream"),
    ],
)
def test_an_owner_that_breaks_the_rules(frame: bytes, match: str) -> None:
    connection = fresh(dialer=True)
    connection.attach(ATTACH)
    receive(connection, encode(ANSWER, 1))
    connection.open_receiver(1, Channel.OUTPUT, ReceiveWindow(0, 10))
    connection.open_sender(1, Channel.INPUT, ReplayRing(10), 0, 0)
    with pytest.raises(RemoteProtocolError, match=match):
        receive(connection, frame)


def test_nothing_comes_after_fin() -> None:
    connection = fresh(dialer=True)
    connection.attach(ATTACH)
    receive(connection, encode(ANSWER, 1))
    connection.open_receiver(1, Channel.OUTPUT, ReceiveWindow(0, 10))
    receive(connection, encode(Fin(at=0), 1, 1))
    with pytest.raises(RemoteProtocolError, match="nobody reads"):
        receive(connection, encode_data_header(1, 1, 0, 1) + b"x")


def test_a_peer_that_asks_and_does_not_read() -> None:
    connection = fresh()

    def flood() -> None:
        for id_ in itertools.count(1, 2):
            receive(connection, encode(ATTACH, id_) + encode(Detach(), id_))
            assert connection.statistics().backlog <= MAX_BACKLOG + 100

    with pytest.raises(RemoteProtocolError, match="not read") as caught:
        flood()
    assert caught.value.reason is CloseReason.SLOW_READER
    reading = fresh()
    for id_ in range(1, 200_001, 2):
        receive(reading, encode(ATTACH, id_) + encode(Detach(), id_))
        reading.next_send()
    assert reading.statistics().streams == 0


def test_unknown_frames_are_skipped() -> None:
    connection = fresh()
    wire = encode_control(0x40, 12345, 9, b"anything")
    assert receive(connection, wire + encode(Ping(id=1))) == []
    assert sent(connection) == [(0, 0, Pong(id=1))]


def test_long_reasons_are_cut_to_what_a_frame_takes() -> None:
    ours, theirs = fresh(), fresh(dialer=True)
    for _ in range(2):
        theirs.attach(ATTACH)
    receive(ours, b"".join(theirs.next_send()))
    long = "a\udcff" * 50_000
    ours.refuse(1, Refused(code=Refusal.START_FAILED, message=long))
    ours.accept(3, ANSWER)
    ours.close(3, CloseReason.INTERNAL_ERROR, long)
    ours.go_away(CloseReason.PROTOCOL_ERROR, long)
    refused, _, closed, goaway = receive(theirs, b"".join(ours.next_send()))
    for message in (refused, closed, goaway):
        assert isinstance(message, Refused | Closed | GoAway)
        assert len(message.message) == MAX_TEXT


def test_random_garbage_never_raises_anything_else() -> None:
    chance = random.Random(1)
    valid = [
        encode_control(t, s, c, p) for t, p in MINIMAL.items() for s in (0, 1, 3) for c in (0, 1)
    ]
    valid.append(encode_data_header(1, 0, 0, 4) + b"abcd")
    broken = 0
    for _ in range(3000):
        connection = fresh()
        receive(connection, encode(ATTACH, 1))
        connection.accept(1, ANSWER)
        connection.open_receiver(1, Channel.INPUT, ReceiveWindow(0, 100))
        connection.open_sender(1, Channel.OUTPUT, full_ring(100), 0, 10)
        wire = bytearray(b"".join(chance.choices(valid, k=chance.randint(1, 6))))
        for _ in range(chance.randint(0, 3)):
            wire[chance.randrange(len(wire))] = chance.randrange(256)
        try:
            for _ in connection.receive_data(wire, 0.0):
                pass
        except RemoteProtocolError:
            broken += 1
        connection.next_send()
    assert 0 < broken < 3000
