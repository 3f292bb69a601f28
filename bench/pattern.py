"""Position-coded bytes: what is sent, and the check that it came, complete and once.

Every 8 bytes of the pattern say where they are.  The image repeats after `PERIOD` bytes, which is no
power of two: a hole or a repetition of a usual buffer size never looks like a whole number of periods.
Comparing is one memcmp for each piece that is received (`bytes.startswith`), so checking all bytes costs
the load generator little.  A whole number of lost periods shows in the total.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PERIOD = 768 * 1024
"""Bytes until the pattern repeats: a multiple of every frame size that is used."""
MASK = b"\x37\xfa\x21\x3d"
"""The mask of prebuilt frames (the one of the examples in RFC 6455 §5.7)."""
MAX_PIECE = 1024 * 1024
"""The longest piece that can be checked at once."""
LINE_BYTES = 16

Buffer = bytes | bytearray | memoryview

_SAMPLE = 24
_WORDS = struct.Struct(">Q")


def pattern() -> bytes:
    """Return one period: big-endian 64-bit words, each a scrambled form of its own number.

    The multiplier is odd, so no two words are equal.  It is that of Knuth's multiplicative hashing.
    """
    words = ((number * 0x9E3779B97F4A7C15) & 0xFFFF_FFFF_FFFF_FFFF for number in range(PERIOD // 8))
    return b"".join(map(_WORDS.pack, words))


def lines() -> bytes:
    """Return one period of numbered lines, for terminals: 15 digits and a line feed each."""
    return b"".join(b"%015d\n" % number for number in range(PERIOD // LINE_BYTES))


def frame_header(length: int, mask: bytes | None) -> bytes:
    """Return the header of a final binary frame (RFC 6455 §5.2)."""
    bit = 0x80 if mask is not None else 0
    if length < 126:
        head = struct.pack("!BB", 0x82, bit | length)
    elif length < 65536:
        head = struct.pack("!BBH", 0x82, bit | 126, length)
    else:
        head = struct.pack("!BBQ", 0x82, bit | 127, length)
    return head + (mask or b"")


def masked(payload: bytes, mask: bytes) -> bytes:
    """Return `payload` under `mask` (RFC 6455 §5.3)."""
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def frames(payload: bytes, size: int, mask: bytes | None) -> bytes:
    """Return `payload` as consecutive frames of `size` bytes each.

    Raises:
      ValueError: `size` does not divide the payload.
    """
    if size < 1 or len(payload) % size:
        raise ValueError(f"frames of {size} bytes do not divide {len(payload)}")
    head = frame_header(size, mask)
    whole = payload
    if mask is not None:
        # The key begins anew in each frame: one pass will do where it divides the size.
        whole = masked(payload, mask) if size % 4 == 0 else b""
    pieces = []
    for start in range(0, len(payload), size):
        piece = (
            whole[start : start + size]
            if whole
            else masked(payload[start : start + size], mask or b"\0\0\0\0")
        )
        pieces.append(head + piece)
    return b"".join(pieces)


@dataclass(slots=True)
class Damage:
    """What a check found, in bytes."""

    received: int = 0
    lost: int = 0
    repeated: int = 0
    changed: int = 0

    def add(self, other: Damage) -> None:
        """Add the counts of another connection."""
        self.received += other.received
        self.lost += other.lost
        self.repeated += other.repeated
        self.changed += other.changed

    @property
    def clean(self) -> bool:
        """Whether every byte came, once."""
        return not (self.lost or self.repeated or self.changed)


class Image:
    """A repeating image that received bytes are compared with."""

    def __init__(self, period: bytes) -> None:
        if len(period) < _SAMPLE:
            raise ValueError(f"an image has at least {_SAMPLE} bytes, not {len(period)}")
        self.size = len(period)
        copies = MAX_PIECE // self.size + 2
        self.bytes = period * copies
        """Long enough for a piece of `MAX_PIECE` bytes at any place."""


class Check:
    """Follows one direction of one connection."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._at = 0
        self.damage = Damage()

    def feed(self, piece: Buffer) -> None:
        """Compare the next bytes that came (at most `MAX_PIECE`)."""
        count = len(piece)
        self.damage.received += count
        if self._image.bytes.startswith(piece, self._at):
            self._at = (self._at + count) % self._image.size
            return
        self._resynchronise(bytes(piece))

    def finish(self, expected: int) -> Damage:
        """Return what was found, given that `expected` bytes were sent."""
        damage = self.damage
        accounted = damage.received + damage.lost - damage.repeated
        if accounted < expected:
            damage.lost += expected - accounted
        elif accounted > expected:
            damage.repeated += accounted - expected
        return damage

    def _resynchronise(self, piece: bytes) -> None:
        """Find out what happened, and where the sender is now."""
        image, size = self._image.bytes, self._image.size
        at, start = self._at, 0
        while start < len(piece):
            good = _common_prefix(image, at, piece, start)
            start, at = start + good, (at + good) % size
            if start == len(piece):
                break
            found = image.find(piece[start : start + _SAMPLE], 0, size + _SAMPLE)
            if len(piece) - start < _SAMPLE or found < 0:
                self.damage.changed += 1
                start, at = start + 1, (at + 1) % size
                continue
            ahead = (found - at) % size
            if ahead <= size // 2:
                self.damage.lost += ahead
            else:
                self.damage.repeated += size - ahead
            at = found % size
        self._at = at


def _common_prefix(image: bytes, at: int, piece: bytes, start: int) -> int:
    """Return how many bytes of `piece` from `start` are as in `image` from `at`."""
    low, high = 0, len(piece) - start
    while low < high:
        middle = (low + high + 1) // 2
        if image.startswith(piece[start : start + middle], at):
            low = middle
        else:
            high = middle - 1
    return low
