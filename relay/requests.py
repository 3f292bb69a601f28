"""What an ATTACH asks for: pure readings of a request, against a stream where there is one (§ 5)."""

from __future__ import annotations

import msgspec

from relay.endpoint import (
    Channel,
    FileRequest,
    Kind,
    SocketTarget,
    StartError,
    StartRequest,
    TerminalSize,
)
from relay.errors import AttachRefused
from relay.protocol.messages import Attach, Start
from relay.protocol.reasons import Refusal
from relay.stream import Stream


def restarts(stream: Stream, request: Attach) -> bool:
    """Tell whether `request` starts anew what has ended; not if it is what started it, repeated."""
    known = stream.attachments.get(request.attachment)
    is_late = known is not None and request.generation < known.generation
    return (
        request.start is not None
        and request.start.restart
        and request.resume is None
        and stream.exit is not None
        and stream.starter != request.attachment
        and not is_late
    )


def wants_screen(stream: Stream, request: Attach) -> bool:
    """Tell whether a screen has to be made for `request`, now that its stream is there."""
    if request.replay != "screen" or stream.kind is not Kind.PTY:
        return False
    if request.resume is None:
        # Who had it started sees everything from the first byte on, and answers its questions.
        return stream.starter != request.attachment
    have = request.resume.have.get(Channel.OUTPUT, 0)
    return request.resume.screen or have < stream.rings[Channel.OUTPUT].start


def resize_to(stream: Stream, request: Attach) -> None:
    """Give the terminal the size that `request` names, if it does."""
    if request.columns is not None and request.rows is not None:
        stream.resize(TerminalSize(request.columns, request.rows))


def start_request(
    request: Attach, start: Start, target: SocketTarget | None = None, *, view_only: bool = False
) -> StartRequest:
    """Return what is to be started; `target` is where a connection leads.

    Raises:
      StartError: a file stream was not told what to do.
    """
    size = TerminalSize()
    if request.columns is not None and request.rows is not None:
        size = TerminalSize(request.columns, request.rows)
    return StartRequest(
        kind=request.kind,
        command=tuple(start.command),
        environment=start.environment,
        directory=start.directory,
        user=start.user,
        timeout=start.timeout,
        size=size,
        overflow=start.overflow,
        socket=target,
        view_only=view_only,
        file=_file_request(request, start),
    )


def socket_target(
    request: Attach, start: Start, desktop: SocketTarget | None
) -> SocketTarget | None:
    """Return where a connection leads; None for other kinds.

    `desktop` is where `vnc` leads if the request does not say.

    Raises:
      AttachRefused: it is wrong.
    """
    if request.kind not in {Kind.TCP, Kind.VNC}:
        return None
    if request.kind is Kind.VNC and start.port is None and start.path is None and desktop:
        return desktop
    try:
        return SocketTarget(start.port, start.path)
    except ValueError as error:
        raise AttachRefused(Refusal.BAD_REQUEST, str(error)) from error


def _file_request(request: Attach, start: Start) -> FileRequest | None:
    if request.kind is not Kind.FILE:
        return None
    if start.file is None:
        raise StartError("a file stream needs to be told what to do")
    return FileRequest(**msgspec.structs.asdict(start.file))
