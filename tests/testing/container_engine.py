"""Container engines of the tests' own: their storage, sockets and ends belong to them.

Everything is asked over the engine's socket, so no command line of an engine is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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
LOG_SHOWN = 600


@dataclass(frozen=True)
class TestEngine:
    """A running engine; `socket` is where it listens."""

    __test__ = False

    socket: str

    def client(self) -> httpx2.Client:
        """Return a client that talks to it."""
        transport = httpx2.HTTPTransport(uds=self.socket)
        return httpx2.Client(
            transport=transport, base_url="http://engine", trust_env=False, timeout=60
        )

    def containers(self) -> list[str]:
        """Return the ids of all containers, stopped ones too."""
        with self.client() as http:
            found = http.get("/v1.40/containers/json", params={"all": "true"}).raise_for_status()
        return [container["Id"] for container in found.json()]

    def import_image(self, name: str, contents: bytes) -> None:
        """Make an image of the tar file of a root file system."""
        repository, tag = name.rsplit(":", 1)
        changes = [f"WORKDIR {HOME}", "USER user"]
        params = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": changes}
        headers = {"Content-Type": "application/x-tar"}
        with self.client() as http:
            answer = http.post(
                "/v1.40/images/create", params=params, content=contents, headers=headers
            )
            assert answer.is_success, answer.text
            # Podman leaves the name out.
            image = json.loads(answer.text.splitlines()[-1])["status"]
            names = {"repo": repository, "tag": tag}
            http.post(f"/v1.40/images/{image}/tag", params=names).raise_for_status()
            config = http.get(f"/v1.40/images/{name}/json").raise_for_status().json()["Config"]
            assert (config["User"], config["WorkingDir"]) == ("user", HOME)

    def remove_containers(self) -> None:
        """Remove what a failed test left."""
        with self.client() as http:
            for container in self.containers():
                params = {"force": "true", "v": "true"}
                http.delete(f"/v1.40/containers/{container}", params=params)


def _missing(programs: Sequence[str]) -> str | None:
    for program in programs:
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if static_busybox() is None:
        return "no static busybox to make an image of (Debian: busybox-static)"
    if os.geteuid() != 0:
        return "a container engine of the tests' own needs root"
    return None


def missing() -> str | None:
    """Say what keeps Podman from being started here; None: nothing."""
    return _missing(("podman", "runc", "conmon"))


def missing_docker() -> str | None:
    """Say what keeps Docker from being started here; None: nothing that can be known before."""
    return _missing(("dockerd", "containerd", "runc"))


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
        *("system", "service", "--time=0", f"unix://{directory / 'engine.sock'}"),
    )
    with _running(command, directory, environment) as engine:
        yield engine


@contextmanager
def docker_engine(directory: Path) -> Iterator[TestEngine]:
    """Run dockerd, and the containerd it starts, with everything they keep below `directory`.

    Raises:
      EngineNotStarted: it does not run on this machine, and the end of its log.
    """
    command = (
        *(
            "dockerd",
            "--data-root",
            str(directory / "data"),
            "--exec-root",
            str(directory / "exec"),
        ),
        *("--pidfile", str(directory / "pid"), "--host", f"unix://{directory / 'engine.sock'}"),
        *("--bridge=none", "--iptables=false", "--ip6tables=false", "--shutdown-timeout=5"),
    )
    with _running(command, directory, dict(os.environ)) as engine:
        yield engine


@dataclass(frozen=True)
class EngineKind:
    """An engine to test with."""

    missing: Callable[[], str | None]
    run: Callable[[Path], AbstractContextManager[TestEngine]]


ENGINES = {
    "podman": EngineKind(missing, podman_engine),
    "dockerd": EngineKind(missing_docker, docker_engine),
}


class EngineNotStarted(Exception):
    """The engine ended, or did not answer in time; with the end of its log."""


@contextmanager
def _running(
    command: Sequence[str], directory: Path, environment: dict[str, str]
) -> Iterator[TestEngine]:
    """Run an engine that listens on ``engine.sock``, with the images; end it at the end."""
    engine = TestEngine(str(directory / "engine.sock"))
    with (directory / "log").open("wb") as log:
        # Should the tests be killed, the engine ends too.
        service = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            env=environment,
            cwd=directory,  # its helpers write a file "oom" where they are
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_it_answers(service, engine, directory / "log")
        programs = {"sh": "dash", "socat": "socat", "printenv": "printenv", "yes": "yes"}
        found = {name: path for name, tool in programs.items() if (path := shutil.which(tool))}
        engine.import_image(IMAGE, image_tar(found))
        engine.import_image(BUSYBOX_IMAGE, image_tar({}))
        yield engine
        engine.remove_containers()
    finally:
        service.terminate()
        try:
            service.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait(END_SECONDS)


def _wait_until_it_answers(service: subprocess.Popen[bytes], engine: TestEngine, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not _listens(
        engine.socket
    ):  # a client that finds nobody leaves its socket to the collector
        if service.poll() is not None or time.monotonic() > until:
            raise EngineNotStarted(log.read_text()[-LOG_SHOWN:])
        time.sleep(0.05)
    with engine.client() as http:
        while True:
            try:
                if http.get("/_ping").is_success:
                    return
            except httpx2.TransportError as error:
                if service.poll() is not None or time.monotonic() > until:
                    raise EngineNotStarted(log.read_text()[-LOG_SHOWN:]) from error
                time.sleep(0.05)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0
