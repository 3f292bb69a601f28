"""Joins two streams, so that each gets what comes from the other: bytes, ends and breaks."""

from __future__ import annotations

import trio


async def splice(left: trio.abc.HalfCloseableStream, right: trio.abc.HalfCloseableStream) -> bool:
    """Copy both ways until both directions are over; tell whether both have ended in order.

    The end of one direction is passed on while the other goes on.  Where a side takes no more, what
    it still has to say is passed on all the same.  When a side breaks, it is over at once.

    Neither stream is closed.  If not all was in order, the caller should reset both, so that nobody
    takes what they got for all there was.

    Raises:
      trio.ClosedResourceError: one of them was closed on this side.

    Cancellation: what was read from one may not have been written to the other.
    """
    in_order = True

    async def copy(
        source: trio.abc.HalfCloseableStream,
        sink: trio.abc.HalfCloseableStream,
        broke: trio.CancelScope,
    ) -> None:
        nonlocal in_order
        while True:
            try:
                data = await source.receive_some()
            except trio.BrokenResourceError:
                in_order = False
                broke.cancel()
                return
            try:
                if not data:
                    await sink.send_eof()
                    return
                await sink.send_all(data)
            except trio.BrokenResourceError:
                in_order = False
                return

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, left, right, nursery.cancel_scope)
            nursery.start_soon(copy, right, left, nursery.cancel_scope)
    except* trio.ClosedResourceError as group:
        raise group.exceptions[0] from None
    return in_order
