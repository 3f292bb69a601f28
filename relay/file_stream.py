"""A client's side of a `file` stream: one operation, its content and what is told of it (§ 6)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from relay.carrier import Buffer
from relay.client import Trunk
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.endpoint import Channel, FileOperation, Kind
from relay.errors import RelayError
from relay.file_problems import FileProblem
from relay.inbox import Missed
from relay.protocol.messages import FileStart, Start

MAX_TOLD = 64 * 1024
"""Bytes of what may be told of one operation."""

WITH_CONTENT = frozenset({FileOperation.READ, FileOperation.WRITE, FileOperation.LIST})
"""Operations of which something is told before the content, too."""

Told = dict[str, Any]


class FileFailed(RelayError):
    """An operation on a file was not done; the message says why and is for the user.

    `offset`: how much of an upload is there, where that is what is wrong.
    """

    def __init__(self, problem: FileProblem, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message
        self.offset = offset


class FileStream:
    """One operation.  Made by `open_file_stream`; its methods are for one task.

    They raise, besides what they say:
      FileFailed: the operation failed.
      AttachmentClosed, AttachRefused, InputUncertain: the stream is over before the operation.
    """

    def __init__(self, attachment: ClientAttachment, operation: FileOperation) -> None:
        self.attachment = attachment
        self._head_is_due = operation in WITH_CONTENT
        self._buffer = bytearray()

    async def head(self) -> Told:
        """Wait for what is told before any content: the operation has begun."""
        told = await self._next_told()
        self._head_is_due = False
        return told

    async def receive(self) -> bytes:
        """Wait for content; ``b""`` at its end, be it complete or not: `result` tells."""
        item = await self.attachment.receive(Channel.OUTPUT)
        if isinstance(item, Missed):
            raise FileFailed(FileProblem.FAILED, "bytes of the file were lost on the way")
        return b"" if item is None else item.data

    async def send(self, data: Buffer) -> None:
        """Send content; waits while too much of it is under way."""
        try:
            await self.attachment.send(data)
        except trio.BrokenResourceError:
            await self.result()
            raise

    async def finish(self) -> Told:
        """End the content that was sent; return what became of it."""
        self.attachment.send_eof()
        return await self.result()

    async def result(self) -> Told:
        """Wait for the end; return what is told then."""
        if self._head_is_due:
            await self.head()
        return await self._next_told()

    async def _next_told(self) -> Told:
        while b"\n" not in self._buffer:
            item = await self.attachment.receive(Channel.ERROR)
            if item is None or isinstance(item, Missed) or len(self._buffer) > MAX_TOLD:
                raise FileFailed(FileProblem.FAILED, "the operation ended without saying how")
            self._buffer += item.data
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = bytearray(rest)
        return _read_told(bytes(line))


def _read_told(line: bytes) -> Told:
    """Return what is told.

    Raises:
      FileFailed: that it failed, or what is no JSON object.
    """
    try:
        told = msgspec.json.decode(line, type=Told)
    except msgspec.MsgspecError as error:
        raise FileFailed(FileProblem.FAILED, f"what is told is not understood: {error}") from error
    if "error" not in told:
        return told
    try:
        problem = FileProblem(told["error"])
    except ValueError:
        problem = FileProblem.FAILED
    offset = told.get("offset")
    raise FileFailed(
        problem, str(told.get("message", "")), offset if isinstance(offset, int) else None
    )


@asynccontextmanager
async def open_file_stream(trunk: Trunk, request: FileStart) -> AsyncIterator[FileStream]:
    """Begin the operation that `request` describes.

    Leaving the block before its end breaks it off.

    Raises:
      AttachRefused: it may not be begun.
      AttachmentClosed: the trunk is closed or was given up.
      ValueError: the request is malformed.
    """
    attachment = await trunk.attach(
        AttachOptions(
            attachment=secrets.token_urlsafe(18),
            kind=Kind.FILE,
            tag=f"file-{secrets.token_hex(8)}",
            start=Start(file=request),
        )
    )
    try:
        yield FileStream(attachment, request.operation)
    finally:
        trunk.detach(attachment)
