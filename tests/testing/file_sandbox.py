"""A sandbox that has files and nothing else."""

from __future__ import annotations

from typing import Any

from relay.endpoint import Endpoint, StartRequest
from runtimes.base import Sandbox, SandboxStatistics
from runtimes.files import SessionFiles
from tests.testing.file_operations import Done, do


class FileSandbox(Sandbox):
    """Starts file streams."""

    def __init__(self, files: SessionFiles) -> None:
        self._files = files

    async def start(self, request: StartRequest) -> Endpoint:
        assert request.file is not None
        return await self._files.start(request.file)

    def statistics(self) -> SandboxStatistics:
        return SandboxStatistics(self._files.open_count, 0)


async def on(
    files: SessionFiles, operation: str, path: str, data: bytes | None = None, **options: Any
) -> Done:
    """Do one operation."""
    return await do(FileSandbox(files), operation, path, data, **options)
