"""What a viewer may say passes byte for byte; what acts does not; however it is split."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.endpoint import InputRefusedError
from runtimes.desktop.rfb_filter import FilterStatistics, ViewOnlyFilter

VERSION = b"RFB 003.008\n"
SHAKE = VERSION + b"\x01\x01"
EXTENDED_CLIPBOARD = -1063131698
EXTENDED_MOUSE = -316
TIGHT, CURSOR = 7, -239


def encodings(*numbers: int) -> bytes:
    return struct.pack(f">BxH{len(numbers)}i", 2, len(numbers), *numbers)


def fence(data: bytes) -> bytes:
    return struct.pack(">B3xIB", 248, 1, len(data)) + data


def new_filter(server: bytes = VERSION) -> ViewOnlyFilter:
    made = ViewOnlyFilter()
    made.see_output(server)
    return made


def shaken() -> ViewOnlyFilter:
    made = new_filter()
    assert made.filter(SHAKE) == SHAKE
    return made


@dataclass(frozen=True)
class Said:
    """A message, and what the server gets of it."""

    sent: bytes
    passed: bytes


def passes(message: bytes) -> Said:
    return Said(message, message)


def dropped(message: bytes) -> Said:
    return Said(message, b"")


EXAMPLES = {
    "pixel format": passes(bytes([0]) + bytes(range(19))),
    "no encodings": passes(encodings()),
    "encodings": passes(encodings(TIGHT, 0, CURSOR)),
    "encodings that change the input": Said(
        encodings(TIGHT, EXTENDED_MOUSE, -258, EXTENDED_CLIPBOARD, CURSOR),
        encodings(TIGHT, 0, 0, 0, CURSOR),
    ),
    "update request": passes(struct.pack(">BBHHHH", 3, 1, 1, 2, 3, 4)),
    "continuous updates": passes(struct.pack(">BBHHHH", 150, 1, 1, 2, 3, 4)),
    "fence": passes(fence(b"")),
    "long fence": passes(fence(bytes(range(64)))),
    "key": dropped(struct.pack(">BBxxI", 4, 1, 0x61)),
    "pointer": dropped(struct.pack(">BBHH", 5, 1, 10, 20)),
    "text": dropped(struct.pack(">B3xi", 6, 5) + b"hello"),
    "no text": dropped(struct.pack(">B3xi", 6, 0)),
    "extended clipboard": dropped(struct.pack(">B3xiI", 6, -8, 1 << 28) + b"\x00\x00\x00\x09"),
    "desktop size": dropped(struct.pack(">BxHHBx", 251, 800, 600, 2) + bytes(32)),
    "xvp shutdown": dropped(bytes([250, 0, 1, 2])),
    "QEMU key": dropped(struct.pack(">BBHII", 255, 0, 1, 0x61, 30)),
    "QEMU audio on": dropped(struct.pack(">BBH", 255, 1, 0)),
    "QEMU audio format": dropped(struct.pack(">BBHBBI", 255, 1, 2, 1, 2, 44100)),
}


@pytest.mark.parametrize("said", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_each_message_split_at_each_byte(said: Said) -> None:
    whole, wanted = SHAKE + said.sent * 2, SHAKE + said.passed * 2
    for cut in range(len(whole) + 1):
        one = new_filter()
        assert one.filter(whole[:cut]) + one.filter(whole[cut:]) == wanted


TEXTS = st.binary(max_size=200).map(lambda text: dropped(struct.pack(">B3xi", 6, len(text)) + text))
LISTS = st.lists(st.integers(0, 200), max_size=40).map(lambda found: passes(encodings(*found)))
FENCES = st.binary(max_size=64).map(lambda data: passes(fence(data)))
MESSAGES = st.lists(st.one_of(st.sampled_from(list(EXAMPLES.values())), TEXTS, LISTS, FENCES))


@given(messages=MESSAGES, data=st.data())
def test_any_messages_split_anywhere(messages: list[Said], data: st.DataObject) -> None:
    whole = SHAKE + b"".join(said.sent for said in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    one = new_filter()
    got = b"".join(
        one.filter(whole[start:end])
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
    )
    assert got == SHAKE + b"".join(said.passed for said in messages)
    count = sum(1 for said in messages if said.passed)
    assert one.statistics() == FilterStatistics(count, len(messages) - count)


@given(noise=st.binary(max_size=400))
def test_whatever_comes_no_input_passes(noise: bytes) -> None:
    """Read as a server does what was let through: there is no message that acts."""
    one = shaken()
    try:
        passed = one.filter(noise)
    except InputRefusedError:
        return
    position = 0
    while position < len(passed):
        kind = passed[position]
        assert kind in {0, 2, 3, 150, 248}
        if kind == 2:
            count = int.from_bytes(passed[position + 2 : position + 4], "big")
            position += 4 + 4 * count
        elif kind == 248:
            position += 9 + passed[position + 8]
        else:
            position += {0: 20, 3: 10, 150: 10}[kind]


def test_a_viewer_always_shares() -> None:
    assert new_filter().filter(VERSION + b"\x01\x00") == SHAKE


def test_a_password() -> None:
    response = bytes(range(16))
    said = VERSION + b"\x02" + response + b"\x01" + EXAMPLES["key"].sent
    assert new_filter().filter(said) == VERSION + b"\x02" + response + b"\x01"


def test_an_older_version() -> None:
    older = b"RFB 003.007\n"
    assert new_filter(older).filter(older + b"\x01\x01") == older + b"\x01\x01"
    assert new_filter(VERSION).filter(older) == older


@pytest.mark.parametrize(
    ("server", "said", "words"),
    [
        (b"RFB 003.003\n", VERSION, "has to speak RFB 3.8 or 3.7"),
        (b"RFB 003.007\n", VERSION, "has to speak RFB 3.8 or 3.7"),
        (VERSION, b"RFB 003.003\n", "not 'RFB 003.003'"),
        (VERSION, b"GET / HTTP/1", "has to speak RFB"),
        (b"SSH-2.0-Open", VERSION, "did not greet as a VNC server"),
        (b"RFB 003.0", VERSION, "did not greet as a VNC server"),
        (VERSION, VERSION + b"\x13", "security type 19"),
    ],
)
def test_a_handshake_that_cannot_be_followed(server: bytes, said: bytes, words: str) -> None:
    with pytest.raises(InputRefusedError, match=words):
        new_filter(server).filter(said)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\x01", "unknown RFB message of type 1"),
        (b"\x07", "unknown RFB message of type 7"),
        (struct.pack(">BBH", 255, 7, 0), "unknown QEMU message 7"),
        (struct.pack(">B3xIB", 248, 1, 65), "at most 64 bytes, not 65"),
    ],
)
def test_what_it_does_not_know(message: bytes, words: str) -> None:
    with pytest.raises(InputRefusedError, match=words):
        shaken().filter(message)


def test_little_is_held_back() -> None:
    """A text of 2 GB is dropped as it comes."""
    one = shaken()
    assert one.filter(struct.pack(">B3xi", 6, 0x7FFFFFFF)) == b""
    for _ in range(4):
        assert one.filter(bytes(1 << 20)) == b""
    assert len(one._held) == 0
