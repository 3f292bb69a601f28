"""What a viewer may say to a VNC server: the client's half of RFB, without I/O (RFC 6143).

Theory of operation
-------------------
The filter follows the client's messages one by one, wherever they were split, and holds back at most one
header.  What looking at the desktop takes passes; what would act on it is dropped, whole.  What
it does not know it refuses, because it could not tell where the next message begins.

Of a message that is dropped the server sees nothing, so it does no harm to misjudge its length: what comes
after is taken for a message, and passes only if it is a harmless one.  Of what passes, the server must
read exactly as much as was let through.  Hence:

* versions 3.7 and 3.8 only, and none above the server's own, which is why the filter has to see the
  first 12 bytes of its output: 3.3 has one message less, and a server that reads the others' as 3.3 would be
  one byte behind;
* only the security types None and VNC authentication, whose lengths are known;
* no pseudo-encoding is asked for that changes the form of what a client sends.

A viewer is made to share: otherwise it would disconnect the others (§7.3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from relay.carrier import Buffer
from relay.endpoint import InputRefusedError

_VERSION_BYTES = 12
_VERSIONS = frozenset({b"RFB 003.007\n", b"RFB 003.008\n"})

_NONE = 1
_VNC_AUTHENTICATION = 2
_CHALLENGE_BYTES = 16
_SHARED = b"\x01"

_MAX_FENCE_BYTES = 64

_RAW = bytes(4)
_INPUT_ENCODINGS = frozenset(
    number.to_bytes(4, "big", signed=True)
    for number in (
        -258,  # QEMU extended key events
        -259,  # QEMU audio
        -305,  # general input interface
        -309,  # xvp
        -316,  # extended mouse buttons, which lengthen PointerEvent
        -1063131698,  # extended clipboard; without it, the clipboard comes as plain text
    )
)
"""What the server is not told: it would have the client send what does not pass."""


@dataclass(frozen=True, slots=True)
class _Message:
    """`size` bytes, the type among them, tell how many more (`rest`) there are."""

    name: str
    size: int
    passes: bool
    rest: Callable[[bytes], int] = lambda _: 0


def _length_of_text(header: bytes) -> int:
    # A negative length is that of the extended clipboard.
    return abs(int.from_bytes(header[4:8], "big", signed=True))


def _length_of_fence(header: bytes) -> int:
    if header[8] > _MAX_FENCE_BYTES:
        raise InputRefusedError(f"a fence has at most {_MAX_FENCE_BYTES} bytes, not {header[8]}")
    return header[8]


def _length_of_qemu(header: bytes) -> int:
    operation = int.from_bytes(header[2:4], "big")
    if header[1] == 0:  # extended key event
        return 8
    if header[1] == 1 and operation <= 1:  # audio on, off
        return 0
    if header[1] == 1 and operation == 2:  # audio format
        return 6
    raise InputRefusedError(f"unknown QEMU message {header[1]}")


_SET_ENCODINGS = 2

_MESSAGES: Mapping[int, _Message] = MappingProxyType(
    {
        0: _Message("SetPixelFormat", 20, passes=True),
        _SET_ENCODINGS: _Message("SetEncodings", 4, passes=True),
        3: _Message("FramebufferUpdateRequest", 10, passes=True),
        4: _Message("KeyEvent", 8, passes=False),
        5: _Message("PointerEvent", 6, passes=False),
        6: _Message("ClientCutText", 8, passes=False, rest=_length_of_text),
        150: _Message("EnableContinuousUpdates", 10, passes=True),
        248: _Message("ClientFence", 9, passes=True, rest=_length_of_fence),
        250: _Message("xvp", 4, passes=False),
        251: _Message("SetDesktopSize", 8, passes=False, rest=lambda header: 16 * header[6]),
        255: _Message("QEMU", 4, passes=False, rest=_length_of_qemu),
    }
)
"""The messages of a client, by type."""


@dataclass(frozen=True, slots=True)
class FilterStatistics:
    """How many messages passed and how many were dropped; the handshake's not counted."""

    passed: int
    dropped: int


