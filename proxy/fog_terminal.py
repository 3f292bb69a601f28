"""The terminal of cloudshell-fog on a WebSocket; the frames are `api.dialects.cloudshell_fog`.

This is a trunk/1 client of the agent, in the same process: it attaches to the session's terminal like any other
client, so a lost WebSocket costs nothing there.  Its own client can only be held back by not reading
or writing: the dialect has no flow control.
"""

from __future__ import annotations

import secrets
from contextlib import suppress

import trio

from api.dialects.cloudshell_fog import (
    OutputEncoder,
    Resize,
    Stdin,
    decode_client_frame,
    exit_frame,
)
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.endpoint import Kind, TerminalSize
from relay.errors import AttachmentClosed, AttachRefused, InputUncertain
from relay.grant import Grant, Mode
from relay.inbox import Missed, ScreenOutput
from relay.protocol.messages import Start
from relay.protocol.reasons import CloseReason
from relay.replay_filter import ReplayFilter
from relay.screen import FRESH
from relay.websocket import CloseCode, Text, WebSocket
from relay.websocket.carrier import CLOSE_CODES
from runtimes.agent import Agent

DEFAULT_TAG = "main"


async def serve_fog_terminal(
    websocket: WebSocket, agent: Agent, grant: Grant, draining: trio.Event
) -> None:
    """Serve one client until it leaves, the shell exits, the session ends or `draining` is set.

    The client takes control from whoever had it: this dialect knows no viewers, and its clients
    come back without saying who they were.

    Cancellation: closes the WebSocket abruptly; the shell goes on.
    """
    code, reason = CloseCode.NORMAL, CloseReason.EXITED.value
    try:
        async with agent.open_trunk(grant) as trunk:
            attachment = await trunk.attach(
                AttachOptions(
                    attachment=secrets.token_urlsafe(18),
                    kind=Kind.PTY,
                    tag=grant.tag or DEFAULT_TAG,
                    mode=grant.mode,
                    start=Start(restart=True) if grant.mode is Mode.CONTROL else None,
                    takeover=grant.mode is Mode.CONTROL,
                    replay="screen",
                )
            )
            await _converse(websocket, attachment, draining)
    except AttachRefused as error:
        code, reason = CloseCode.POLICY_VIOLATION, error.code.value
    except AttachmentClosed as error:
        code, reason = CLOSE_CODES[error.reason], error.reason.value
    except InputUncertain:
        code, reason = CloseCode.INTERNAL_ERROR, CloseReason.INTERNAL_ERROR.value
    await websocket.close(code, reason)


async def _converse(
    websocket: WebSocket, attachment: ClientAttachment, draining: trio.Event
) -> None:
    """Move frames both ways until either side ends.

    Raises:
      AttachmentClosed: the attachment ended, not by the shell's exit; or the server is going away.
    """
    closed: AttachmentClosed | None = None
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            await _listen(websocket, attachment)
            nursery.cancel_scope.cancel()

        async def drain() -> None:
            nonlocal closed
            await draining.wait()
            closed = AttachmentClosed(CloseReason.DRAINING)
            nursery.cancel_scope.cancel()

        nursery.start_soon(listen)
        nursery.start_soon(drain)
        try:
            await _show(websocket, attachment)
        except AttachmentClosed as error:
            closed = error
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client is gone, the shell goes on
        nursery.cancel_scope.cancel()
    if closed is not None:
        raise closed


async def _show(websocket: WebSocket, attachment: ClientAttachment) -> None:
    encoder = OutputEncoder()
    questions = ReplayFilter()
    replaying = True
    while (item := await attachment.receive()) is not None:
        if isinstance(item, Missed):
            continue  # the dialect has no word for it; the screen that follows makes up for it
        data = item.data
        if isinstance(item, ScreenOutput):
            data = FRESH + data
        elif item.replay:
            data = questions.feed(data)
        elif replaying:
            replaying = False
            data = questions.flush() + data
        for frame in encoder.encode(data):
            await websocket.send_text(frame)
    for frame in encoder.flush():
        await websocket.send_text(frame)
    await websocket.send_text(exit_frame(await attachment.wait()))


async def _listen(websocket: WebSocket, attachment: ClientAttachment) -> None:
    """Do what the client says until it is gone."""
    try:
        while (message := await websocket.receive()) is not None:
            if not isinstance(message, Text):
                continue  # the dialect has text frames only; its server ignores what it does not know
            match decode_client_frame(message.text):
                case Stdin(data=data) if attachment.options.mode is not Mode.VIEW:
                    await _type(attachment, data)
                case Resize(columns=columns, rows=rows):
                    attachment.resize(TerminalSize(columns, rows))
                case _:
                    pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def _type(attachment: ClientAttachment, data: bytes) -> None:
    # If the shell or the attachment is over, the client is told where its output ends.
    with suppress(trio.BrokenResourceError, AttachmentClosed, InputUncertain):
        await attachment.send(data)
