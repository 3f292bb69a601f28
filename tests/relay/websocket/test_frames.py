"""The codec alone: what it accepts, what it refuses, and that splitting changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.websocket.frames import (
    Binary,
    Close,
    CloseCode,
    Event,
    FrameError,
    More,
    Opcode,
    Ping,
    Pong,
    Role,
    Text,
    encode_close_payload,
    encode_frame,
    encode_header,
    is_valid_close_code,
)
from relay.websocket.reader import FRAMES_MAX, MERGE_BYTES, MERGED_MAX, FrameReader

MASK = b"\x11\x22\x33\x44"
ROLES = list(Role)


def mask_for(reader: Role) -> bytes | None:
    """The key of frames that `reader` gets: those of a client are masked."""
    return MASK if reader is Role.SERVER else None


def frame(reader: Role, opcode: Opcode, payload: bytes = b"", *, final: bool = True) -> bytes:
    return encode_frame(opcode, payload, mask=mask_for(reader), final=final)


def read_all(reader: FrameReader, data: bytes, *, merge: bool = False) -> Iterator[Event]:
    reader.feed(data)
    while (event := reader.next_event(merge=merge)) is not None:
        yield event


def joined(events: Iterator[Event] | list[Event]) -> list[Event]:
    """Join the pieces of binary messages, and forget the pauses."""
    whole: list[Event] = []
    parts = b""
    for event in events:
        match event:
            case Binary(data, final):
                parts += data
                if final:
                    whole.append(Binary(parts, True))
                    parts = b""
            case More():
                pass
            case _:
                whole.append(event)
    return whole


def test_examples_of_the_rfc() -> None:
    # RFC 6455 section 5.7.
    client = FrameReader(Role.CLIENT)
    assert list(read_all(client, bytes.fromhex("810548656c6c6f"))) == [Text("Hello")]
    server = FrameReader(Role.SERVER)
    masked = bytes.fromhex("818537fa213d7f9f4d5158")
    assert list(read_all(server, masked)) == [Text("Hello")]
    assert list(read_all(client, bytes.fromhex("010348656c80026c6f"))) == [Text("Hello")]
    assert list(read_all(client, bytes.fromhex("890548656c6c6f"))) == [Ping(b"Hello")]
    assert list(read_all(server, bytes.fromhex("8a8537fa213d7f9f4d5158"))) == [Pong(b"Hello")]
    assert encode_header(Opcode.BINARY, 256, mask=None) == bytes.fromhex("827e0100")
    assert encode_header(Opcode.BINARY, 65536, mask=None) == bytes.fromhex("827f0000000000010000")
    assert encode_frame(Opcode.TEXT, b"Hello", mask=bytes.fromhex("37fa213d")) == masked


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_lengths(role: Role, length: int) -> None:
    payload = bytes(i & 0xFF for i in range(length))
    reader = FrameReader(role)
    assert joined(read_all(reader, frame(role, Opcode.BINARY, payload))) == [Binary(payload, True)]
    assert reader.payload_bytes == length
    assert reader.bytes_buffered == 0


@pytest.mark.parametrize("role", ROLES)
def test_control_frames_inside_a_message(role: Role) -> None:
    data = (
        frame(role, Opcode.BINARY, b"ab", final=False)
        + frame(role, Opcode.PING, b"?")
        + frame(role, Opcode.CONTINUATION, b"cd", final=False)
        + frame(role, Opcode.PONG)
        + frame(role, Opcode.CONTINUATION, b"ef")
    )
    assert list(read_all(FrameReader(role), data)) == [
        Binary(b"ab", False),
        Ping(b"?"),
        Binary(b"cd", False),
        Pong(b""),
        Binary(b"ef", True),
    ]


def test_payload_is_handed_on_as_it_arrives() -> None:
    whole = frame(Role.SERVER, Opcode.BINARY, bytes(range(200)) * 10)
    reader = FrameReader(Role.SERVER)
    assert list(read_all(reader, whole[:9])) == [Binary(b"\x00", False)]
    assert list(read_all(reader, whole[9:12])) == [Binary(b"\x01\x02\x03", False)]
    (last,) = read_all(reader, whole[12:])
    assert last == Binary((bytes(range(200)) * 10)[4:], True)


def test_a_client_gets_payload_without_a_copy() -> None:
    data = frame(Role.CLIENT, Opcode.BINARY, b"x" * 1000)
    (event,) = read_all(FrameReader(Role.CLIENT), data)
    assert isinstance(event, Binary)
    assert isinstance(event.data, memoryview)
    assert event.data.obj is data


def test_messages_keep_their_boundaries_unless_merged() -> None:
    role = Role.SERVER
    data = b"".join(frame(role, Opcode.BINARY, part) for part in (b"ab", b"", b"c"))
    assert list(read_all(FrameReader(role), data)) == [
        Binary(b"ab", True),
        Binary(b"", True),
        Binary(b"c", True),
    ]
    assert list(read_all(FrameReader(role), data, merge=True)) == [Binary(b"abc", True)]


def test_merging_leaves_large_pieces_alone_and_stops() -> None:
    role = Role.SERVER
    large = bytes(MERGE_BYTES)
    data = frame(role, Opcode.BINARY, b"ab") + frame(role, Opcode.BINARY, large)
    assert [len(e.data) for e in read_all(FrameReader(role), data, merge=True)] == [  # type: ignore[union-attr]  # all are Binary
        2,
        MERGE_BYTES,
    ]
    data = frame(role, Opcode.BINARY, bytes(MERGE_BYTES - 1)) * 6
    sizes = [len(e.data) for e in read_all(FrameReader(role), data, merge=True)]  # type: ignore[union-attr]  # all are Binary
    assert sum(sizes) == (MERGE_BYTES - 1) * 6
    assert max(sizes) < MERGED_MAX + MERGE_BYTES


@pytest.mark.parametrize("opcode", [Opcode.BINARY, Opcode.TEXT])
@pytest.mark.parametrize("merge", [False, True])
def test_tiny_fragments_give_others_a_turn(opcode: Opcode, merge: bool) -> None:
    role = Role.SERVER
    data = frame(role, opcode, final=False)
    data += frame(role, Opcode.CONTINUATION, final=False) * (FRAMES_MAX * 3)
    events = list(read_all(FrameReader(role), data, merge=merge))
    assert events == [More()] * 3


REFUSED = [
    pytest.param(Role.CLIENT, "c10141", 1002, id="RSV1"),
    pytest.param(Role.CLIENT, "a10141", 1002, id="RSV2"),
    pytest.param(Role.CLIENT, "910141", 1002, id="RSV3"),
    *[pytest.param(Role.CLIENT, f"8{op:x}00", 1002, id=f"opcode {op}") for op in range(3, 8)],
    *[pytest.param(Role.CLIENT, f"8{op:x}00", 1002, id=f"opcode {op}") for op in range(11, 16)],
    pytest.param(Role.CLIENT, "0800", 1002, id="fragmented close"),
    pytest.param(Role.CLIENT, "0900", 1002, id="fragmented ping"),
    pytest.param(Role.CLIENT, "0a00", 1002, id="fragmented pong"),
    pytest.param(Role.CLIENT, "897e0080" + "00" * 128, 1002, id="oversized ping"),
    pytest.param(Role.CLIENT, "887f", 1002, id="oversized close"),
    pytest.param(Role.SERVER, "8100", 1002, id="unmasked from a client"),
    pytest.param(Role.CLIENT, "818000000000", 1002, id="masked from a server"),
    pytest.param(Role.CLIENT, "827e007d", 1002, id="125 in 16 bits"),
    pytest.param(Role.CLIENT, "827f000000000000ffff", 1002, id="65535 in 64 bits"),
    pytest.param(Role.CLIENT, "827f8000000000000000", 1002, id="top bit"),
    pytest.param(Role.CLIENT, "8000", 1002, id="nothing to continue"),
    pytest.param(Role.CLIENT, "02008000" + "8000", 1002, id="nothing left to continue"),
    pytest.param(Role.CLIENT, "01008200", 1002, id="binary inside text"),
    pytest.param(Role.CLIENT, "02008200", 1002, id="binary inside binary"),
    pytest.param(Role.CLIENT, "8101ff", 1007, id="bad UTF-8"),
    pytest.param(Role.CLIENT, "8102c3", None, id="half a character, more to come"),
    pytest.param(Role.CLIENT, "8101c3", 1007, id="half a character at the end"),
    pytest.param(Role.CLIENT, "0101c3" + "800141", 1007, id="bad UTF-8 over fragments"),
    pytest.param(Role.CLIENT, "8103eda080", 1007, id="surrogate"),
    pytest.param(Role.CLIENT, "8105f490", 1007, id="beyond Unicode, before the end"),
    pytest.param(Role.CLIENT, "817e03e9", 1009, id="1001 bytes of text"),
    pytest.param(Role.CLIENT, "017e03e8" + "41" * 1000 + "000141", 1009, id="1000 + 1"),
    pytest.param(Role.CLIENT, "880103", 1002, id="half a close code"),
    *[
        pytest.param(Role.CLIENT, f"8802{code:04x}", 1002, id=f"close {code}")
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    ],
    pytest.param(Role.CLIENT, "880403e8c328", 1007, id="close reason not UTF-8"),
]


@pytest.mark.parametrize(("role", "data", "code"), REFUSED)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "bytewise"])
def test_what_is_refused(role: Role, data: str, code: int | None, split: bool) -> None:
    raw = bytes.fromhex(data)
    reader = FrameReader(role, max_text_bytes=1000)
    pieces = [raw[i : i + 1] for i in range(len(raw))] if split else [raw]

    def feed() -> None:
        for piece in pieces:
            list(read_all(reader, piece))

    if code is None:
        feed()
        return
    with pytest.raises(FrameError) as caught:
        feed()
    assert caught.value.close_code == code
    with pytest.raises(FrameError) as again:
        list(read_all(reader, frame(role, Opcode.PING)))
    assert again.value is caught.value
    assert reader.bytes_buffered == 0


@pytest.mark.parametrize("role", ROLES)
def test_close(role: Role) -> None:
    reader = FrameReader(role)
    payload = encode_close_payload(CloseCode.GOING_AWAY, "draining")
    data = frame(role, Opcode.CLOSE, payload) + b"\xff" * 100
    assert list(read_all(reader, data)) == [Close(1001, "draining")]
    assert list(read_all(reader, b"\xff\xff")) == []
    assert list(read_all(FrameReader(role), frame(role, Opcode.CLOSE))) == [Close(None, "")]


def test_close_payloads() -> None:
    assert encode_close_payload(1000, "") == b"\x03\xe8"
    long = encode_close_payload(1000, "é" * 100)
    assert len(long) == 124
    assert long[2:].decode() == "é" * 61
    with pytest.raises(ValueError, match="1006"):
        encode_close_payload(1006, "")
    assert [c for c in range(990, 1020) if is_valid_close_code(c)] == [
        *range(1000, 1004),
        *range(1007, 1015),
    ]
    assert is_valid_close_code(3000)
    assert is_valid_close_code(4999)


message = st.one_of(
    st.builds(Text, st.text(max_size=300)),
    st.builds(Binary, st.binary(max_size=300), st.just(True)),
    st.builds(Ping, st.binary(max_size=125)),
    st.builds(Pong, st.binary(max_size=125)),
)


def fragments(data: st.DataObject, payload: bytes) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    return [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]


@given(role=st.sampled_from(ROLES), messages=st.lists(message, max_size=8), data=st.data())
def test_any_messages_fragmented_and_split_anywhere(
    role: Role, messages: list[Event], data: st.DataObject
) -> None:
    wire = b""
    for item in messages:
        mask = data.draw(st.binary(min_size=4, max_size=4)) if role is Role.SERVER else None
        match item:
            case Text(text):
                opcode, payload = Opcode.TEXT, text.encode()
            case Binary(content, _):
                opcode, payload = Opcode.BINARY, bytes(content)
            case Ping(payload):
                wire += encode_frame(Opcode.PING, payload, mask=mask)
                continue
            case Pong(payload):
                wire += encode_frame(Opcode.PONG, payload, mask=mask)
                continue
            case _:
                raise AssertionError(item)
        parts = fragments(data, payload)
        for index, part in enumerate(parts):
            wire += encode_frame(
                opcode if index == 0 else Opcode.CONTINUATION,
                part,
                mask=mask,
                final=index == len(parts) - 1,
            )
    reader = FrameReader(role)
    events: list[Event] = []
    for piece in fragments(data, wire):
        events += read_all(reader, piece)
    assert joined(events) == messages
    assert reader.bytes_buffered == 0
    stream = FrameReader(role)
    merged = [e for e in read_all(stream, wire, merge=True) if isinstance(e, Binary)]
    assert b"".join(e.data for e in merged) == b"".join(
        bytes(m.data) for m in messages if isinstance(m, Binary)
    )


@given(
    role=st.sampled_from(ROLES),
    prefix=st.sampled_from([b"", b"\x82\x7e", b"\x01\x83abcd", b"\x88\x82", b"\x02\x00"]),
    pieces=st.lists(st.binary(max_size=60), max_size=6),
    merge=st.booleans(),
)
def test_garbage_raises_only_the_documented_error(
    role: Role, prefix: bytes, pieces: list[bytes], merge: bool
) -> None:
    reader = FrameReader(role, max_text_bytes=100)
    try:
        for piece in [prefix, *pieces]:
            list(read_all(reader, piece, merge=merge))
    except FrameError as error:
        caught = error
    else:
        return
    assert is_valid_close_code(caught.close_code)
    assert str(caught)
