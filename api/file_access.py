"""Operations on the files of a session, for the endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from quart import request

from api.body import BoundedRequest
from api.conditions import CONDITIONAL, Outcome, Version, evaluate
from api.context import current_context
from api.file_problems import precondition_failed
from api.running import grant_for, running_session
from api.times import moment_of
from relay.client import Trunk
from relay.endpoint import FileOperation, Kind
from relay.file_problems import FileProblem
from relay.file_stream import FileFailed, FileStream, Told, open_file_stream
from relay.protocol.messages import FileStart


async def session_trunk(session_id: str) -> Trunk:
    """Open a trunk to the session, until the response to the current request has been sent.

    Raises:
      ApiError: there is no such session, it is somebody else's, or it does not run.
    """
    record = await running_session(session_id)
    opened = current_context().host.open_trunk(grant_for(record, Kind.FILE))
    resources = cast("BoundedRequest", request).resources
    return await resources.enter_async_context(opened)


async def open_until_answered(trunk: Trunk, start: FileStart) -> FileStream:
    """Begin an operation, which ends with the response to the current request at the latest."""
    resources = cast("BoundedRequest", request).resources
    return await resources.enter_async_context(open_file_stream(trunk, start))


async def perform(trunk: Trunk, start: FileStart) -> Told:
    """Do an operation that has no content; return what is told of it.

    Raises:
      FileFailed: it was not done.
    """
    async with open_file_stream(trunk, start) as stream:
        return await stream.result()


@asynccontextmanager
async def writing(trunk: Trunk, start: FileStart) -> AsyncIterator[FileStream]:
    """Begin to write; the block gets to run when the content is awaited.

    Raises:
      FileFailed: it cannot be written.
    """
    async with open_file_stream(trunk, start) as stream:
        await stream.head()
        yield stream


async def send_body(stream: FileStream) -> Told:
    """Send the body of the current request as the content; return what became of it.

    A client that leaves before the end of its body cancels this, and with it the operation.

    Raises:
      FileFailed: it was not written.
    """
    async for chunk in request.body:
        await stream.send(chunk)
    return await stream.finish()


def version_of(told: Told) -> Version:
    """Return the validators of a file."""
    return Version(told["etag"], moment_of(told["modified"] // 1_000_000_000))


def conditions() -> dict[str, str]:
    """Return the preconditions of the current request; fields that come twice are joined."""
    return {
        name: ", ".join(values) for name in CONDITIONAL if (values := request.headers.getlist(name))
    }


async def pin(trunk: Trunk, path: str) -> tuple[str | None, bool]:
    """Evaluate the preconditions of a request that changes a file.

    Return what they come to for the operation itself, so that nothing can get in between: the
    `if_match` and `overwrite` of it.

    Raises:
      ApiError: they do not hold (412).
    """
    headers = conditions()
    if not headers:
        return None, True
    told: Told | None = None
    try:
        told = await perform(trunk, FileStart(operation=FileOperation.STAT, path=path))
    except FileFailed as error:
        if error.problem is not FileProblem.NOT_FOUND:
            raise
    outcome = evaluate(request.method, headers, version_of(told) if told else None)
    if outcome is not Outcome.PROCEED:
        raise precondition_failed()
    return (told["etag"], True) if told else (None, False)
