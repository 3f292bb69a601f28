"""Payloads of the control frames (§ 2, § 5): typed, validated, encoded as msgpack maps.

Keys that are not known are ignored, so that a later version can add some; a known key with a wrong
type or an impossible value is a protocol error.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgpack
import msgspec

from relay.endpoint import Channel, FileOperation, Kind, Overflow
from relay.grant import Mode
from relay.protocol.errors import LocalProtocolError, RemoteProtocolError
from relay.protocol.frames import (
    HEADER,
    MAX_CONTROL_BYTES,
    MAX_OFFSET,
    ControlFrame,
    FrameType,
    encode_control,
)
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason, Refusal

VERSION = 1
MAX_TEXT = 4096
"""Characters in a text that is for people to read (§ 2, Limits)."""
MAX_SCREEN_PART = 48 * 1024
"""Bytes of `data` in one SCREEN (§ 2, Limits)."""
MAX_SCREEN = 1024 * 1024
"""Bytes of all the SCREEN frames that belong together (§ 2, Limits)."""

Offset = Annotated[int, msgspec.Meta(ge=0, le=MAX_OFFSET - 1)]
Cells = Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)]
Tag = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]
AttachmentId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{16,64}\Z")]
ChannelOffsets = dict[Channel, Offset]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
ProcessString = Annotated[str, msgspec.Meta(pattern=r"\A[^\0]*\Z")]
"""A string that execve(2) can take: no NUL in it."""
Replay = Literal["all", "none", "screen"]
"""What a new attachment gets of what was there before it (§ 5)."""
Path = Annotated[str, msgspec.Meta(pattern=r"\A[^\0]{1,4096}\Z")]

Checksum = Annotated[
    str,
    msgspec.Meta(pattern=r"\A(sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z"),
]


class _Map(msgspec.Struct, frozen=True):
    """A msgpack map with string keys."""


class Hello(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """The first frame of each side (§ 3)."""

    version: int
    software: Text = ""


class Credit(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """Permission to send up to an offset, and what need not be kept any more (§ 4)."""

    ack: Offset | None = None
    up_to: Offset | None = None


class Gap(_Map, frozen=True, kw_only=True, omit_defaults=True, rename={"start": "from"}):
    """Bytes that no longer exist (§ 4); `screen`: SCREEN follows, which makes up for them."""

    start: Offset
    to: Offset
    screen: bool = False


class Fin(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """The end of a channel (§ 4)."""

    at: Offset


class FileStart(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """An operation on a file (§ 6)."""

    operation: FileOperation
    path: Path
    target: Path | None = None
    offset: Offset = 0
    length: Offset | None = None
    size: Offset | None = None
    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")] | None = None
    checksum: Checksum | None = None
    digest: bool = False
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)] | None = None
    modified: Offset | None = None
    upload: AttachmentId | None = None
    note: Text | None = None
    depth: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    parents: bool = False
    recursive: bool = False
    overwrite: bool = True
    if_match: Text | None = None


class Start(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """What to run when no stream has the tag (§ 5, § 6)."""

    command: list[ProcessString] = []
    environment: dict[ProcessString, ProcessString] = {}
    directory: ProcessString | None = None
    user: Annotated[ProcessString, msgspec.Meta(max_length=256)] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0, le=366 * 86400)] | None = None
    overflow: Overflow | None = None
    restart: bool = False
    port: Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)] | None = None
    path: Path | None = None
    file: FileStart | None = None


class Resume(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """Where to go on (§ 5)."""

    stream: Text
    have: ChannelOffsets
    screen: bool = False


class Attach(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """A request to attach (§ 5)."""

    attachment: AttachmentId
    generation: Offset = 0
    kind: Kind
    tag: Tag
    mode: Mode = Mode.CONTROL
    policy: Policy | None = None
    start: Start | None = None
    columns: Cells | None = None
    rows: Cells | None = None
    takeover: bool = False
    replay: Replay = "all"
    resume: Resume | None = None
    window: ChannelOffsets = {}


class Attached(_Map, frozen=True, kw_only=True, omit_defaults=True, rename={"start": "from"}):
    """The answer that accepts (§ 5)."""

    stream: Text
    tag: Tag
    kind: Kind
    mode: Mode
    pid: int | None = None
    started: bool = False
    resumed: bool = False
    start: ChannelOffsets
    live: Offset = 0
    accepted: Offset = 0
    credit: Offset = 0
    signals: Offset = 0
    stopped: bool = False
    screen: bool = False


class Refused(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """The answer that refuses."""

    code: Refusal
    message: Text = ""


class Detach(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """The attacher gives the attachment up."""


class Closed(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """The owner closed the attachment."""

    reason: CloseReason
    message: Text = ""


class Exit(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """How the process ended: a code, or the name of a signal."""

    code: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    signal: Text | None = None


class Resize(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """A new size of the terminal."""

    columns: Cells
    rows: Cells


class Signal(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """A signal for the process group; numbered from 1 by the attachment."""

    number: Annotated[int, msgspec.Meta(ge=1, le=MAX_OFFSET - 1)]
    name: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z0-9]{1,16}\Z")]


class Ping(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """Is anybody there?"""

    id: Offset


class Pong(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """Yes."""

    id: Offset


class GoAway(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """The sender is about to close the link."""

    reason: CloseReason
    message: Text = ""
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Stop(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """Nobody will read this channel any more."""


class Screen(_Map, frozen=True, kw_only=True, omit_defaults=True):
    """A part of what brings a fresh terminal to where the output is at the offset `at` (§ 5, Screens)."""

    data: Annotated[bytes, msgspec.Meta(max_length=MAX_SCREEN_PART)]
    at: Offset
    columns: Cells
    rows: Cells
    last: bool = False


Message = (
    Hello
    | Credit
    | Gap
    | Fin
    | Attach
    | Attached
    | Refused
    | Detach
    | Closed
    | Exit
    | Resize
    | Signal
    | Ping
    | Pong
    | GoAway
    | Stop
    | Screen
)

MESSAGES: dict[FrameType, type[Message]] = {
    FrameType.HELLO: Hello,
    FrameType.CREDIT: Credit,
    FrameType.GAP: Gap,
    FrameType.FIN: Fin,
    FrameType.ATTACH: Attach,
    FrameType.ATTACHED: Attached,
    FrameType.REFUSED: Refused,
    FrameType.DETACH: Detach,
    FrameType.CLOSED: Closed,
    FrameType.EXIT: Exit,
    FrameType.RESIZE: Resize,
    FrameType.SIGNAL: Signal,
    FrameType.PING: Ping,
    FrameType.PONG: Pong,
    FrameType.GOAWAY: GoAway,
    FrameType.STOP: Stop,
    FrameType.SCREEN: Screen,
}
_TYPES: dict[type[Message], FrameType] = {message: type_ for type_, message in MESSAGES.items()}
_DECODERS: dict[int, msgspec.msgpack.Decoder[Message]] = {
    type_: msgspec.msgpack.Decoder(message) for type_, message in MESSAGES.items()
}
_pack = msgpack.Packer(autoreset=True).pack


def encode(message: Message, stream: int = 0, channel: int = 0) -> bytes:
    """Return `message` as a whole frame.

    Raises:
      LocalProtocolError: it is too long for a frame.
    """
    payload: bytes = _pack(msgspec.to_builtins(message, builtin_types=(bytes,)))
    if len(payload) > MAX_CONTROL_BYTES:
        raise LocalProtocolError(
            f"{type(message).__name__} of {len(payload)} bytes; a frame takes {MAX_CONTROL_BYTES}"
        )
    return encode_control(_TYPES[type(message)], stream, channel, payload)


def decode(frame: ControlFrame) -> Message | None:
    """Return what `frame` says; None for a type that this version does not know.

    Raises:
      RemoteProtocolError: the payload is not a msgpack map, or not one of this type.
    """
    decoder = _DECODERS.get(frame.type)
    if decoder is None:
        return None
    try:
        return decoder.decode(frame.payload)
    except (ValueError, RecursionError) as error:  # all of msgspec's errors are ValueErrors
        reason = str(error) or type(error).__name__
        name = FrameType(frame.type).name
        raise RemoteProtocolError(f"a bad {name} frame: {reason}") from error


def check(message: Message) -> None:
    """Find out whether a peer would take `message`: it was made from what a caller gave.

    Raises:
      ValueError: something in it is malformed, or it is too long for a frame.
    """
    try:
        _DECODERS[_TYPES[type(message)]].decode(encode(message)[HEADER.size :])
    except (LocalProtocolError, msgspec.ValidationError) as error:
        raise ValueError(f"not a valid {type(message).__name__}: {error}") from error


def readable(text: str) -> str:
    """Return `text` so that it can travel: at most `MAX_TEXT` characters, all of them encodable."""
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - 1] + "…"
    return text.encode(errors="replace").decode()
