"""Terminals, commands and files: what a session's content comes through with."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import transfers, trunk
from bench.flows.bulk import down, paced, up
from bench.loadgen import Moved
from bench.measure import DIRECT, REFERENCE, Case, Flow, Lab, Sample
from bench.pattern import Damage
from bench.rivals.base import EXEC, TERMINAL
from bench.server import Server
from bench.workers import WorkerFailed

LARGEST_FILE = 256 * 1024 * 1024
UPLOAD_LEAST = 48 * 1024 * 1024


def where(case: Case) -> trunk.Where:
    """Return the session of a Trunkline."""
    server, session = server_of(case)
    return trunk.Where(server.url, server.token, session)


def server_of(case: Case) -> tuple[Server, str]:
    """Return a running Trunkline and the id of its session."""
    assert case.running is not None
    server, session = case.running.extra["server"], case.running.extra["session"]
    assert isinstance(server, Server)
    assert isinstance(session, str)
    return server, session


def _extra(case: Case, key: str) -> object:
    assert case.running is not None
    return case.running.extra.get(key)


def terminal(lab: Lab, case: Case) -> Sample:
    """Measure the output of `cat` on a terminal, in MB/s of what is shown."""

    def move(amount: int) -> tuple[int, Moved]:
        with TemporaryDirectory(prefix="trunkline-bench-") as directory:
            path = Path(directory) / "lines"
            size = transfers.make_file(path, min(amount, LARGEST_FILE), for_terminal=True)
            expected = transfers.shown(size)
            moved: Moved
            if case.subject.name == DIRECT:
                moved = lab.client.call(transfers.local_terminal, str(path), expected)
            elif dialect := _extra(case, "dialect"):
                link = _extra(case, "link")
                assert isinstance(link, Path)
                link.unlink(missing_ok=True)
                link.symlink_to(path)
                assert case.running is not None
                assert case.running.route is not None
                route = case.running.route()
                moved = lab.client.call(transfers.remote_terminal, route, dialect, expected)
            else:
                moved = lab.client.call(trunk.terminal, where(case), str(path), expected)
            return expected, moved

    return paced(case, move)


def command(lab: Lab, case: Case) -> Sample:
    """Measure the output of `cat` without a terminal."""

    def move(amount: int) -> tuple[int, Moved]:
        with TemporaryDirectory(prefix="trunkline-bench-") as directory:
            path = Path(directory) / "file"
            size = transfers.make_file(path, min(amount, LARGEST_FILE), for_terminal=False)
            moved: Moved
            if "server" in (case.running.extra if case.running else {}):
                moved = lab.client.call(trunk.command, where(case), str(path), size)
            else:
                ssh = _extra(case, "ssh") or []
                assert isinstance(ssh, list)
                moved = lab.client.call(transfers.command_output, [*ssh, "cat", str(path)], size)
            return size, moved

    return paced(case, move)


def download(lab: Lab, case: Case) -> Sample:
    """Measure a file that comes over HTTP."""
    if case.subject.name in (DIRECT, REFERENCE):
        return down(lab, case, 65536, 1)
    if case.subject.name == "openssh":
        return command(lab, case)

    def move(amount: int) -> tuple[int, Moved]:
        server, session = server_of(case)
        with TemporaryDirectory(prefix="trunkline-bench-") as directory:
            path = Path(directory) / "file"
            size = transfers.make_file(path, min(amount, LARGEST_FILE), for_terminal=False)
            target = f"/v1/sessions/{session}/files?path={path}"
            moved: Moved = lab.client.call(
                transfers.http_get, server.api.port, target, server.token, size
            )
            return size, moved

    return paced(case, move)


def upload(lab: Lab, case: Case) -> Sample:
    """Measure a file that goes over HTTP, until it is in its place; its content is compared."""
    if case.subject.name in (DIRECT, REFERENCE):
        return up(lab, case, 65536, 1)

    def move(amount: int) -> tuple[int, Moved]:
        size = min(amount, LARGEST_FILE)
        with TemporaryDirectory(prefix="trunkline-bench-") as directory:
            path, right = Path(directory) / "file", Path(directory) / "right"
            size = transfers.make_file(right, size, for_terminal=False)
            if case.subject.name == "openssh":
                ssh = _extra(case, "ssh")
                assert isinstance(ssh, list)
                line = [*ssh, f"cat > {shlex.quote(str(path))}"]
                seconds = lab.client.call(transfers.command_input, line, size)
            else:
                server, session = server_of(case)
                target = f"/v1/sessions/{session}/files?path={path}"
                seconds = lab.client.call(
                    transfers.http_put, server.api.port, target, server.token, size
                )
            if path.read_bytes() != right.read_bytes():
                raise WorkerFailed("the file that arrived is not the one that was sent")
            return size, Moved(seconds, Damage(received=size))

    # What goes once per file (for OpenSSH a connection) is not to be what is measured.
    return paced(case, move, least=UPLOAD_LEAST)


_FILES = (DIRECT, REFERENCE, "trunkline", "openssh")

FLOWS = (
    Flow("pty", "terminal output (cat)", "MB/s", terminal, TERMINAL, reference=DIRECT, limit=False),
    Flow("exec", "command output (cat)", "MB/s", command, EXEC, reference=DIRECT, limit=False),
    Flow("file-down", "file over HTTP, download", "MB/s", partial(download), only=_FILES),
    Flow("file-up", "file over HTTP, upload", "MB/s", partial(upload), only=_FILES),
)
