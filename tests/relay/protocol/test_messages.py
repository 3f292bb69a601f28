"""Payloads: round trips, an independent reader, and what is refused."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.endpoint import Channel, Kind, Overflow
from relay.grant import Mode
from relay.protocol.errors import LocalProtocolError, RemoteProtocolError
from relay.protocol.frames import (
    HEADER,
    MAX_CONTROL_BYTES,
    MAX_OFFSET,
    ControlFrame,
    FrameDecoder,
    FrameType,
)
from relay.protocol.messages import (
    MAX_SCREEN_PART,
    MAX_TEXT,
    MESSAGES,
    Attach,
    Attached,
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
    Start,
    Stop,
    check,
    decode,
    encode,
    readable,
)
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason, Refusal

offsets = st.integers(0, MAX_OFFSET - 1)
maybe_offset = st.none() | offsets
texts = st.text(st.characters(codec="utf-8"), max_size=30)
process_strings = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
cells = st.integers(1, 0xFFFF)
tags = st.from_regex(r"\A[A-Za-z0-9._-]{1,64}\Z")
attachment_ids = st.from_regex(r"\A[A-Za-z0-9_-]{16,64}\Z")
channel_offsets = st.dictionaries(st.sampled_from(Channel), offsets)

starts = st.builds(
    Start,
    command=st.lists(process_strings, max_size=3),
    environment=st.dictionaries(process_strings, process_strings, max_size=3),
    directory=st.none() | process_strings,
    overflow=st.none() | st.sampled_from(Overflow),
    restart=st.booleans(),
)
STRATEGIES: dict[type[Message], st.SearchStrategy[Any]] = {
    Hello: st.builds(Hello, version=st.integers(0, 2**31), software=texts),
    Credit: st.builds(Credit, ack=maybe_offset, up_to=maybe_offset),
    Gap: st.builds(Gap, start=offsets, to=offsets, screen=st.booleans()),
    Fin: st.builds(Fin, at=offsets),
    Attach: st.builds(
        Attach,
        attachment=attachment_ids,
        generation=offsets,
        kind=st.sampled_from(Kind),
        tag=tags,
        mode=st.sampled_from(Mode),
        policy=st.none() | st.sampled_from(Policy),
        start=st.none() | starts,
        columns=st.none() | cells,
        rows=st.none() | cells,
        takeover=st.booleans(),
        replay=st.sampled_from(["all", "none", "screen"]),
        resume=st.none()
        | st.builds(Resume, stream=texts, have=channel_offsets, screen=st.booleans()),
        window=channel_offsets,
    ),
    Attached: st.builds(
        Attached,
        stream=texts,
        tag=tags,
        kind=st.sampled_from(Kind),
        mode=st.sampled_from(Mode),
        pid=st.none() | st.integers(1, 2**22),
        started=st.booleans(),
        resumed=st.booleans(),
        start=channel_offsets,
        live=offsets,
        accepted=offsets,
        credit=offsets,
        signals=offsets,
        stopped=st.booleans(),
        screen=st.booleans(),
    ),
    Refused: st.builds(Refused, code=st.sampled_from(Refusal), message=texts),
    Detach: st.just(Detach()),
    Closed: st.builds(Closed, reason=st.sampled_from(CloseReason), message=texts),
    Exit: st.builds(Exit, code=st.none() | st.integers(0, 255), signal=st.none() | texts),
    Resize: st.builds(Resize, columns=cells, rows=cells),
    Signal: st.builds(
        Signal,
        number=st.integers(1, MAX_OFFSET - 1),
        name=st.from_regex(r"\A[A-Z0-9]{1,16}\Z"),
    ),
    Ping: st.builds(Ping, id=offsets),
    Pong: st.builds(Pong, id=offsets),
    GoAway: st.builds(
        GoAway,
        reason=st.sampled_from(CloseReason),
        message=texts,
        retry_after=st.none() | st.floats(0, 1e6),
    ),
    Stop: st.just(Stop()),
    Screen: st.builds(
        Screen,
        data=st.binary(max_size=100),
        at=offsets,
        columns=cells,
        rows=cells,
        last=st.booleans(),
    ),
}
messages = st.one_of(*STRATEGIES.values())


def frame_of(message: Message, stream: int = 5, channel: int = 0) -> ControlFrame:
    (frame,) = FrameDecoder().feed(encode(message, stream, channel))
    assert isinstance(frame, ControlFrame)
    return frame


def test_every_message_has_a_strategy_and_a_type() -> None:
    assert set(STRATEGIES) == set(MESSAGES.values())
    assert set(MESSAGES) == set(FrameType) - {FrameType.DATA}


@given(messages)
def test_round_trip(message: Message) -> None:
    assert decode(frame_of(message)) == message


@given(messages)
def test_another_msgpack_reads_and_writes_the_same_maps(message: Message) -> None:
    frame = frame_of(message)
    fields = msgpack.unpackb(frame.payload, strict_map_key=False)
    assert isinstance(fields, dict)
    assert all(isinstance(key, str) for key in fields)
    fields["a key of a later version"] = {"any": [1, 2.5, None, b"\xff"]}
    again = ControlFrame(frame.type, frame.stream, frame.channel, msgpack.packb(fields))
    assert decode(again) == message


def test_names_on_the_wire() -> None:
    gap = msgpack.unpackb(encode(Gap(start=1, to=2))[HEADER.size :])
    assert gap == {"from": 1, "to": 2}
    attached = Attached(
        stream="s", tag="t", kind=Kind.EXEC, mode=Mode.VIEW, start={Channel.ERROR: 7}
    )
    fields = msgpack.unpackb(encode(attached)[HEADER.size :], strict_map_key=False)
    assert fields == {"stream": "s", "tag": "t", "kind": "exec", "mode": "view", "from": {2: 7}}


ATTACH = {"attachment": "a" * 16, "kind": "pty", "tag": "main"}


@pytest.mark.parametrize(
    ("type_", "fields"),
    [
        (FrameType.HELLO, {}),
        (FrameType.HELLO, {"version": "1"}),
        (FrameType.CREDIT, {"ack": -1}),
        (FrameType.CREDIT, {"up_to": MAX_OFFSET}),
        (FrameType.CREDIT, {"up_to": 1.5}),
        (FrameType.GAP, {"from": 1}),
        (FrameType.FIN, {"at": True}),
        (FrameType.ATTACH, ATTACH | {"attachment": "short"}),
        (FrameType.ATTACH, ATTACH | {"attachment": "a" * 65}),
        (FrameType.ATTACH, ATTACH | {"attachment": "a" * 15 + "/"}),
        (FrameType.ATTACH, ATTACH | {"attachment": "a" * 16 + "\n"}),
        (FrameType.ATTACH, ATTACH | {"tag": ""}),
        (FrameType.ATTACH, ATTACH | {"tag": "../etc"}),
        (FrameType.ATTACH, ATTACH | {"tag": "x" * 65}),
        (FrameType.ATTACH, ATTACH | {"kind": "printer"}),
        (FrameType.ATTACH, ATTACH | {"mode": "admin"}),
        (FrameType.ATTACH, ATTACH | {"columns": 0}),
        (FrameType.ATTACH, ATTACH | {"rows": 65536}),
        (FrameType.ATTACH, ATTACH | {"replay": "some"}),
        (FrameType.ATTACH, ATTACH | {"window": {9: 1}}),
        (FrameType.ATTACH, ATTACH | {"window": {1: -1}}),
        (FrameType.ATTACH, ATTACH | {"start": {"command": ["a\0b"]}}),
        (FrameType.ATTACH, ATTACH | {"start": {"environment": {"A\0": "b"}}}),
        (FrameType.ATTACH, ATTACH | {"start": {"overflow": "explode"}}),
        (FrameType.ATTACH, ATTACH | {"resume": {"stream": "s"}}),
        (FrameType.EXIT, {"code": 256}),
        (FrameType.EXIT, {"code": -1}),
        (FrameType.SIGNAL, {"number": 0, "name": "INT"}),
        (FrameType.SIGNAL, {"number": 1, "name": "int"}),
        (FrameType.SIGNAL, {"number": 1, "name": ""}),
        (FrameType.RESIZE, {"columns": 80}),
        (FrameType.PING, {}),
        (FrameType.GOAWAY, {"reason": "boredom"}),
        (FrameType.GOAWAY, {"reason": "draining", "retry_after": -1}),
        (FrameType.GOAWAY, {"reason": "draining", "retry_after": float("nan")}),
        (FrameType.REFUSED, {"code": "no"}),
        (FrameType.SCREEN, {"at": 0, "columns": 1, "rows": 1, "data": "text"}),
        (
            FrameType.SCREEN,
            {"at": 0, "columns": 1, "rows": 1, "data": bytes(MAX_SCREEN_PART + 1)},
        ),
        (FrameType.HELLO, {"version": 1, "software": "x" * (MAX_TEXT + 1)}),
    ],
)
def test_bad_fields(type_: FrameType, fields: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError, match=type_.name):
        decode(ControlFrame(type_, 1, 0, msgpack.packb(fields)))


@pytest.mark.parametrize("type_", list(MESSAGES))
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\xc0",
        b"\x90",
        b"\xa1x",
        b"\x81\xa2id",  # cut short
        b"\x80\x80",  # two maps
        b"\x81\x01\x02",  # an integer key
        b"\x81\x90\x01",  # a list as key
        b"\x81\x80\x01",  # a map as key
        b"\xdf\xff\xff\xff\xff",  # a map that claims four billion entries
        b"\x91" * 60_000,  # deep
        b"\x81\xa1x" * 20_000,  # deep
        b"\x81\xa1x" + b"\x91" * 60_000 + b"\xc0",  # deep, under a key that is not known
        b"\xd6\xff\x00\x00\x00\x00",  # an extension
    ],
)
def test_bad_payloads(type_: FrameType, payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=type_.name):
        decode(ControlFrame(type_, 1, 0, payload))


@given(st.sampled_from(list(MESSAGES)), st.binary(max_size=60))
def test_garbage_is_a_message_or_a_protocol_error(type_: FrameType, payload: bytes) -> None:
    for start in (b"", b"\x81\xa2id", b"\x82", b"\xde\x00\x02"):
        try:
            message = decode(ControlFrame(type_, 1, 0, start + payload))
        except RemoteProtocolError:
            continue
        assert isinstance(message, MESSAGES[type_])


def test_a_text_that_is_not_utf8() -> None:
    payload = msgpack.packb({"version": 1, "software": "xx"}).replace(b"xx", b"\xff\xff")
    with pytest.raises(RemoteProtocolError, match="HELLO"):
        decode(ControlFrame(FrameType.HELLO, 0, 0, payload))


def test_an_unknown_type_is_no_message() -> None:
    assert decode(ControlFrame(0x77, 1, 0, b"\xc1")) is None


def test_what_does_not_fit_a_frame_is_our_own_fault() -> None:
    start = Start(command=["x" * MAX_CONTROL_BYTES])
    attach = Attach(attachment="a" * 16, kind=Kind.EXEC, tag="t", start=start)
    with pytest.raises(LocalProtocolError, match="frame takes 65536"):
        encode(attach)
    with pytest.raises(ValueError, match="frame takes 65536"):
        check(attach)


def test_check_finds_what_a_peer_would_not_take() -> None:
    check(Signal(number=1, name="INT"))
    with pytest.raises(ValueError, match=r"not a valid Signal: .* at `\$.name`"):
        check(Signal(number=1, name="sigint"))
    with pytest.raises(ValueError, match=r"not a valid Attach: .* at `\$.tag`"):
        check(Attach(attachment="a" * 16, kind=Kind.EXEC, tag="no spaces"))


@given(st.text(max_size=3 * MAX_TEXT))
def test_readable_texts_travel(text: str) -> None:
    message = Closed(reason=CloseReason.REVOKED, message=readable(text))
    assert decode(frame_of(message)) == message


def test_readable_changes_only_what_it_must() -> None:
    assert readable("grüße €") == "grüße €"
    assert readable("x" * MAX_TEXT) == "x" * MAX_TEXT
    long = readable("x" * (MAX_TEXT + 1))
    assert len(long) == MAX_TEXT
    assert long.endswith("x…")
    assert readable("\udcff") == "?"


def test_messages_are_immutable() -> None:
    message = Ping(id=1)
    with pytest.raises(AttributeError):
        message.id = 2  # type: ignore[misc]  # that is the point
    assert msgspec.structs.asdict(message) == {"id": 1}
