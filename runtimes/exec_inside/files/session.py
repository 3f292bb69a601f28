"""The files of one session, by programs inside its sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import trio

from relay.endpoint import FileOperation, FileRequest
from runtimes.exec_inside.files.calls import Calls
from runtimes.exec_inside.files.operations import (
    InnerRoot,
    Inside,
    List,
    MakeDirectory,
    Move,
    Read,
    Remove,
    Stat,
)
from runtimes.exec_inside.process import ExecHost
from runtimes.files.operations import Operation
from runtimes.files.session import SessionFiles
from runtimes.files.writing import Write

_OPERATIONS: Mapping[FileOperation, Callable[[Inside, FileRequest], Operation]] = {
    FileOperation.READ: Read,
    FileOperation.LIST: List,
    FileOperation.STAT: Stat,
    FileOperation.MAKE_DIRECTORY: MakeDirectory,
    FileOperation.MOVE: Move,
    FileOperation.REMOVE: Remove,
}

THREADS = 4
"""Operations of one session that are worked on at the same time."""


class InnerFiles(SessionFiles):
    """Made by `open_inner_files`."""

    def __init__(self, inside: Inside, limiter: trio.CapacityLimiter) -> None:
        super().__init__(inside, limiter, unnamed=False)
        self._inside = inside

    def _operation(self, request: FileRequest) -> Operation:
        if request.operation is FileOperation.WRITE:
            return Write(self._inside, request, unnamed=False)
        return _OPERATIONS[request.operation](self._inside, request)


@asynccontextmanager
async def open_inner_files(host: ExecHost, home: str) -> AsyncIterator[InnerFiles]:
    """Give access to the files of a sandbox for as long as the ``async with`` block lasts.

    `home` is where relative paths begin: an absolute path in it.
    """
    inside = Inside(InnerRoot(Calls(host)), home)
    files = InnerFiles(inside, trio.CapacityLimiter(THREADS))
    try:
        yield files
    finally:
        await files.aclose()
