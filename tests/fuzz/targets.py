"""What is fuzzed.  Each target states its invariant first and names the only errors allowed.

`python -m tests.fuzz TARGET` runs one under Atheris (``pip install atheris``), with the committed
corpus; `test_corpus.py` feeds that corpus without Atheris in every test run.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.endpoint import Channel, Kind
from relay.grant import Mode
from relay.inbox import Inbox
from relay.protocol.connection import BytesReceived, Connection, MessageReceived
from relay.protocol.errors import RemoteProtocolError
from relay.protocol.messages import MAX_SCREEN, Attach, Attached, Fin, Gap, Screen
from relay.protocol.ring import ReplayRing
from relay.protocol.windows import ReceiveWindow
from relay.websocket.frames import FrameError, Role
from relay.websocket.reader import FrameReader

WINDOW = 64
"""Bytes that the attacher lets come."""


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


def attacher(data: bytes) -> None:
    """Invariant: whatever an owner sends, whole or in pieces, an attacher does the same.

    It raises RemoteProtocolError or nothing, and never holds more than it has granted.
    """
    assert _follow(data, len(data) or 1) == _follow(data, 7) == _follow(data, 1)


def _follow(data: bytes, size: int) -> list[object]:
    client = Connection(dialer=True, software="fuzz")
    ring = ReplayRing(1000)
    ring.append(b"input " * 100)
    request = Attach(
        attachment="fuzz-attachment-0", kind=Kind.PTY, tag="t", window={Channel.OUTPUT: WINDOW}
    )
    boxes = {client.attach(request): Inbox(Channel.OUTPUT, WINDOW) for _ in range(2)}
    seen: list[object] = []
    try:
        for start in range(0, len(data), size):
            for event in client.receive_data(data[start : start + size], now=0.0):
                box = boxes.get(event.stream)
                if isinstance(event, BytesReceived):
                    assert box is not None
                    box.put(event.offset, event.data)
                    assert box.waiting <= WINDOW + (MAX_SCREEN if box.awaits_screen else 0)
                    continue
                seen.append((event.stream, event.channel, event.message))
                if box is not None:
                    _hear(client, event, box, ring)
                    seen += _drink(client, event.stream, box)
                while client.next_send():  # here, so that it does not depend on the pieces
                    pass
    except RemoteProtocolError as error:
        return [error.reason]
    for box in boxes.values():
        while not box.is_empty:
            seen.append(box.take())
    return seen


def _hear(client: Connection, event: MessageReceived, box: Inbox, ring: ReplayRing) -> None:
    match event.message:
        case Attached(start=start, live=live, accepted=accepted, credit=credit):
            offset = start.get(Channel.OUTPUT, 0)
            box.begin(offset, live)
            box.expect_screen(announced=event.message.screen)
            client.open_receiver(event.stream, Channel.OUTPUT, box.window)
            if accepted == 0:
                client.open_sender(event.stream, Channel.INPUT, ring, 0, credit)
        case Gap(start=start, to=to, screen=screen):
            box.put_gap(start, to, screen=screen)
        case Screen():
            box.put_screen(event.message)
        case Fin():
            box.end()
        case _:
            pass


def _drink(client: Connection, stream: int, box: Inbox) -> list[object]:
    """Take and acknowledge what is there."""
    taken: list[object] = []
    while not box.is_empty:
        taken.append(box.take())
    box.consume_taken()
    up_to = box.window.renewal(0.0, None)
    if up_to is not None:
        client.credit(stream, Channel.OUTPUT, ack=box.window.consumed, up_to=up_to)
    return taken


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


TARGETS: dict[str, Callable[[bytes], None]] = {
    "connection": connection,
    "attacher": attacher,
    "websocket": websocket,
}
