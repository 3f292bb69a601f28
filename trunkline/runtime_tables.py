"""What the configuration says about runtimes.

[runtimes.container]
address = "unix:///run/podman/podman.sock"
image = "debian:12"

[runtimes.kubernetes]
namespace = "sandboxes"
image = "debian:12"

[runtimes.ssh]
address = "build.example.com"
username = "sandbox"
known_hosts = "/etc/trunkline/known_hosts"
keys = ["/etc/trunkline/id_ed25519"]
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class ContainerTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A container engine; see `ContainerRuntime`."""

    address: str = "unix:///var/run/docker.sock"
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    image: str | None = None
    user: str = ""
    home: str | None = None


class KubernetesTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cluster; see `KubernetesRuntime`."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    image: str | None = None
    template: dict[str, Any] = {}
    home: str | None = None
    ready_seconds: _Seconds = 120.0


class SshTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account on an SSH server; see `SshHost`."""

    address: str
    username: str
    known_hosts: str
    port: int = 22
    keys: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    agent: str | None = None
    home: str | None = None


class RuntimesTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ``[runtimes]`` table."""

    container: ContainerTable = ContainerTable()
    kubernetes: KubernetesTable = KubernetesTable()
    ssh: SshTable | None = None
