"""Reading the frames of RFC 6455, without I/O.

Theory of operation
===================

`FrameReader` is fed whatever bytes arrived and is asked for events until it has none.  The payload
of a binary message is handed on in pieces as it arrives, so a message of any size costs no more
memory than one read.  A text message is handed on whole, because its users (JSON) need it whole,
and is therefore bounded.  Control frames may arrive between the fragments of a message (§5.4) and
become events at that place.

Masking (§5.3) is XOR with a repeated four-byte key.  It is done in C, a piece at a time: the key is
rotated by the number of bytes already unmasked, so that a frame may be cut anywhere.

The reader is strict: whatever the RFC forbids raises `FrameError` with the close code to fail the
connection with (§7.1.7), as early as the bytes allow.  No extension is ever negotiated, so every
reserved bit is an error.  Once it has raised, it raises the same error for ever; once a close frame
was read, whatever follows is ignored (§5.5.1).

Who wants nothing but a byte stream asks with `read_stream`, which goes through a buffer of the caller's
in one sweep (`relay.websocket.unmasking`) as long as nothing but binary frames comes, and falls back
to events at anything else.
"""

from __future__ import annotations

import codecs
import io

from relay.carrier import Buffer
from relay.websocket.frames import (
    FIN,
    LENGTH_16,
    MASKED,
    MAX_CONTROL_PAYLOAD,
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
    is_valid_close_code,
)
from relay.websocket.unmasking import (
    BETWEEN_FRAGMENTS,
    BETWEEN_MESSAGES,
    IN_FRAGMENT,
    IN_LAST,
    apply_mask,
    unmask,
)

MERGE_BYTES = 16 * 1024
"""Pieces smaller than this are joined, larger ones handed on as they are."""

MERGED_MAX = 64 * 1024
"""Bytes after which joining stops."""

FRAMES_MAX = 256
"""Frames read in one call before others get a turn: about half a millisecond's work."""

_RESERVED = 0x70
_NOTHING = memoryview(b"")
_OPCODES = {int(opcode): opcode for opcode in Opcode}


