"""A real server for a benchmark: its own process, its own data directory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

import trunkline

READY_WITHIN = 30.0


@asynccontextmanager
async def open_server() -> AsyncIterator[trunkline.Client]:
    """Start `trunkline serve` on a free port of 127.0.0.1; give a client for it."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "XDG_STATE_HOME": directory}
        arguments = ["serve", "--port", "0", "--data-dir", f"{directory}/data"]
        command = [sys.executable, "-m", "trunkline", *arguments, "--log-level", "warning"]
        process = await trio.lowlevel.open_process(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            url = await _url(process)
            token = (Path(directory) / "data" / "credential").read_text().strip()
            async with trunkline.open_client(url, token) as client:
                yield client
        finally:
            process.terminate()
            with trio.move_on_after(15, shield=True) as scope:
                await process.wait()
            if scope.cancelled_caught:
                process.kill()


async def _url(process: trio.Process) -> str:
    """Read the ready message up to its URL."""
    assert process.stdout is not None
    said = b""
    with trio.fail_after(READY_WITHIN):
        while b"/#code=" not in said:
            piece = await process.stdout.receive_some()
            if not piece:
                raise RuntimeError("the server ended before it was ready")
            said += piece
    start = said.index(b"http")
    return said[start : said.index(b"/#code=")].decode()
