"""A container engine of the tests' own: its storage, its socket and its end belong to them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.testing.container_image import HOME, image_tar, static_busybox

IMAGE = "localhost/trunkline-test:1"
"""With dash as its shell, because the line editor of busybox asks the terminal for its cursor."""
BUSYBOX_IMAGE = "localhost/trunkline-busybox:1"
"""With nothing but busybox."""

CONFIGURATION = """
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
lock_type = "file"
exit_command_delay = 10
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
"""
START_SECONDS = 30.0
END_SECONDS = 20.0


@dataclass(frozen=True)
class TestEngine:
    """A running engine; `socket` is where it listens."""

    __test__ = False

    socket: str
    command: tuple[str, ...]
    environment: dict[str, str]

    def run(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run the engine's own command line."""
        done = subprocess.run(
            [*self.command, *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def containers(self) -> list[str]:
        """Return the ids of all containers, stopped ones too."""
        return self.run("ps", "--all", "--quiet").split()


def missing() -> str | None:
    """Say what keeps an engine from being started here; None: nothing."""
    for program in ("podman", "runc", "conmon"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if static_busybox() is None:
        return "no static busybox to make an image of (Debian: busybox-static)"
    if os.geteuid() != 0:
        return "a container engine of the tests' own needs root"
    return None


@contextmanager
def podman_engine(directory: Path) -> Iterator[TestEngine]:
    """Run Podman's service with everything it keeps below `directory`."""
    configuration = directory / "containers.conf"
    configuration.write_text(CONFIGURATION)
    environment = {
        **os.environ,
        "CONTAINERS_CONF": str(configuration),
        "TMPDIR": str(directory),
    }
    command = (
        "podman",
        *("--root", str(directory / "root"), "--runroot", str(directory / "run")),
        *("--storage-driver", "vfs"),
    )
    socket = directory / "engine.sock"
    log = (directory / "log").open("wb")
    service = subprocess.Popen(
        [*command, "system", "service", "--time=0", f"unix://{socket}"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        _wait_until_it_answers(service, socket, directory / "log")
        engine = TestEngine(str(socket), command, environment)
        programs = {"sh": "dash", "socat": "socat", "printenv": "printenv", "yes": "yes"}
        found = {name: path for name, tool in programs.items() if (path := shutil.which(tool))}
        for image, contents in ((IMAGE, found), (BUSYBOX_IMAGE, {})):
            changes = ("--change", f"WORKDIR {HOME}", "--change", "USER user")
            engine.run("import", *changes, "-", image, stdin=image_tar(contents))
        yield engine
        engine.run("rm", "--all", "--force", "--time=0")
    finally:
        service.terminate()
        try:
            service.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait(END_SECONDS)
        log.close()


def _wait_until_it_answers(service: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    transport = httpx2.HTTPTransport(uds=str(socket))
    with httpx2.Client(transport=transport, base_url="http://engine", trust_env=False) as http:
        while True:
            assert service.poll() is None, log.read_text()
            try:
                if http.get("/_ping").is_success:
                    return
            except httpx2.TransportError:
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