class FrameReader:
    """Turns the bytes from the peer into events.

    Args:
      role: Which end *this* is.
      max_text_bytes: The longest text message accepted, in bytes; a longer one is failed with 1009.
    """

    def __init__(self, role: Role, *, max_text_bytes: int = 1 << 20) -> None:
        self._peer_masks = role is Role.SERVER
        self._max_text_bytes = max_text_bytes
        self.payload_bytes = 0
        """Payload bytes of data frames read so far."""
        self._data = _NOTHING
        self._position = 0
        self._error: FrameError | None = None
        self._closed = False
        # The frame whose payload is being read.
        self._in_frame = False
        self._opcode = Opcode.BINARY
        self._final = True
        self._remaining = 0
        self._mask = b""
        # The message that frame belongs to, or None between messages.
        self._message: Opcode | None = None
        self._text = io.StringIO()
        self._text_bytes = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    @property
    def bytes_buffered(self) -> int:
        """How many bytes were fed and not yet turned into events."""
        return len(self._data) - self._position

    def feed(self, data: Buffer) -> None:
        """Add bytes from the peer.

        They are not copied where nothing was left over, and pieces handed to a client refer to
        them: the caller must not change them afterwards.
        """
        if self._closed or self._error is not None:
            return
        if self._position < len(self._data):
            data = b"".join((self._data[self._position :], data))
        self._data = memoryview(data)
        self._position = 0

    @property
    def held(self) -> memoryview:
        """What was fed and not yet turned into events."""
        return self._data[self._position :]

    def read_stream(self, data: memoryview, size: int) -> Buffer:
        """Read a piece of a byte stream; return the payload of the binary frames it begins with.

        ``data[:size]`` are the bytes that were `held`, then new ones.  The buffer stays the caller's;
        it is changed, and the payload may be a part of it.  What is not payload is held: if
        something is, `next_event` may have an event.

        Raises:
          FrameError: the peer broke the protocol, on an earlier call.
        """
        if self._error is not None:
            raise self._error
        if self._closed:
            return b""
        state = self._stream_state()
        payload: Buffer = b""
        position = 0
        if state is not None:
            payload, position, self._remaining, self._mask, state = unmask(
                data, 0, size, self._remaining, self._mask or bytes(4), state
            )
            self.payload_bytes += len(payload)
            self._in_frame = state >= IN_FRAGMENT
            self._final = state == IN_LAST
            self._message = None if state == BETWEEN_MESSAGES else Opcode.BINARY
            self._opcode = Opcode.BINARY
        self._data = memoryview(bytes(data[position:size])) if position < size else _NOTHING
        self._position = 0
        return payload

    def _stream_state(self) -> int | None:
        """Return where reading has stopped, for `unmask`; None if it is not for that."""
        if not self._peer_masks or self._message is Opcode.TEXT:
            return None
        if not self._in_frame:
            return BETWEEN_MESSAGES if self._message is None else BETWEEN_FRAGMENTS
        if self._opcode >= Opcode.CLOSE:
            return None
        return IN_LAST if self._final else IN_FRAGMENT

    def next_event(self, *, merge: bool = False) -> Event | None:
        """Return the next event, or None when more bytes are needed.

        With `merge`, binary messages are treated as one byte stream: small neighbours come joined,
        empty ones not at all, and `Binary.final` tells about the last of them.

        Raises:
          FrameError: the peer broke the protocol.
        """
        if self._error is not None:
            raise self._error
        try:
            return self._next_event(merge)
        except FrameError as error:
            self._error = error
            self._data = _NOTHING
            self._position = 0
            raise

    def _next_event(self, merge: bool) -> Event | None:
        pieces: list[Buffer] = []
        size = frames = 0
        ended = False
        while not self._closed and (self._in_frame or self._read_header()):
            if self._opcode >= Opcode.CLOSE:
                if pieces:
                    break
                return self._control()
            if frames == FRAMES_MAX:
                return self._binary(pieces, ended) if pieces else More()
            frames += 1
            available = min(self._remaining, len(self._data) - self._position)
            if self._message is Opcode.TEXT:
                if pieces:
                    break
                if (text := self._take_text(available)) is not None:
                    return text
            else:
                if pieces and (available >= MERGE_BYTES or size >= MERGED_MAX):
                    break
                if available:
                    pieces.append(self._take(available))
                    size += available
                ended = self._end_of_message()
                if ended and not merge:
                    return self._binary(pieces, ended)
            if self._in_frame:
                break  # The rest of the payload has not arrived.
        return self._binary(pieces, ended) if pieces else None

    def _binary(self, pieces: list[Buffer], final: bool) -> Binary:
        return Binary(pieces[0] if len(pieces) == 1 else b"".join(pieces), final)

    def _take(self, count: int) -> Buffer:
        """Consume `count` bytes of the frame's payload, unmasked."""
        start = self._position
        self._position = end = start + count
        self._remaining -= count
        self.payload_bytes += count
        piece = self._data[start:end]
        if not self._peer_masks:
            return piece
        unmasked: bytes = apply_mask(piece, self._mask)
        if turn := count & 3:
            self._mask = self._mask[turn:] + self._mask[:turn]
        return unmasked

    def _end_of_message(self) -> bool:
        """Leave the frame if it is used up, and the message if that was its last frame."""
        if self._remaining:
            return False
        self._in_frame = False
        if self._final:
            self._message = None
        return self._final

    def _take_text(self, available: int) -> Text | None:
        piece = self._take(available)
        ended = self._end_of_message()
        try:
            self._text.write(self._decoder.decode(piece, ended))
        except UnicodeDecodeError:
            raise FrameError("a text message is not UTF-8", CloseCode.INVALID_DATA) from None
        if not ended:
            return None
        text = self._text.getvalue()
        self._text = io.StringIO()
        self._text_bytes = 0
        self._decoder.reset()
        return Text(text)

    def _control(self) -> Ping | Pong | Close | None:
        """Consume a control frame; None if it is not all there yet."""
        if len(self._data) - self._position < self._remaining:
            return None
        payload = bytes(self._take(self._remaining))
        self.payload_bytes -= len(payload)
        self._in_frame = False
        if self._opcode is Opcode.PING:
            return Ping(payload)
        if self._opcode is Opcode.PONG:
            return Pong(payload)
        self._closed = True
        return _decode_close(payload)

    def _read_header(self) -> bool:
        """Read a frame's header and enter the frame; False if it is not all there yet."""
        data, position = self._data, self._position
        available = len(data) - position
        if available < 2:
            return False
        first, second = data[position], data[position + 1]
        length = second & 0x7F
        opcode = self._check_start(first, second, length)
        size = 2
        if length >= LENGTH_16:
            size = 4 if length == LENGTH_16 else 10
            if available < size:
                return False
            length = self._long_length(length, data[position + 2 : position + size])
        if self._peer_masks:
            size += 4
            if available < size:
                return False
            self._mask = bytes(data[position + size - 4 : position + size])
        if opcode < Opcode.CLOSE:
            if opcode is not Opcode.CONTINUATION:
                self._message = opcode
            if self._message is Opcode.TEXT:
                self._text_bytes += length
                if self._text_bytes > self._max_text_bytes:
                    raise FrameError(
                        f"a text message longer than {self._max_text_bytes} bytes",
                        CloseCode.TOO_BIG,
                    )
            self._final = first >= FIN
        self._opcode = opcode
        self._remaining = length
        self._in_frame = True
        self._position = position + size
        return True

    def _check_start(self, first: int, second: int, length: int) -> Opcode:
        """Judge the first two bytes of a frame (§5.1, §5.2, §5.4, §5.5)."""
        if first & _RESERVED:
            raise FrameError("a reserved bit is set, and no extension was negotiated")
        if (second >= MASKED) is not self._peer_masks:
            raise FrameError(
                "a frame from a client must be masked"
                if self._peer_masks
                else "a frame from a server must not be masked"
            )
        opcode = _OPCODES.get(first & 0x0F)
        if opcode is None:
            raise FrameError(f"opcode {first & 0x0F:#x} is reserved")
        if opcode >= Opcode.CLOSE:
            if first < FIN:
                raise FrameError("a control frame must not be fragmented")
            if length > MAX_CONTROL_PAYLOAD:
                raise FrameError(f"a control frame carries at most {MAX_CONTROL_PAYLOAD} bytes")
        elif (opcode is Opcode.CONTINUATION) is (self._message is None):
            raise FrameError(
                "a continuation frame, and no message to continue"
                if self._message is None
                else "a new message inside another one"
            )
        return opcode

    @staticmethod
    def _long_length(form: int, field: memoryview) -> int:
        """Return the extended payload length (§5.2)."""
        length = int.from_bytes(field, "big")
        if length < (LENGTH_16 if form == LENGTH_16 else 1 << 16):
            raise FrameError("the payload length is not written in the shortest form")
        if length >> 63:
            raise FrameError("the top bit of the payload length is set")
        return length


def _decode_close(payload: bytes) -> Close:
    if not payload:
        return Close(None, "")
    if len(payload) == 1:
        raise FrameError("a close frame with half a status code")
    code = int.from_bytes(payload[:2], "big")
    if not is_valid_close_code(code):
        raise FrameError(f"close code {code} must not be sent")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise FrameError("the close reason is not UTF-8", CloseCode.INVALID_DATA) from None
