from __future__ import annotations

import base64
import json
import signal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.dialects.cloudshell_fog import (
    MAX_CLIENT_FRAME,
    MAX_PAYLOAD,
    OutputEncoder,
    Resize,
    Stdin,
    decode_client_frame,
    exit_frame,
    incomplete_tail,
)
from relay.endpoint import ExitStatus


def stdin(data: bytes) -> str:
    return json.dumps({"type": "stdin", "data_b64": base64.b64encode(data).decode()})


def payload(frame: str) -> bytes:
    decoded = json.loads(frame)
    assert set(decoded) == {"type", "data_b64"}
    assert decoded["type"] == "stdout"
    return base64.b64decode(decoded["data_b64"], validate=True)


# client to server


@given(st.binary(max_size=100))
def test_stdin(data: bytes) -> None:
    assert decode_client_frame(stdin(data)) == Stdin(data)


def test_stdin_as_mime_breaks_its_lines() -> None:
    frame = {"type": "stdin", "data_b64": "aGVs\r\nbG8=\n", "more": 1}
    assert decode_client_frame(json.dumps(frame)) == Stdin(b"hello")


@pytest.mark.parametrize(("columns", "rows"), [(220, 50), (1, 1), (65535, 65535)])
def test_resize(columns: int, rows: int) -> None:
    frame = {"type": "resize", "cols": columns, "rows": rows}
    assert decode_client_frame(json.dumps(frame)) == Resize(columns, rows)


BAD_SIZES: tuple[Any, ...] = (0, -1, 65536, 10**30, 80.0, "80", None, True, [80])


@pytest.mark.parametrize("bad", BAD_SIZES)
def test_sizes_that_no_terminal_has(bad: object) -> None:
    for cols, rows in ((bad, 24), (80, bad)):
        frame = {"type": "resize", "cols": cols, "rows": rows}
        assert decode_client_frame(json.dumps(frame)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "{",
        "null",
        "[]",
        "1",
        '"stdin"',
        "{}",
        '{"type": null}',
        '{"type": ["stdin"]}',
        '{"type": "signal"}',
        '{"type": "Stdin", "data_b64": ""}',
        '{"type": "stdin"}',
        '{"type": "stdin", "data_b64": null}',
        '{"type": "stdin", "data_b64": ["YQ=="]}',
        '{"type": "stdin", "data_b64": "YQ"}',
        '{"type": "stdin", "data_b64": "YQ=="} trailing',
        '{"type": "stdin", "data_b64": "YQ==YQ=="}',
        '{"type": "stdin", "data_b64": "Y Q=="}',
        '{"type": "stdin", "data_b64": "_-8="}',
        '{"type": "stdin", "data_b64": "é"}',
        '{"type": "stdin", "data_b64": "\\ud800"}',
        '{"type": "resize"}',
        '{"type": "resize", "cols": 80}',
        '{"type": "resize", "cols": NaN, "rows": 1}',
        '{"type": "resize", "cols": 1e999, "rows": 1}',
        '{"type": "resize", "cols": ' + "9" * 10_000 + ', "rows": 1}',
        "\ud800",
        '{"type": "\udfff"}',
        "\x00",
        "[" * 500_000,
        '{"a":' * 100_000,
    ],
)
def test_what_is_ignored(text: str) -> None:
    assert decode_client_frame(text) is None


def test_the_longest_frame() -> None:
    empty = len(stdin(b""))
    room = (MAX_CLIENT_FRAME - empty) // 4 * 3
    assert decode_client_frame(stdin(bytes(room))) == Stdin(bytes(room))
    assert decode_client_frame(stdin(bytes(room + 3))) is None


@given(st.text(max_size=50))
def test_no_text_does_harm(text: str) -> None:
    decode_client_frame(text)
    decode_client_frame(json.dumps({"type": "stdin", "data_b64": text}))


# server to client


