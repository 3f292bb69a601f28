"""Running commands, and the streams of a session."""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error

import trio
from quart import Blueprint
from quart_schema import document_request, document_response
from quart_trio.wrappers import TrioResponse

from api import fields, schemas
from api.context import current_context
from api.fields import FieldError
from api.json_body import read_json
from api.openapi import problems
from api.problems import INVALID_FIELD, STREAM_NOT_FOUND, ApiError, of_refusal
from api.running import grant_for, not_running, running_session
from api.schemas import respond
from relay.client import Trunk
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.endpoint import Channel, ExitStatus, Kind, Overflow
from relay.errors import AttachmentClosed, AttachRefused
from relay.inbox import Output
from relay.protocol.messages import Start
from runtimes.base import UnknownSession

DEFAULT_TIMEOUT = 30.0
"""Seconds that a command in the foreground may take if nothing else is asked for."""

blueprint = Blueprint("streams", __name__, url_prefix="/v1/sessions/<session_id>")


@blueprint.get("/streams")
@document_response(schemas.Streams)
@problems(401, 403, 404, 409)
async def index(session_id: str) -> TrioResponse:
    """List the streams of a running session."""
    record = await running_session(session_id)
    try:
        streams = current_context().host.streams(record.session_id)
    except UnknownSession:
        raise not_running("ending") from None
    return respond(schemas.Streams(streams=[schemas.stream_of(stream) for stream in streams]))


@blueprint.post("/streams/<tag>/signal")
@document_request(schemas.SignalRequest)
@document_response(schemas.Signalled)
@problems(400, 401, 403, 404, 409, 413, 415)
async def signal(session_id: str, tag: str) -> TrioResponse:
    """Send a signal to the process group of a stream."""
    wish = fields.parse_signal(await read_json() or b"{}")
    record = await running_session(session_id)
    try:
        current_context().host.send_signal(record.session_id, tag, wish.signal)
    except UnknownSession:
        raise not_running("ending") from None
    except KeyError:
        raise ApiError(
            STREAM_NOT_FOUND, "The session has no stream of this tag. GET …/streams lists them."
        ) from None
    except ValueError:
        raise ApiError(
            INVALID_FIELD,
            f"There is no signal {wish.signal!r}. Name one without SIG: TERM, INT, KILL, HUP, …",
            field="signal",
        ) from None
    return respond(schemas.Signalled())


@blueprint.post("/exec")
@document_request(schemas.ExecRequest)
@document_response(schemas.ExecResult)
@document_response(schemas.ExecStarted, 202)
@problems(400, 401, 403, 404, 409, 413, 415, 429, 501)
async def exec_(session_id: str) -> TrioResponse:
    """Run a command to its end and return what it wrote, or start it in the background.

    Its standard input ends after what is given. If the client goes away while it runs in the
    foreground, it is killed.
    """
    wish = fields.parse_exec(await read_json())
    stdin = _stdin(wish)
    record = await running_session(session_id)
    try:
        async with current_context().host.open_trunk(grant_for(record, Kind.EXEC)) as trunk:
            attachment = await trunk.attach(_options(wish))
            if wish.background:
                return await _leave_running(trunk, attachment, stdin)
            return await _run_to_end(attachment, wish, stdin)
    except AttachRefused as refusal:
        raise of_refusal(refusal) from None
    except (UnknownSession, AttachmentClosed):
        raise not_running("ending") from None


def _stdin(wish: schemas.ExecRequest) -> bytes:
    if wish.stdin_base64 is None:
        return (wish.stdin or "").encode()
    try:
        return b64decode(wish.stdin_base64, validate=True)
    except (Base64Error, ValueError):
        raise FieldError("stdin_base64", "'stdin_base64' must be base64.") from None


def _options(wish: schemas.ExecRequest) -> AttachOptions:
    timeout = wish.timeout_seconds
    if timeout is None and not wish.background:
        timeout = DEFAULT_TIMEOUT
    return AttachOptions(
        attachment=secrets.token_urlsafe(18),
        kind=Kind.EXEC,
        tag=wish.tag or f"exec-{secrets.token_hex(4)}",
        start=Start(
            command=wish.command,
            environment=wish.environment,
            directory=wish.directory,
            user=wish.user,
            timeout=timeout,
            overflow=wish.overflow or (Overflow.DROP_OLDEST if wish.background else None),
        ),
    )


async def _leave_running(trunk: Trunk, attachment: ClientAttachment, stdin: bytes) -> TrioResponse:
    answer = await attachment.wait_attached()
    try:
        await attachment.send(stdin)
    except trio.BrokenResourceError:
        pass  # it takes no input; that is its business
    else:
        attachment.send_eof()
    trunk.detach(attachment)
    return respond(schemas.ExecStarted(tag=answer.tag, pid=answer.pid), 202)


async def _run_to_end(
    attachment: ClientAttachment, wish: schemas.ExecRequest, stdin: bytes
) -> TrioResponse:
    began = trio.current_time()
    status: ExitStatus | None = None
    outputs = {Channel.OUTPUT: bytearray(), Channel.ERROR: bytearray()}
    truncated = False

    async def gather(channel: Channel) -> None:
        nonlocal truncated
        while (item := await attachment.receive(channel)) is not None:
            if isinstance(item, Output):
                room = wish.output_limit - len(outputs[channel])
                outputs[channel] += item.data[:room]
                truncated = truncated or len(item.data) > room

    async def feed() -> None:
        try:
            await attachment.send(stdin)
        except trio.BrokenResourceError:
            return  # it does not want (all of) its input
        attachment.send_eof()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            nursery.start_soon(gather, Channel.OUTPUT)
            nursery.start_soon(gather, Channel.ERROR)
        status = await attachment.wait()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None  # they all tell of the same end
    finally:
        if status is None:
            attachment.send_signal("KILL")  # nobody will ask for the result any more
    seconds = trio.current_time() - began
    limit = DEFAULT_TIMEOUT if wish.timeout_seconds is None else wish.timeout_seconds
    stdout, stderr, encoding = _as_text(outputs[Channel.OUTPUT], outputs[Channel.ERROR])
    return respond(
        schemas.ExecResult(
            tag=attachment.options.tag,
            exit_code=status.code,
            signal=status.signal,
            stdout=stdout,
            stderr=stderr,
            encoding=encoding,
            truncated=truncated,
            timed_out=seconds >= limit and status.signal in {"TERM", "KILL"},
            duration_ms=round(seconds * 1000),
        )
    )


def _as_text(stdout: bytearray, stderr: bytearray) -> tuple[str, str, schemas.Encoding]:
    try:
        return stdout.decode(), stderr.decode(), "utf-8"
    except UnicodeDecodeError:
        return b64encode(stdout).decode(), b64encode(stderr).decode(), "base64"
