"""What is fuzzed.  Each target states its invariant first and names the only errors allowed.

`python -m tests.fuzz TARGET` runs one under Atheris (``pip install atheris``), with the committed
corpus; `test_corpus.py` feeds that corpus without Atheris in every test run.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.endpoint import Channel, Kind
from relay.grant import Mode
from relay.protocol.connection import BytesReceived, Connection, MessageReceived
from relay.protocol.errors import RemoteProtocolError
from relay.protocol.messages import Attach, Attached
from relay.protocol.ring import ReplayRing
from relay.protocol.windows import ReceiveWindow
from relay.websocket.frames import FrameError, FrameReader, Role


def connection(data: bytes) -> None:
    """Invariant: whatever an attacher sends, whole or in pieces, an owner does the same.

    It accepts every ATTACH, takes what there is credit for, and raises RemoteProtocolError or
    nothing.
    """
    assert _own(data, len(data) or 1) == _own(data, 7) == _own(data, 1)


def _own(data: bytes, size: int) -> list[object]:
    owner = Connection(dialer=False, software="fuzz")
    ring = ReplayRing(1000)
    ring.append(b"output " * 100)
    seen: list[object] = []
    received: dict[tuple[int, int], bytearray] = {}
    try:
        for start in range(0, len(data), size):
            for event in owner.receive_data(data[start : start + size], now=0.0):
                if isinstance(event, BytesReceived):
                    received.setdefault((event.stream, event.channel), bytearray()).extend(
                        event.data
                    )
                    continue
                seen.append((event.stream, event.channel, event.message))
                if isinstance(event.message, Attach):
                    _accept(owner, event, ring)
                while owner.next_send():  # here, so that it does not depend on the pieces
                    pass
    except RemoteProtocolError as error:
        # What came before the offence may have been handed on in one piece or in several, or not
        # at all: the frames before it count, the reason does, the message may tell sizes.
        return [error.reason]
    return [*seen, received]


def _accept(owner: Connection, event: MessageReceived, ring: ReplayRing) -> None:
    request = event.message
    assert isinstance(request, Attach)
    owner.accept(
        event.stream,
        Attached(
            stream="s",
            tag=request.tag,
            kind=Kind.PTY,
            mode=Mode.CONTROL,
            start={Channel.OUTPUT: 0},
            credit=64,
        ),
    )
    owner.open_sender(event.stream, Channel.OUTPUT, ring, 0, request.window.get(Channel.OUTPUT, 0))
    owner.open_receiver(event.stream, Channel.INPUT, ReceiveWindow(0, 64))


def websocket(data: bytes) -> None:
    """Invariant: a WebSocket frame reader gives the same events whole and byte by byte.

    It raises FrameError or nothing, and never holds more than it must.
    """
    for role in Role:
        assert _read(role, data, len(data) or 1) == _read(role, data, 1)


def _read(role: Role, data: bytes, size: int) -> list[object]:
    reader = FrameReader(role, max_text_bytes=1000)
    seen: list[object] = []
    binary = bytearray()
    try:
        for start in range(0, len(data), size):
            reader.feed(data[start : start + size])
            while (event := reader.next_event()) is not None:
                if type(event).__name__ == "Binary":
                    binary += event.data  # type: ignore[union-attr]  # checked by its name
                else:
                    seen.append(event)
    except FrameError as error:
        return [error.close_code]
    return [*seen, bytes(binary)]


TARGETS: dict[str, Callable[[bytes], None]] = {"connection": connection, "websocket": websocket}
