"""`trunkline serve` as a real process with a directory of its own, for system tests.

Whatever a test does to it, at its end the server must stop when asked to, with exit code 0, leave no
process of its sessions behind, and have logged neither a traceback nor a secret.
"""

from __future__ import annotations

import atexit
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx2

READY_SECONDS = 60.0
STOP_SECONDS = 30.0

MARK = "TEST_SERVER_MARK"
"""A variable that the server and all that it starts carry."""

_READY = re.compile(r"^ +(?P<url>https?://[^/\s]+)/#code=(?P<code>\S+)$", re.MULTILINE)
_TICKET = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.|token=\w|trunk\.ticket\.\w")
_LEFT_OUT = re.compile(r"TRUNKLINE_|XDG_|PYTEST_|COV_|LINES$|COLUMNS$|ENV$|BASH_ENV$")


@cache
def _bytecode_directory() -> str:
    directory = tempfile.mkdtemp(prefix="trunkline-bytecode-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def trunkline_command(*arguments: str) -> list[str]:
    """Return the command line that runs `trunkline` with this interpreter."""
    return [sys.executable, "-c", "from trunkline.cli import main; main()", *arguments]


def clean_environment(home: Path) -> dict[str, str]:
    """Return an environment for a process: nothing of this user's own set-up is in it."""
    home.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not _LEFT_OUT.match(k)}
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        # Every process would compile everything again, which takes longer than the tests.
        environment["PYTHONPYCACHEPREFIX"] = _bytecode_directory()
    return environment | {
        "HOME": str(home),
        "SHELL": "/bin/sh",
        "XDG_STATE_HOME": str(home / "state"),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONWARNINGS": "error",
    }


def pids_with(name: str, value: str) -> list[int]:
    """Return the living processes that were started with ``name=value``."""
    entry = f"{name}={value}".encode()
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal():
            continue
        try:
            is_one = entry in (directory / "environ").read_bytes().split(b"\0")
            state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if is_one and state not in "ZX":
            found.append(int(directory.name))
    return found


def process_name(pid: int) -> str:
    """Return the name of a process; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


def wait_until_none(name: str, value: str, seconds: float = 10.0) -> list[int]:
    """Wait until no process with ``name=value`` is left; return those that are after `seconds`."""
    deadline = time.monotonic() + seconds
    while (pids := pids_with(name, value)) and time.monotonic() < deadline:
        try:
            pidfd = os.pidfd_open(pids[0])
        except ProcessLookupError:
            continue
        select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
        os.close(pidfd)
    return pids


@dataclass(frozen=True, slots=True)
class Usage:
    """What the server takes of the machine; `rss` in bytes."""

    descriptors: int
    threads: int
    rss: int


@dataclass
class ServerProcess:
    """A running server.  Made by `running_server`."""

    process: subprocess.Popen[str]
    url: str
    login_code: str
    token: str
    home: Path
    data_dir: Path
    log_file: Path
    environment: Mapping[str, str]
    mark: str
    ca_file: Path | None = None
    announced: str = ""
    secrets: set[str] = field(default_factory=set)
    """Further strings that must never be in the log."""

    @property
    def host(self) -> str:
        """Host and port, as in a Host header."""
        return self.url.partition("://")[2]

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def client(self, token: str | None = None, **options: Any) -> httpx2.Client:
        """Return an HTTP client that knows the credential (or `token`; "" for none)."""
        token = self.token if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        verify: Any = True
        if self.ca_file is not None:
            import ssl

            verify = ssl.create_default_context(cafile=str(self.ca_file))
        return httpx2.Client(
            base_url=self.url,
            headers=headers,
            timeout=20,
            trust_env=False,
            verify=verify,
            **options,
        )

    def create_session(self, ttl_seconds: int = 0, profile: str = "default") -> dict[str, Any]:
        """Make a session; return the server's whole answer."""
        with self.client() as client:
            answer = client.post(
                "/v1/sessions", json={"profile": profile, "ttl_seconds": ttl_seconds}
            )
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        self.secrets.add(created["attach"]["token"])
        return created

    def ticket(self, session_id: str, **wish: Any) -> str:
        """Return a ticket for the session."""
        with self.client() as client:
            answer = client.post(f"/v1/sessions/{session_id}/attach", json=wish)
        assert answer.status_code == 201, answer.text
        token: str = answer.json()["token"]
        self.secrets.add(token)
        return token

    def session(self, session_id: str) -> dict[str, Any]:
        """Return what the server says of a session."""
        with self.client() as client:
            answer = client.get(f"/v1/sessions/{session_id}")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def delete_session(self, session_id: str) -> None:
        """End a session; see that nothing is left of it."""
        with self.client() as client:
            answer = client.delete(f"/v1/sessions/{session_id}")
        assert answer.status_code == 200, answer.text
        assert wait_until_none("TRUNKLINE_SESSION", session_id) == []

    def usage(self) -> Usage:
        status = Path(f"/proc/{self.pid}/status").read_text()
        numbers = dict(re.findall(r"^(Threads|VmRSS):\s+(\d+)", status, re.MULTILINE))
        return Usage(
            descriptors=len(list(Path(f"/proc/{self.pid}/fd").iterdir())),
            threads=int(numbers["Threads"]),
            rss=int(numbers["VmRSS"]) * 1024,
        )

    def check_log(self) -> None:
        """See that the log holds no traceback, no error and no secret."""
        log = self.log
        assert "Traceback" not in log, log[-5000:]
        assert '"level": "error"' not in log, log[-5000:]
        for secret in (self.token, self.login_code, *self.secrets):
            assert secret not in log, "a secret is in the log"
        found = _TICKET.search(log)
        assert found is None, f"what looks like a ticket is in the log: {found}"

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
        """Ask the server to stop; return its exit code.

        Raises:
          subprocess.TimeoutExpired: it did not within `seconds`.
        """
        self.process.send_signal(number)
        return self.process.wait(seconds)


