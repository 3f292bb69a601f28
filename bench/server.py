"""A real server for a benchmark: its own process, its own data directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trunkline
from bench.wire import StartFailed, free_port

READY = b"/#code="
END_SECONDS = 15.0
CONFIG = """\
allowed_hosts = ["127.0.0.1:{line}"]
{more}

[streams]
max_streams = 256
"""
"""`line` is for `Server.line_port`.  Of streams the default is 64 streams for a session; some flows want 100 at once."""


class Refused(Exception):
    """The server answered a request with an error."""


class Api:
    """The few requests that preparing a measurement takes, blocking."""

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the decoded answer.

        Raises:
          Refused: it is an error.
        """
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            content = json.dumps(body) if body is not None else None
            connection.request(method, path, content, self._headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise Refused(f"{method} {path}: {response.status} {text[:300]!r}")
        return json.loads(text) if text else None

    def create_session(self) -> str:
        """Return the id of a new session."""
        body = {"profile": "default", "ttl_seconds": 0}
        session: str = self.call("POST", "/v1/sessions", body)["session_id"]
        return session

    def ticket(self, session: str, kinds: list[str], uses: int = 1) -> str:
        """Return a ticket."""
        body = {"kinds": kinds, "uses": uses, "ttl_seconds": 900}
        token: str = self.call("POST", f"/v1/sessions/{session}/attach", body)["token"]
        return token


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    token: str
    pid: int
    api: Api
    line_port: int
    """A free port that the server answers for: where a line to it may begin."""


@contextmanager
def serve(more: str = "", runtime: str = "local") -> Iterator[Server]:
    """Start `trunkline serve` on a free port of 127.0.0.1 and wait until it is ready.

    `more` goes into its configuration, `runtime` makes its sandboxes.

    Raises:
      StartFailed: it ended before it was.
    """
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as directory:
        config = Path(directory) / "trunkline.toml"
        line_port = free_port()
        config.write_text(CONFIG.format(line=line_port, more=more))
        command = [sys.executable, "-m", "trunkline", "serve", "--port", "0", "--runtime", runtime]
        command += ["--data-dir", f"{directory}/data", "--config", str(config)]
        command += ["--log-level", "warning"]
        with (
            tempfile.TemporaryFile() as log,
            subprocess.Popen(
                command,
                env={**os.environ, "XDG_STATE_HOME": directory},
                stdout=subprocess.PIPE,
                stderr=log,
            ) as process,
        ):
            try:
                try:
                    url = _url(process)
                except EOFError:
                    log.seek(0)
                    said = log.read()[-500:].decode(errors="replace").strip()
                    raise StartFailed(f"trunkline serve: {said}") from None
                token = (Path(directory) / "data" / "credential").read_text().strip()
                port = urlsplit(url).port or 80
                yield Server(url, token, process.pid, Api(port, token), line_port)
            finally:
                process.terminate()
                try:
                    process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


@asynccontextmanager
async def open_server() -> AsyncIterator[trunkline.Client]:
    """Start a server; give a client for it."""
    with serve() as server:
        async with trunkline.open_client(server.url, server.token) as client:
            yield client


def _url(process: subprocess.Popen[bytes]) -> str:
    """Read the ready message up to its URL."""
    assert process.stdout is not None
    for line in process.stdout:
        if READY in line:
            return line[line.index(b"http") : line.index(READY)].decode()
    raise EOFError
