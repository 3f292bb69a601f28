"""Owners that answer nonsense: the client says what is wrong, and neither hangs nor believes it."""

from __future__ import annotations

import pytest
import trio

from relay.carrier import Carrier
from relay.client import open_trunk
from relay.client_attachment import AttachOptions
from relay.endpoint import Channel, Kind
from relay.errors import AttachmentClosed
from relay.grant import Mode
from relay.inbox import Output
from relay.memory import carrier_pair
from relay.protocol.frames import MAX_OFFSET, encode_data_header
from relay.protocol.messages import (
    Attach,
    Attached,
    Closed,
    Credit,
    Exit,
    Fin,
    Gap,
    GoAway,
    Screen,
    Start,
    Stop,
    encode,
)
from relay.protocol.reasons import CloseReason
from tests.testing.raw_peer import open_raw_peer

OPTIONS = AttachOptions("an-attachment-0123", Kind.PTY, "t", start=Start())


def attached(**fields: object) -> bytes:
    answer = {"stream": "s", "tag": "t", "kind": Kind.PTY, "mode": Mode.CONTROL, "credit": 100}
    return encode(Attached(**({"start": {Channel.OUTPUT: 0}} | answer | fields)), 1)  # type: ignore[arg-type]  # a table


def data(at: int = 0, channel: int = 1) -> bytes:
    return encode_data_header(1, channel, at, 3) + b"abc"


YES = attached()
NONSENSE: dict[str, tuple[tuple[bytes, ...], str]] = {
    "no channel": ((attached(start={}),), "says nothing of channel 1"),
    "another kind": ((attached(kind=Kind.VNC),), "attached for control of vnc 't'"),
    "another tag": ((attached(tag="u"),), "attached for control of pty 'u'"),
    "another mode": ((attached(mode=Mode.VIEW),), "attached for view of pty 't'"),
    "two answers": ((YES, YES), "ATTACHED for a stream that is OPEN"),
    "input that was never sent": ((attached(resumed=True, accepted=5),), "0..0 was sent"),
    "an acknowledgement of it": ((YES, encode(Credit(ack=5), 1, 0)), "5 acknowledged, 0 sent"),
    "bytes of input": ((YES, data(channel=0)), "channel 0, which nobody reads"),
    "bytes of channel 9": ((YES, data(channel=9)), "channel 9, which nobody reads"),
    "a gap in the input": ((YES, encode(Gap(start=0, to=5), 1, 0)), "nobody reads"),
    "a gap that goes nowhere": ((YES, encode(Gap(start=0, to=0), 1, 1)), "a gap 0..0"),
    "the end of an error output": ((YES, encode(Fin(at=0), 1, 2)), "nobody reads"),
    "an end too early": ((YES, data(), encode(Fin(at=2), 1, 1)), "FIN at 2, expected 3"),
    "bytes behind the end": ((YES, encode(Fin(at=0), 1, 1), data()), "nobody reads"),
    "an exit before the end": ((YES, encode(Exit(code=0), 1)), "EXIT before the FIN of OUTPUT"),
    "an exit without a status": (
        (YES, encode(Fin(at=0), 1, 1), encode(Exit(), 1)),
        "either a code",
    ),
    "a screen unasked": ((YES, encode(Screen(data=b"", at=0, columns=1, rows=1), 1, 1)), "turn"),
    "bytes before the answer": ((data(),), "DATA for a stream that is REQUESTED"),
    "more than was granted": (
        (YES, *(data(at) for at in range(0, 300 * 1024, 3))),
        "credit given up to 262144",
    ),
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_ends_the_trunk_and_says_what_it_was(
    name: str, autojump_clock: object
) -> None:
    frames, match = NONSENSE[name]
    ours, theirs = carrier_pair()

    async def dial() -> Carrier:
        await trio.lowlevel.checkpoint()
        return ours

    async with open_raw_peer(theirs, dialer=False) as owner, trio.open_nursery() as nursery:

        async def answer() -> None:
            await owner.expect(Attach)
            await owner.send(*frames)

        nursery.start_soon(answer)
        async with open_trunk(dial) as trunk:
            with pytest.raises(AttachmentClosed, match=match) as caught:
                attachment = await trunk.attach(OPTIONS)
                while True:
                    await attachment.receive()
                    if not attachment.is_over:
                        await trio.sleep(0.1)
                    else:
                        await attachment.wait()
            assert caught.value.reason is CloseReason.PROTOCOL_ERROR
            assert trunk.statistics().links == 1  # what is wrong stays wrong
        goaway = await owner.expect(GoAway)
        assert goaway.reason is CloseReason.PROTOCOL_ERROR


async def test_what_is_late_or_needless_is_ignored(autojump_clock: object) -> None:
    ours, theirs = carrier_pair()

    async def dial() -> Carrier:
        await trio.lowlevel.checkpoint()
        return ours

    async with open_raw_peer(theirs, dialer=False) as owner, trio.open_nursery() as nursery:

        async def answer() -> None:
            await owner.expect(Attach)
            await owner.send(
                attached(
                    start={Channel.OUTPUT: MAX_OFFSET - 100, Channel.ERROR: 7}, live=MAX_OFFSET - 1
                ),
                encode(Credit(up_to=3), 1, 0),  # less than was given
                encode(Credit(up_to=3), 1, 9),
                encode(Stop(), 1, 1),
                data(MAX_OFFSET - 100),
                encode(Closed(reason=CloseReason.EXITED), 1),
                data(5),
            )

        nursery.start_soon(answer)
        async with open_trunk(dial) as trunk:
            attachment = await trunk.attach(OPTIONS)
            item = await attachment.receive()
            assert item == Output(Channel.OUTPUT, MAX_OFFSET - 100, b"abc", replay=True)
            with pytest.raises(AttachmentClosed) as caught:
                await attachment.receive()
            assert caught.value.reason is CloseReason.EXITED
