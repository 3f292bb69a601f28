"""Binary frames in bulk: the fast case of reading, as a byte stream.

Theory of operation
===================

Most of what a client sends are whole binary messages of which only the bytes matter.  `unmask` goes
through a buffer frame by frame, takes the masking off (RFC 6455 §5.3) and returns the payloads as
one piece; where there is no need to look closer, there is no object for a frame.

It decides nothing.  Whatever is not a well-formed binary frame in its place makes it stop in front
of it; `relay.websocket.reader` then goes on from there, step by step, and knows all the rules.

There are two of them, with the same result: one in Python (masks are taken off by the C function of
`websockets`), which leaves what is behind `FRAMES_MAX` frames to the reader, so that others get their
turn; one in C, optional (`unmask.c`), which pays where frames are small.  The environment
variable TRUNKLINE_PURE_PYTHON, if it is not empty, keeps the latter from being used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from relay.carrier import Buffer

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # No C extension for this platform.
    from websockets.utils import apply_mask as apply_mask

FRAMES_MAX = 1024
"""Frames that one call in Python reads: two milliseconds' work."""

BETWEEN_MESSAGES = 0
BETWEEN_FRAGMENTS = 1
IN_FRAGMENT = 2
IN_LAST = 3
"""Where a read has stopped: between two messages, between two frames of a fragmented message, in the
payload of a frame that others of its message follow, in that of the last one."""

_FIN = 0x80
_MASKED = 0x80


class Unmasked(NamedTuple):
    """What came of a buffer."""

    payload: Buffer
    """All payload, one frame's behind the other's; it may be a part of the buffer."""
    position: int
    """Where reading has stopped: at the end, at an incomplete header, at what is not for here, or early."""
    remaining: int
    """How much of the present frame's payload is still to come."""
    key: bytes
    """The masking key, turned to the first of these bytes."""
    state: int
    """One of the four above."""


Unmask = Callable[[memoryview, int, int, int, bytes, int], Unmasked]


def unmask_in_python(
    data: memoryview, position: int, end: int, remaining: int, key: bytes, state: int
) -> Unmasked:
    """Read frames from ``data[position:end]``, beginning as `Unmasked` of an earlier call says."""
    pieces: list[Buffer] = []
    add = pieces.append
    frames = 0
    while True:
        if state >= IN_FRAGMENT:
            size = end - position
            if size < remaining:
                if size:
                    add(apply_mask(data[position:end], key))
                    turn = size & 3
                    key = key[turn:] + key[:turn]
                    position = end
                    remaining -= size
                break
            if remaining:
                stop = position + remaining
                add(apply_mask(data[position:stop], key))
                turn = remaining & 3
                key = key[turn:] + key[:turn]
                position = stop
                remaining = 0
            state = BETWEEN_MESSAGES if state == IN_LAST else BETWEEN_FRAGMENTS
        available = end - position
        if available < 2 or frames == FRAMES_MAX:
            break
        frames += 1
        first = data[position]
        length = data[position + 1] - _MASKED
        if first & 0x7F != (0 if state else 2) or length < 0:
            break
        if length < 126:
            if available < 6:
                break
            position += 6
        elif length == 126:
            if available < 8:
                break
            length = data[position + 2] << 8 | data[position + 3]
            if length < 126:
                break
            position += 8
        else:
            if available < 14:
                break
            length = int.from_bytes(data[position + 2 : position + 10], "big")
            if length < 1 << 16 or length >> 63:
                break
            position += 14
        key = bytes(data[position - 4 : position])
        remaining = length
        state = IN_LAST if first & _FIN else IN_FRAGMENT
    payload = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return Unmasked(payload, position, remaining, key, state)


unmask_in_c: Unmask | None = None
"""The same in place: `data` is changed, and `payload` is a part of it."""

try:
    from relay.websocket import _unmask
except ImportError:  # Not built: there was no compiler.
    pass
else:

    def _unmask_in_c(
        data: memoryview, position: int, end: int, remaining: int, key: bytes, state: int
    ) -> Unmasked:
        start, stop, position, remaining, key, state = _unmask.unmask(
            data, position, end, remaining, key, state
        )
        return Unmasked(data[start:stop], position, remaining, key, state)

    unmask_in_c = _unmask_in_c

unmask: Unmask = unmask_in_python
if unmask_in_c is not None and not os.environ.get("TRUNKLINE_PURE_PYTHON"):
    unmask = unmask_in_c
