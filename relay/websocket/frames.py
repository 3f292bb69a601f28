"""The frames of RFC 6455: what there is, and how it is written.  Reading is `relay.websocket.reader`.

No extension is ever negotiated.  Entropy comes in as an argument: masking keys are made by the caller.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, IntEnum

from relay.carrier import Buffer
from relay.protocol.errors import RemoteProtocolError
from relay.websocket.unmasking import apply_mask

MAX_CONTROL_PAYLOAD = 125
"""Bytes a control frame may carry (§5.5)."""


class Role(Enum):
    """Which end of the connection this is; it decides who masks (§5.1)."""

    CLIENT = "client"
    SERVER = "server"


class Opcode(IntEnum):
    """What a frame is (§5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """The status codes that this implementation sends (§7.4.1)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011


class FrameError(RemoteProtocolError):
    """The peer broke RFC 6455; `close_code` is what the connection is failed with."""

    def __init__(self, message: str, close_code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.close_code = close_code


@dataclass(frozen=True, slots=True)
class Text:
    """A whole text message."""

    text: str


@dataclass(frozen=True, slots=True)
class Binary:
    """A piece of a binary message; `final` marks the last piece of it (which may be empty)."""

    data: Buffer
    final: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer asks for a pong with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping, or a heartbeat."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's close frame; `code` None means that it carried none."""

    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class More:
    """Many frames were read without an event (empty or tiny fragments); give others a turn."""


Event = Text | Binary | Ping | Pong | Close | More

FIN = 0x80
MASKED = 0x80
LENGTH_16 = 126
LENGTH_64 = 127

_SHORT = struct.Struct("!BB")
_MEDIUM = struct.Struct("!BBH")
_LONG = struct.Struct("!BBQ")


def is_valid_close_code(code: int) -> bool:
    """Tell whether `code` may appear in a close frame (§7.4, and the IANA registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def encode_header(opcode: Opcode, length: int, *, mask: bytes | None, final: bool = True) -> bytes:
    """Return the header of a frame with `length` bytes of payload (§5.2).

    `mask` is the four-byte key, which a client must and a server must not give.
    """
    first = opcode | (FIN if final else 0)
    second = 0 if mask is None else MASKED
    if length < LENGTH_16:
        header = _SHORT.pack(first, second | length)
    elif length < 1 << 16:
        header = _MEDIUM.pack(first, second | LENGTH_16, length)
    else:
        header = _LONG.pack(first, second | LENGTH_64, length)
    return header if mask is None else header + mask


def encode_frame(
    opcode: Opcode, payload: Buffer, *, mask: bytes | None, final: bool = True
) -> bytes:
    """Return a whole frame in one piece; meant for small ones."""
    header = encode_header(opcode, len(payload), mask=mask, final=final)
    return b"".join((header, payload if mask is None else apply_mask(payload, mask)))


def encode_close_payload(code: int, reason: str) -> bytes:
    """Return the payload of a close frame; the reason is cut, between characters, to fit (§5.5.1).

    Raises:
      ValueError: `code` must not be sent.
    """
    if not is_valid_close_code(code):
        raise ValueError(f"close code {code} must not be sent (RFC 6455 section 7.4)")
    text = reason.encode()[: MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore")
    return code.to_bytes(2, "big") + text.encode()
