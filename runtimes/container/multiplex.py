"""The framing of output without a terminal, without I/O.

Docker Engine API, "Attach to a container", stream format: each piece has a header of 8 bytes, the
number of the stream, three zeros, and the length as 32 bits big-endian; then come its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from relay.carrier import Buffer
from relay.endpoint import Channel

_HEADER = struct.Struct(">BxxxL")

_CHANNELS = {0: Channel.INPUT, 1: Channel.OUTPUT, 2: Channel.ERROR}
_ENGINE_FAILURE = 3
MAX_FAILURE_BYTES = 4096
"""How much of the engine's own complaint is kept."""


class MultiplexError(Exception):
    """The engine broke the format, or says in it that it failed; the connection is of no use."""


class Demultiplexer:
    """Takes the bytes of a connection apart.  Holds at most one header and one complaint."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._number = 0
        self._left = 0
        self._failure = bytearray()

    @property
    def is_between_pieces(self) -> bool:
        """Whether the connection may end here without anything missing."""
        return not self._header and not self._left

    def feed(self, data: Buffer) -> Iterator[tuple[Channel, memoryview]]:
        """Yield the pieces of output in `data`, in order; they are views of it.

        Raises:
          MultiplexError: what came is not in this format, or is a complaint of the engine.
        """
        view = memoryview(data)
        while view:
            if not self._left:
                missing = _HEADER.size - len(self._header)
                self._header += view[:missing]
                view = view[missing:]
                if len(self._header) < _HEADER.size:
                    return
                self._begin_piece()
                continue
            piece, view = view[: self._left], view[self._left :]
            self._left -= len(piece)
            if self._number == _ENGINE_FAILURE:
                self._take_complaint(piece)
            else:
                yield _CHANNELS[self._number], piece

    def _begin_piece(self) -> None:
        self._number, self._left = _HEADER.unpack(self._header)
        header = bytes(self._header)
        self._header.clear()
        known = self._number in _CHANNELS or self._number == _ENGINE_FAILURE
        if not known or header[1:4] != b"\0\0\0":
            raise MultiplexError(f"the engine sent {header.hex()} where a stream header belongs")

    def _take_complaint(self, piece: memoryview) -> None:
        self._failure += piece[: MAX_FAILURE_BYTES - len(self._failure)]
        if not self._left or len(self._failure) == MAX_FAILURE_BYTES:
            raise MultiplexError(self._failure.decode("utf-8", "replace").strip())
