"""From a specification to what the engine is asked to create.  Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtimes.base import Network, SandboxError, SandboxSpec
from runtimes.exec_inside.sandbox import SESSION_VARIABLE
from runtimes.exec_inside.scripts import MAIN, SHELL

SESSION_LABEL = "trunkline.session"
SERVER_LABEL = "trunkline.server"

LEAST_MEMORY = 6 * 1024 * 1024
"""Docker takes no less."""

_NETWORKS: Mapping[Network | None, str] = {
    None: "none",
    Network.NONE: "none",
    Network.FULL: "bridge",
}
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What is used where a specification leaves it open; `user` empty: the image's."""

    image: str | None
    server: str
    user: str = ""


def container_name(spec: SandboxSpec, nonce: str) -> str:
    """Return a name that no other container has."""
    return f"trunkline-{_NOT_IN_NAMES.sub('-', spec.session_id)[:40]}-{nonce}"


def home_volume(spec: SandboxSpec, server: str) -> str:
    """Return the name of the volume that keeps the home of a session."""
    digest = hashlib.sha256(f"{server}\0{spec.session_id}".encode()).hexdigest()
    return f"trunkline-home-{digest[:32]}"


def image_of(spec: SandboxSpec, defaults: Defaults) -> str:
    """Return the image to use.

    Raises:
      SandboxError: neither the specification nor the runtime names one.
    """
    image = spec.image or defaults.image
    if not image:
        raise SandboxError(
            "the profile names no image; a container is made of one: set `image` in the profile"
        )
    return image


def labels(session_id: str, server: str) -> dict[str, str]:
    """Return the labels by which a server finds what it has made."""
    return {SESSION_LABEL: session_id, SERVER_LABEL: server}


def creation(spec: SandboxSpec, defaults: Defaults, keep: str | None) -> dict[str, object]:
    """Return the body of the request that creates the container of `spec`.

    `keep` is the directory inside to be kept on a volume; None: nothing.

    Raises:
      SandboxError: something in it is not possible.
    """
    if not spec.session_id or "\0" in spec.session_id:
        raise SandboxError(f"the session id {spec.session_id!r} is empty or contains a NUL")
    for name, value in spec.environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise SandboxError(f"{name!r} is no name of an environment variable, or holds a NUL")
    environment = {**spec.environment, SESSION_VARIABLE: spec.session_id}
    return {
        "Image": image_of(spec, defaults),
        "Entrypoint": [SHELL, "-c", MAIN],
        "Cmd": [],
        "User": defaults.user,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": labels(spec.session_id, defaults.server),
        "OpenStdin": False,
        "Tty": False,
        "StopSignal": "SIGKILL",
        "StopTimeout": 0,
        "HostConfig": {
            "NetworkMode": _NETWORKS[spec.network],
            "CapDrop": ["ALL"],
            "Privileged": False,
            "SecurityOpt": ["no-new-privileges"],
            "RestartPolicy": {"Name": "no"},
            "Mounts": _mounts(spec, keep, defaults.server),
            **_limits(spec),
        },
    }


def _limits(spec: SandboxSpec) -> dict[str, object]:
    limits: dict[str, object] = {}
    if (memory := spec.limits.memory_bytes) is not None:
        if memory < LEAST_MEMORY:
            raise SandboxError(
                f"a container needs a memory limit of at least {LEAST_MEMORY} bytes, not {memory}"
            )
        limits |= {"Memory": memory, "MemorySwap": memory}
    if spec.limits.processes is not None:
        limits["PidsLimit"] = spec.limits.processes
    if spec.limits.cpus is not None:
        limits["NanoCpus"] = round(spec.limits.cpus * 1e9)
    return limits


def _mounts(spec: SandboxSpec, keep: str | None, server: str) -> list[dict[str, object]]:
    mounts: list[dict[str, object]] = []
    for mount in spec.mounts:
        for path in (mount.source, mount.target):
            if not path.startswith("/") or "\0" in path:
                raise SandboxError(f"the path {path!r} of a mount is not absolute")
        mounts.append(
            {
                "Type": "bind",
                "Source": mount.source,
                "Target": mount.target,
                "ReadOnly": mount.read_only,
            }
        )
    if keep is not None:
        mounts.append(
            {
                "Type": "volume",
                "Source": home_volume(spec, server),
                "Target": keep,
                "VolumeOptions": {"Labels": labels(spec.session_id, server)},
            }
        )
    return mounts


def check_warnings(warnings: Sequence[str] | None) -> None:
    """Refuse what the engine only warns of: a limit that it cannot enforce.

    Raises:
      SandboxError: it said so.
    """
    for warning in warnings or ():
        if "discarded" in warning.lower():
            raise SandboxError(f"the container engine cannot enforce a limit: {warning}")
