"""Pods of the double of a cluster: each is a jail of bubblewrap; processes enter it with nsenter."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import struct
import subprocess
import tarfile
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.testing.container_image import HOME, image_tar, static_busybox

START_SECONDS = 20.0
PATH = "/bin"


def missing() -> str | None:
    """Say what keeps pods from being made here; None: nothing."""
    for program in ("bwrap", "nsenter", "dash"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if static_busybox() is None:
        return "no static busybox to make an image of (Debian: busybox-static)"
    return None


def unpack_images(directory: Path) -> dict[str, Path]:
    """Make the image ``full``: dash as its shell, socat, busybox."""
    programs = {
        name: found
        for name, tool in {
            "sh": "dash",
            "socat": "socat",
            "printenv": "printenv",
            "yes": "yes",
        }.items()
        if (found := shutil.which(tool))
    }
    root = directory / "full"
    with tarfile.open(fileobj=io.BytesIO(image_tar(programs))) as tar:
        tar.extractall(root, filter="tar")
    for place in ("proc", "dev"):
        (root / place).mkdir()
    return {"full": root}


@dataclass
class Started:
    """A process in a pod: `master` is its terminal, or else it has pipes."""

    process: trio.Process
    master: int | None = None

    def resize(self, rows: int, columns: int) -> None:
        if self.master is not None:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class PodJail:
    """A running pod.  `stop` ends everything in it."""

    def __init__(self, root: Path, environment: Mapping[str, str], command: Sequence[str]) -> None:
        self._environment = {"PATH": PATH, "HOME": HOME, "HOSTNAME": "pod", **environment}
        read, write = os.pipe()
        jail = ("--ro-bind", str(root), "/", "--tmpfs", HOME, "--tmpfs", "/tmp")
        mounts = ("--proc", "/proc", "--dev", "/dev", "--chdir", HOME)
        alone = ("--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000")
        flags = ("--die-with-parent", "--new-session", "--as-pid-1", "--info-fd", str(write))
        try:
            self._main = subprocess.Popen(
                ["bwrap", *jail, *mounts, *alone, *flags, *command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(write,),
                start_new_session=True,
            )
            os.close(write)
        except BaseException:
            os.close(read)
            raise
        with os.fdopen(read) as info:
            self._pid = int(json.load(info)["child-pid"])
        self._wait_until_inside(command[0])

    def _wait_until_inside(self, program: str) -> None:
        """Wait until the first process runs: only then can others enter."""
        until = time.monotonic() + START_SECONDS
        line = Path(f"/proc/{self._pid}/cmdline")
        while not line.read_bytes().startswith(program.encode() + b"\0"):
            assert self.is_running
            assert time.monotonic() < until
            time.sleep(0.002)

    def _enter(self) -> list[str]:
        namespaces = ("--mount", "--pid", "--net", "--ipc", "--uts", "--root", "--wd")
        target = ("--target", str(self._pid))
        return ["nsenter", *target, "--user", "--preserve-credentials", *namespaces, "--"]

    @property
    def is_running(self) -> bool:
        return self._main.poll() is None

    async def start(self, command: Sequence[str], *, terminal: bool) -> Started:
        """Run a process in it, in a session of its own, as container runtimes do."""
        environment = [f"{name}={value}" for name, value in self._environment.items()]
        leader = ("setsid", "-c") if terminal else ("setsid",)
        line = [*self._enter(), "env", "-i", *environment, *leader, *command]
        if not terminal:
            pipe = subprocess.PIPE
            process = await trio.lowlevel.open_process(
                line, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
            return Started(process)
        master, slave = os.openpty()
        try:
            process = await trio.lowlevel.open_process(
                line, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
            )
        finally:
            os.close(slave)
        return Started(process, master)

    async def connect(self, port: int) -> trio.Process:
        """Connect the pipes of a program of the node's to a port in the pod."""
        network = (
            "nsenter",
            "--target",
            str(self._pid),
            "--user",
            "--preserve-credentials",
            "--net",
        )
        pipe = subprocess.PIPE
        return await trio.lowlevel.open_process(
            [*network, "--", "busybox", "nc", "127.0.0.1", str(port)],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )

    def stop(self) -> None:
        """Kill everything in it, and wait until it is gone."""
        self._main.kill()
        self._main.wait(START_SECONDS)
