"""Frames on the wire (§ 2): a 12-byte header, then the payload.

`FrameDecoder` hands the bytes of a DATA frame on as they come, so that a large frame needs no
buffer; every other frame is small (64 KiB at most) and handed on whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from relay.protocol.errors import RemoteProtocolError

HEADER = struct.Struct("!BBBxII")
DATA_HEADER = struct.Struct("!BBBxIIQ")
"""Header of a DATA frame and the offset that opens its payload, packed in one go."""

OFFSET_BYTES = 8
MAX_DATA_BYTES = 1024 * 1024
"""The most bytes one DATA frame may carry (§ 2, Limits)."""
MAX_CONTROL_BYTES = 64 * 1024
"""The most bytes the payload of any other frame may have (§ 2, Limits)."""
MAX_OFFSET = 2**63
"""Offsets stay below this (§ 2, Limits)."""


class FrameType(IntEnum):
    """The types of § 2."""

    HELLO = 0x00
    DATA = 0x01
    CREDIT = 0x02
    GAP = 0x03
    FIN = 0x04
    ATTACH = 0x05
    ATTACHED = 0x06
    REFUSED = 0x07
    DETACH = 0x08
    CLOSED = 0x09
    EXIT = 0x0A
    RESIZE = 0x0B
    SIGNAL = 0x0C
    PING = 0x0D
    PONG = 0x0E
    GOAWAY = 0x0F
    STOP = 0x10
    SCREEN = 0x11


@dataclass(frozen=True, slots=True)
class DataPiece:
    """Bytes of a DATA frame: all of them, or as many as have come.

    `data` is a view of the buffer that was fed in; it is valid until the next call of `feed`.
    """

    stream: int
    channel: int
    offset: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """A whole frame other than DATA.  `type` may be one that this version does not know."""

    type: int
    stream: int
    channel: int
    payload: bytes


def encode_control(type_: int, stream: int, channel: int, payload: bytes) -> bytes:
    """Return a whole frame.  The payload must fit `MAX_CONTROL_BYTES`."""
    return HEADER.pack(type_, 0, channel, stream, len(payload)) + payload


def encode_data_header(stream: int, channel: int, offset: int, length: int) -> bytes:
    """Return everything of a DATA frame but its `length` bytes, which follow."""
    return DATA_HEADER.pack(FrameType.DATA, 0, channel, stream, OFFSET_BYTES + length, offset)


class FrameDecoder:
    """Cuts a byte stream into frames.

    Holds at most one header and one control payload: 64 KiB and 20 bytes.
    """

    def __init__(self) -> None:
        self._held = bytearray()  # the beginning of a frame that is not complete yet
        self._stream = 0  # of the DATA frame that is being handed on
        self._channel = 0
        self._offset = 0
        self._remaining = 0

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._held)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[DataPiece | ControlFrame]:
        """Take bytes from the carrier and yield what they complete.

        The iterator must be exhausted before the next call.

        Raises:
          RemoteProtocolError: an impossible length or offset; feed nothing more.
        """
        view = memoryview(data)
        position = 0
        end = len(view)
        while position < end:
            if self._remaining:
                taken = min(self._remaining, end - position)
                yield self._piece(view[position : position + taken])
                position += taken
                continue
            if self._held:
                position += self._top_up(view, position)
                frame = self._parse_held()
                if frame is not None:
                    yield frame
                continue
            size = self._frame_head_bytes(view, position, end)
            if size == 0 or end - position < size:
                self._held += view[position:]
                return
            frame = self._parse(view[position : position + size])
            position += size
            if frame is not None:
                yield frame

    def _piece(self, data: memoryview) -> DataPiece:
        piece = DataPiece(self._stream, self._channel, self._offset, data)
        self._offset += len(data)
        self._remaining -= len(data)
        return piece

    @staticmethod
    def _frame_head_bytes(view: memoryview | bytearray, position: int, end: int) -> int:
        """How many bytes must be there before the frame at `position` can be parsed; 0: unknown.

        For DATA that is header and offset, for anything else the whole frame.
        """
        if end - position < HEADER.size:
            return 0
        type_, _flags, _channel, _stream, length = HEADER.unpack_from(view, position)
        if type_ == FrameType.DATA:
            if not OFFSET_BYTES < length <= OFFSET_BYTES + MAX_DATA_BYTES:
                raise RemoteProtocolError(f"a DATA frame with a payload of {length} bytes")
            return HEADER.size + OFFSET_BYTES
        if length > MAX_CONTROL_BYTES:
            raise RemoteProtocolError(f"a frame of type {type_:#04x} with {length} bytes")
        return int(HEADER.size + length)

    def _top_up(self, view: memoryview, position: int) -> int:
        """Move just as many bytes into `_held` as the frame that begins there needs."""
        if len(self._held) < HEADER.size:
            wanted = HEADER.size - len(self._held)
        else:
            wanted = self._frame_head_bytes(self._held, 0, len(self._held)) - len(self._held)
        piece = view[position : position + wanted]
        self._held += piece
        return len(piece)

    def _parse_held(self) -> ControlFrame | None:
        size = self._frame_head_bytes(self._held, 0, len(self._held))
        if size == 0 or len(self._held) < size:
            return None
        frame = self._parse(memoryview(bytes(self._held)))
        self._held.clear()
        return frame

    def _parse(self, frame: memoryview) -> ControlFrame | None:
        """Parse a whole control frame, or the head of a DATA frame (which gives None)."""
        type_, _flags, channel, stream, length = HEADER.unpack_from(frame)
        if type_ != FrameType.DATA:
            return ControlFrame(type_, stream, channel, bytes(frame[HEADER.size :]))
        (offset,) = struct.unpack_from("!Q", frame, HEADER.size)
        if offset + length - OFFSET_BYTES >= MAX_OFFSET:
            raise RemoteProtocolError(f"a DATA frame at offset {offset}")
        self._stream, self._channel, self._offset = stream, channel, offset
        self._remaining = length - OFFSET_BYTES
        return None
