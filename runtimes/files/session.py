"""The files of one session: turns requests into endpoints, and owns the uploads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio

from relay.endpoint import FileOperation, FileRequest
from relay.file_problems import FileProblem
from runtimes.files.beneath import Resolver, Root
from runtimes.files.endpoint import CLOSING, FileEndpoint
from runtimes.files.errors import FileError
from runtimes.files.listing import List
from runtimes.files.operations import MakeDirectory, Move, Operation, Site, Stat
from runtimes.files.reading import Read
from runtimes.files.removal import Remove
from runtimes.files.uploads import Uploads
from runtimes.files.writing import Refuse, RemoveUpload, StatUpload, Upload, Write, WritePart

_log = structlog.get_logger()

_OPERATIONS: Mapping[FileOperation, Callable[[Site, FileRequest], Operation]] = {
    FileOperation.READ: Read,
    FileOperation.WRITE: Write,
    FileOperation.LIST: List,
    FileOperation.STAT: Stat,
    FileOperation.MAKE_DIRECTORY: MakeDirectory,
    FileOperation.MOVE: Move,
    FileOperation.REMOVE: Remove,
}


class SessionFiles:
    """Made by `open_session_files`."""

    def __init__(self, site: Site, limiter: trio.CapacityLimiter, *, unnamed: bool) -> None:
        self._site = site
        self._limiter = limiter
        self._unnamed = unnamed
        self._uploads = Uploads(trio.current_time)
        self._holders: dict[str, FileEndpoint] = {}
        self._open: set[FileEndpoint] = set()

    @property
    def open_count(self) -> int:
        """How many operations are under way."""
        return len(self._open)

    async def start(self, request: FileRequest) -> FileEndpoint:
        """Return an endpoint that does what `request` says; it reports even a refusal itself.

        Cancellation: nothing was done.
        """
        await trio.lowlevel.checkpoint()
        if request.upload is not None:
            return await self._start_on_upload(request, request.upload)
        return self._endpoint(self._operation(request))

    def refuse(self, error: FileError) -> FileEndpoint:
        """Return an endpoint that reports `error` and does nothing."""
        return self._endpoint(Refuse(error))

    def _operation(self, request: FileRequest) -> Operation:
        if request.operation is FileOperation.WRITE:
            return Write(self._site, request, unnamed=self._unnamed)
        return _OPERATIONS[request.operation](self._site, request)

    async def _start_on_upload(self, request: FileRequest, name: str) -> FileEndpoint:
        while (holder := self._holders.get(name)) is not None:
            # Its client is thought to be gone: this is it, or somebody who goes on in its place.
            await holder.interrupt()
        evicted: Upload | None = None
        try:
            if request.operation is FileOperation.WRITE:
                upload, evicted = self._uploads.find_or_add(name, request)
            else:
                upload = self._uploads.find(name)
        except FileError as error:
            return self._endpoint(Refuse(error))
        operation: Operation
        match request.operation:
            case FileOperation.WRITE:
                operation = WritePart(self._site, request, upload, unnamed=self._unnamed)
            case FileOperation.STAT:
                operation = StatUpload(upload)
            case FileOperation.REMOVE:
                operation = RemoveUpload(upload)
            case _:
                refusal = FileError(FileProblem.INVALID, f"an upload has no {request.operation}")
                return self._endpoint(Refuse(refusal))
        endpoint = self._endpoint(operation, upload)
        self._holders[name] = endpoint
        upload.is_held = True
        if evicted is not None:
            await trio.to_thread.run_sync(evicted.discard, limiter=self._limiter)
        return endpoint

    def _endpoint(self, operation: Operation, upload: Upload | None = None) -> FileEndpoint:
        endpoint = FileEndpoint(operation, self._limiter, partial(self._freed, upload))
        self._open.add(endpoint)
        return endpoint

    def _freed(self, upload: Upload | None, endpoint: FileEndpoint) -> None:
        self._open.discard(endpoint)
        if upload is not None:
            if self._holders.get(upload.name) is endpoint:
                del self._holders[upload.name]
            self._uploads.release(upload)

    async def aclose(self) -> None:
        """Break off what is under way and throw away what has come of uploads."""
        deadline = trio.current_time() + CLOSING
        with trio.CancelScope(shield=True, deadline=deadline) as scope:
            for endpoint in tuple(self._open):
                await endpoint.aclose()
            await trio.to_thread.run_sync(self._free, limiter=self._limiter)
        if scope.cancelled_caught:
            _log.warning("file operations do not end", count=len(self._open))

    def _free(self) -> None:
        for upload in self._uploads.clear():
            upload.discard()
        self._site.root.close()


@asynccontextmanager
async def open_session_files(
    directory: str,
    home: str,
    limiter: trio.CapacityLimiter,
    *,
    resolver: Resolver | None = None,
    unnamed: bool = True,
) -> AsyncIterator[SessionFiles]:
    """Give access to what is beneath `directory` for as long as the ``async with`` block lasts.

    `home` is where relative paths begin: an absolute path, as it is seen from inside.  `limiter`
    bounds the threads.  `resolver` and `unnamed` choose how: the best way by default.

    Raises:
      OSError: `directory` cannot be opened.
    """
    root = await trio.to_thread.run_sync(
        lambda: Root(directory, resolver=resolver), limiter=limiter
    )
    files = SessionFiles(Site(root, home), limiter, unnamed=unnamed)
    try:
        yield files
    finally:
        await files.aclose()
