"""The terminal frames of cloudshell-fog: JSON text messages with base64 inside.  Sans-I/O.

    client → server   {"type":"stdin","data_b64":…}    {"type":"resize","cols":…,"rows":…}
    server → client   {"type":"stdout","data_b64":…}   {"type":"exit","code":…}

Two things are done better than by the server that this dialect comes from, and both are within
what its reference says:

* Its clients decode each frame as UTF-8 by itself, and the browser's throws the whole frame away
  where a character is cut in two.  So no frame cuts one: up to three bytes that begin a character
  at the end of the output are kept back until the rest of it comes.  Output that is not UTF-8
  passes as it is.
* ``exit`` always carries its code, 0 included, and it is the real one.
"""

from __future__ import annotations

import binascii
import signal
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from relay.carrier import Buffer
from relay.endpoint import ExitStatus

MAX_CLIENT_FRAME = 1024 * 1024
"""Characters of a client's frame; longer ones are ignored."""

MAX_PAYLOAD = 16 * 1024
"""Bytes of output in one frame.

The original server never sent more than 4 KiB, but nothing in its reference or its clients
depends on that.  16 KiB make a message of 22 KiB, below the 32 KiB that the strictest of the
usual WebSocket libraries accept by default, and a quarter of the frames for the same output.
"""

MAX_CELLS = 0xFFFF
"""Columns or rows of a terminal (a Linux `winsize` holds 16 bits)."""

SIGNAL_EXIT_BASE = 128
"""Added to the number of the signal that killed a process, as shells do."""

UNKNOWN_SIGNAL_EXIT = 255
"""The code of a process killed by a signal that has no number here."""


@dataclass(frozen=True, slots=True)
class Stdin:
    """The client typed `data`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """The client's terminal has another size: 1..65535 each."""

    columns: int
    rows: int


ClientFrame = Stdin | Resize


def decode_client_frame(text: str) -> ClientFrame | None:
    """Read a client's frame; None means that it is to be ignored.

    Frames of an unknown type, broken JSON or base64, sizes that no terminal has, and frames of
    more than `MAX_CLIENT_FRAME` characters are ignored, as the original server does.  Never
    raises.
    """
    if len(text) > MAX_CLIENT_FRAME:
        return None
    try:
        frame = msgspec.json.decode(text)
    except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors
        return None
    if not isinstance(frame, dict):
        return None
    match frame.get("type"):
        case "stdin":
            return _stdin(frame.get("data_b64"))
        case "resize":
            return _resize(frame.get("cols"), frame.get("rows"))
        case _:
            return None


def _stdin(data: object) -> Stdin | None:
    if not isinstance(data, str):
        return None
    try:
        # Line breaks inside are allowed, as in MIME; the original's decoder skips them too.
        return Stdin(b64decode(data.replace("\n", "").replace("\r", ""), validate=True))
    except (binascii.Error, ValueError):  # the latter: characters outside of ASCII
        return None


def _resize(columns: object, rows: object) -> Resize | None:
    match columns, rows:
        case (bool(), _) | (_, bool()):
            return None
        case int(), int() if 1 <= columns <= MAX_CELLS and 1 <= rows <= MAX_CELLS:
            return Resize(columns, rows)
        case _:
            return None


class OutputEncoder:
    """Turns the output of a terminal into frames.

    The payloads of all frames, joined, are the output.  At most three bytes are kept between
    calls.
    """

    def __init__(self) -> None:
        self._held = b""

    @property
    def held(self) -> int:
        """How many bytes wait for the rest of their character: 0..3."""
        return len(self._held)

    def encode(self, data: Buffer) -> list[str]:
        """Return the frames for `data`; none where it only begins a character."""
        output = self._held + bytes(data)
        keep = incomplete_tail(output)
        self._held = output[len(output) - keep :]
        return list(_frames(output[: len(output) - keep]))

    def flush(self) -> list[str]:
        """Return the frame with the bytes kept back, if any: the output has ended."""
        held, self._held = self._held, b""
        return list(_frames(held))


def exit_frame(status: ExitStatus) -> str:
    """Return the frame that tells how the process ended: its code, or 128 + signal number."""
    code = status.code if status.signal is None else _signal_exit(status.signal)
    return f'{{"type":"exit","code":{code}}}'


def _signal_exit(name: str) -> int:
    number = signal.Signals.__members__.get("SIG" + name.removeprefix("SIG"))
    return UNKNOWN_SIGNAL_EXIT if number is None else SIGNAL_EXIT_BASE + number


def _frames(output: bytes) -> Iterator[str]:
    start = 0
    while start < len(output):
        end = start + MAX_PAYLOAD
        if end < len(output):
            end -= incomplete_tail(output[end - 3 : end])
        payload = b64encode(output[start:end]).decode("ascii")
        yield f'{{"type":"stdout","data_b64":"{payload}"}}'
        start = end


_LENGTHS: Mapping[int, int] = MappingProxyType(
    {
        **dict.fromkeys(range(0xC2, 0xE0), 2),
        **dict.fromkeys(range(0xE0, 0xF0), 3),
        **dict.fromkeys(range(0xF0, 0xF5), 4),
    }
)
"""Bytes of a character, by its first byte (Unicode, table 3-7); the others begin none."""

_SECOND: Mapping[int, range] = MappingProxyType(
    {
        0xE0: range(0xA0, 0xC0),
        0xED: range(0x80, 0xA0),
        0xF0: range(0x90, 0xC0),
        0xF4: range(0x80, 0x90),
    }
)
"""The first bytes that narrow what may come second; after the others it is `_CONTINUATION`."""

_CONTINUATION = range(0x80, 0xC0)


def incomplete_tail(data: bytes) -> int:
    """Return how many bytes at the end begin a UTF-8 character and do not finish it: 0..3.

    Bytes that no character begins with, or that no byte to come could complete, do not count:
    they are not UTF-8, and waiting would not help.
    """
    for length in range(1, min(3, len(data)) + 1):
        first = data[-length]
        if first in _CONTINUATION:
            continue
        if _LENGTHS.get(first, 0) <= length:
            return 0
        if length >= 2 and data[1 - length] not in _SECOND.get(first, _CONTINUATION):
            return 0
        return length
    return 0