def wait_for_line(process: subprocess.Popen[str], pattern: re.Pattern[str], seconds: float) -> str:
    """Read the standard output of `process` until `pattern` is found; return what was read."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    deadline = time.monotonic() + seconds
    text = ""
    while pattern.search(text) is None:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing that matches {pattern.pattern!r} within {seconds} s: {text!r}"
        data = os.read(descriptor, 4096)
        if not data:
            process.wait(seconds)
            raise AssertionError(f"the process ended ({process.returncode}): {text!r}")
        text += data.decode()
    return text


@contextmanager
def running_server(
    directory: Path,
    *arguments: str,
    config: str | None = None,
    ca_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    clean_end: bool = True,
    prefix: Sequence[str] = (),
) -> Iterator[ServerProcess]:
    """Run `trunkline serve --port 0` with its data in `directory`.

    `prefix` is put before the command.  With `clean_end`, the server must stop well at the end and
    leave nothing behind; without, it is only killed.
    """
    home = directory / "home"
    data_dir = directory / "data"
    mark = uuid.uuid4().hex
    # Most tests look at processes and paths of this machine.
    runtime = () if "--runtime" in arguments else ("--runtime", "local")
    options = ["--port", "0", "--data-dir", str(data_dir), *runtime, *arguments]
    if config is not None:
        config_file = directory / "trunkline.toml"
        config_file.write_text(config)
        options += ["--config", str(config_file)]
    log_file = directory / f"server-{mark[:8]}.log"
    env = {**clean_environment(home), MARK: mark, **(environment or {})}
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*prefix, *trunkline_command("serve", *options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=env,
            cwd=directory,
            text=True,
        )
    try:
        try:
            text = wait_for_line(process, _READY, READY_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}; {log_file.read_text()[-3000:]}") from None
        match = _READY.search(text)
        assert match is not None
        server = ServerProcess(
            process=process,
            url=match["url"],
            login_code=match["code"],
            token=(data_dir / "credential").read_text().strip(),
            home=home,
            data_dir=data_dir,
            log_file=log_file,
            environment={k: v for k, v in env.items() if k != MARK},
            mark=mark,
            ca_file=ca_file,
            announced=text,
        )
        yield server
        if clean_end:
            if process.poll() is None:
                server.stop()
            assert process.returncode == 0, server.log[-3000:]
            assert wait_until_none(MARK, mark, 0) == []
            server.check_log()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
        for pid in pids_with(MARK, mark):
            os.kill(pid, signal.SIGKILL)
