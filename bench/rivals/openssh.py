"""OpenSSH, server and client, on loopback: `-L` for ports, `ssh host cat` for commands.

AES-GCM, which is the fastest of its ciphers where the processor helps.
"""

from __future__ import annotations

import getpass
import subprocess
from contextlib import ExitStack
from pathlib import Path

from bench.rivals.base import (
    EXEC,
    TCP,
    Ports,
    Running,
    Subject,
    directory,
    launch,
    program,
)
from bench.wire import Route, free_port

CIPHER = "aes128-gcm@openssh.com"
CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {home}/host
AuthorizedKeysFile {home}/user.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
MaxStartups 200
Subsystem sftp internal-sftp
"""


def _missing() -> str | None:
    if program("sshd") and program("ssh") and program("ssh-keygen"):
        return None
    return "apt install openssh-server openssh-client"


def _start(stack: ExitStack, ports: Ports) -> Running:
    home, port, forwarded = directory(stack), free_port(), free_port()
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)], check=True
        )
    (home / "sshd_config").write_text(CONFIG.format(port=port, home=home))
    if getpass.getuser() == "root":
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd confines the half that has no rights
    sshd = program("sshd") or "sshd"
    server = launch(stack, [sshd, "-D", "-e", "-f", str(home / "sshd_config")], port=port)
    ssh = [program("ssh") or "ssh", "-F", "none", "-p", str(port), "-i", str(home / "user")]
    ssh += ["-c", CIPHER, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
    ssh += ["-o", "LogLevel=ERROR", "-o", f"UserKnownHostsFile={home}/known"]
    host = f"{getpass.getuser()}@127.0.0.1"
    forwarding = f"127.0.0.1:{forwarded}:127.0.0.1:{ports.tcp}"
    client = launch(stack, [*ssh, "-N", "-L", forwarding, host], port=forwarded)
    return Running(
        [server.pid, client.pid],
        lambda: Route(forwarded, websocket=False),
        extra={"ssh": [*ssh, host]},
    )


OPENSSH = Subject("openssh", "OpenSSH", frozenset({TCP, EXEC}), _start, _missing)