@st.composite
def utf8(draw: st.DrawFn) -> bytes:
    """Text with many wide characters, once in a while longer than a frame."""
    text = draw(st.text(st.sampled_from("a\né€😀\u0800\ud7ff\ue000\U0010ffff"), max_size=30))
    return text.encode() * draw(st.sampled_from([1, 1, 1, 400, 3000]))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


CUTS = st.lists(st.integers(0, 10**6), max_size=8)
NEARLY_UTF8 = st.lists(
    st.sampled_from([0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF])
    | st.sampled_from([0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF]),
    max_size=40,
).map(bytes)


@given(st.binary(max_size=60) | NEARLY_UTF8 | utf8(), CUTS)
@example(b"\xf0\x9f\x98", [])
@example(b"\xe2\x82" * 20_000, [1, 2])
@example(b"\x80" * 40_000, [])
@example(b"\xf0" * 40_000, [16_385])
def test_every_byte_passes_once_and_in_order(data: bytes, cuts: list[int]) -> None:
    encoder = OutputEncoder()
    frames = []
    for piece in pieces(data, cuts):
        frames += encoder.encode(piece)
        assert encoder.held <= 3
    frames += encoder.flush()
    payloads = [payload(frame) for frame in frames]
    assert b"".join(payloads) == data
    assert all(0 < len(item) <= MAX_PAYLOAD for item in payloads)
    assert encoder.held == 0
    assert encoder.flush() == []


@given(utf8(), CUTS)
@example(("😀" * 10_000).encode(), [1, 16_385, 16_386, 16_387])
def test_every_frame_of_utf8_is_utf8(data: bytes, cuts: list[int]) -> None:
    encoder = OutputEncoder()
    for piece in pieces(data, cuts):
        for frame in encoder.encode(piece):
            payload(frame).decode("utf-8")
    assert encoder.held == 0


@given(NEARLY_UTF8 | st.binary(max_size=8))
def test_only_what_begins_a_character_is_kept_back(data: bytes) -> None:
    tail = incomplete_tail(data)
    kept = data[len(data) - tail :]
    # An oracle: a strict incremental decoder holds exactly the tails that more bytes could finish.
    expected = 0
    for length in range(1, min(3, len(data)) + 1):
        candidate = data[-length:]
        try:
            candidate.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and error.start == 0:
                expected = length
    assert tail == expected
    assert len(kept) == tail


def test_a_character_comes_out_with_its_last_byte() -> None:
    encoder = OutputEncoder()
    *begin, last = (bytes([byte]) for byte in "€".encode())
    assert [encoder.encode(b"a" + begin[0]), encoder.encode(begin[1])] == [
        ['{"type":"stdout","data_b64":"YQ=="}'],
        [],
    ]
    assert [payload(frame) for frame in encoder.encode(last + b"b")] == ["€b".encode()]


def test_what_turns_out_to_be_no_character_is_let_go() -> None:
    encoder = OutputEncoder()
    assert encoder.encode(b"\xe2\x82") == []
    assert [payload(frame) for frame in encoder.encode(b"A")] == [b"\xe2\x82A"]
    assert encoder.encode(b"\xf0\x9f\x98") == []
    assert [payload(frame) for frame in encoder.flush()] == [b"\xf0\x9f\x98"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: type) -> None:
    encoder = OutputEncoder()
    assert encoder.encode(kind(b"x")) == ['{"type":"stdout","data_b64":"eA=="}']
    assert encoder.encode(kind(b"")) == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (ExitStatus(code=0), 0),
        (ExitStatus(code=3), 3),
        (ExitStatus(code=255), 255),
        (ExitStatus(signal="KILL"), 128 + signal.SIGKILL),
        (ExitStatus(signal="SIGTERM"), 128 + signal.SIGTERM),
        (ExitStatus(signal="RTMIN+3"), 255),
    ],
)
def test_exit(status: ExitStatus, code: int) -> None:
    assert json.loads(exit_frame(status)) == {"type": "exit", "code": code}