class ViewOnlyFilter:
    """The client's half of one RFB connection."""

    def __init__(self) -> None:
        self._server_version = b""
        self._held = bytearray()
        self._wanted = _VERSION_BYTES
        self._step: Callable[[bytes], bytes] = self._version
        self._rest = 0  # of the message, after its header
        self._encodings = 0
        self._message = _MESSAGES[0]
        self._passed = 0
        self._dropped = 0

    def see_output(self, data: Buffer) -> None:
        """Take note of what the server says; of all that, only the first bytes matter."""
        missing = _VERSION_BYTES - len(self._server_version)
        if missing > 0:
            self._server_version += bytes(data[:missing])

    def filter(self, data: Buffer) -> bytes:
        """Return what of the client's `data` passes.

        Raises:
          InputRefusedError: it is not RFB as it is known here; nothing may pass any more.
        """
        passing = bytearray()
        coming = memoryview(data)
        while coming:
            if self._rest:
                piece = coming[: self._rest]
                self._rest -= len(piece)
                if self._message.passes:
                    passing += piece
            else:
                piece = coming[: self._wanted - len(self._held)]
                self._held += piece
                if len(self._held) == self._wanted:
                    item = bytes(self._held)
                    self._held.clear()
                    passing += self._step(item)
            coming = coming[len(piece) :]
        return bytes(passing)

    def statistics(self) -> FilterStatistics:
        """Return a snapshot of the counters."""
        return FilterStatistics(self._passed, self._dropped)

    def _expect(self, step: Callable[[bytes], bytes], size: int) -> None:
        self._step, self._wanted = step, size

    # ---------------------------------------------------------------- the handshake (§7.1)

    def _version(self, version: bytes) -> bytes:
        server = self._server_version
        if len(server) < _VERSION_BYTES or not server.startswith(b"RFB "):
            raise InputRefusedError("the server did not greet as a VNC server does")
        if version not in _VERSIONS or version > server:
            raise InputRefusedError(
                f"who may only view has to speak RFB 3.8 or 3.7, not {_printable(version)}"
                f" (the server: {_printable(server)})"
            )
        self._expect(self._security_type, 1)
        return version

    def _security_type(self, chosen: bytes) -> bytes:
        if chosen[0] == _NONE:
            self._expect(self._client_init, 1)
        elif chosen[0] == _VNC_AUTHENTICATION:
            self._expect(self._challenge_response, _CHALLENGE_BYTES)
        else:
            raise InputRefusedError(
                f"what is sent with security type {chosen[0]} cannot be watched over: who may only"
                " view needs a VNC server with the type None or VncAuth"
            )
        return chosen

    def _challenge_response(self, response: bytes) -> bytes:
        self._expect(self._client_init, 1)
        return response

    def _client_init(self, _: bytes) -> bytes:
        self._expect(self._type, 1)
        return _SHARED

    # ---------------------------------------------------------------- messages (§7.5)

    def _type(self, first: bytes) -> bytes:
        known = _MESSAGES.get(first[0])
        if known is None:
            raise InputRefusedError(f"unknown RFB message of type {first[0]}")
        self._message = known
        self._held += first
        self._expect(self._header, known.size)
        return b""

    def _header(self, header: bytes) -> bytes:
        message = self._message
        self._rest = message.rest(header)
        self._expect(self._type, 1)
        if header[0] == _SET_ENCODINGS and header[2:4] != b"\0\0":
            self._encodings = int.from_bytes(header[2:4], "big")
            self._expect(self._encoding, 4)
        if not message.passes:
            self._dropped += 1
            return b""
        self._passed += 1
        return header

    def _encoding(self, encoding: bytes) -> bytes:
        self._encodings -= 1
        if self._encodings == 0:
            self._expect(self._type, 1)
        # The count has passed already; and every client must be able to read Raw.
        return _RAW if encoding in _INPUT_ENCODINGS else encoding


def _printable(version: bytes) -> str:
    return repr(version.decode("ascii", "replace").strip())
