"""An OpenSSH server of the tests' own, on the loopback: its keys, its configuration, its end."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtimes.ssh import SshHost

SSHD = "/usr/sbin/sshd"
START_SECONDS = 20.0
END_SECONDS = 10.0


@dataclass(frozen=True)
class SshServer:
    """A running server, whose files are below `directory`."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def key(self) -> str:
        return str(self.directory / "user_key")

    @property
    def known_hosts(self) -> str:
        return str(self.directory / "known_hosts")

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def host(self, **changes: object) -> SshHost:
        options: dict[str, object] = {"known_hosts": self.known_hosts, "keys": (self.key,)}
        return SshHost("127.0.0.1", getpass.getuser(), port=self.port, **(options | changes))  # type: ignore[arg-type] # of the tests' own choice


def missing() -> str | None:
    """Say what keeps a server from being started here; None: nothing."""
    if not os.access(SSHD, os.X_OK):
        return f"{SSHD} is not installed"
    if shutil.which("ssh-keygen") is None:
        return "ssh-keygen is not installed"
    return None


def make_key(path: Path, *options: str) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path), *options]
    subprocess.run(command, check=True, timeout=20)


@contextmanager
def ssh_server(directory: Path, *settings: str) -> Iterator[SshServer]:
    """Run a server; `settings` are further lines of its configuration."""
    directory.chmod(0o700)
    for name in ("host_key", "user_key"):
        make_key(directory / name)
    (directory / "authorized_keys").write_text((directory / "user_key.pub").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kind, key, *_ = (directory / "host_key.pub").read_text().split()
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    lines = (
        *settings,  # of two lines the first counts
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {directory / 'host_key'}",
        f"AuthorizedKeysFile {directory / 'authorized_keys'}",
        f"PidFile {directory / 'pid'}",
        "StrictModes no",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "LogLevel INFO",
        f"SetEnv HOME={directory}",  # so that the start-up files of the user's shell are not read
    )
    (directory / "config").write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(directory / "config")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        server = SshServer(directory, port, process)
        try:
            _wait_until_it_answers(server)
            yield server
        finally:
            process.terminate()
            process.wait(END_SECONDS)


def _wait_until_it_answers(server: SshServer) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        assert server.process.poll() is None, server.log
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as probe:
                assert probe.recv(4) == b"SSH-"
                return
        except OSError:
            assert time.monotonic() < until, server.log
            time.sleep(0.02)
