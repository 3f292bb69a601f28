"""The runtimes that a server can have, made as the configuration says."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from auth.private_files import create_private_file, read_private_file
from runtimes.base import Runtime, SandboxError
from runtimes.bubblewrap import BubblewrapRuntime
from runtimes.container import ContainerRuntime, EngineAddress
from runtimes.fake import FakeRuntime
from runtimes.kubernetes import KubernetesRuntime
from runtimes.local import LocalRuntime
from runtimes.ssh import SshHost, SshRuntime
from trunkline.runtime_tables import ContainerTable, RuntimesTable

Maker = Callable[[Path, RuntimesTable], Runtime]
"""Makes a runtime for the server whose data is in a directory.  Raises SandboxError."""


def _container(data_dir: Path, tables: RuntimesTable) -> Runtime:
    table = tables.container
    try:
        address = EngineAddress.parse(table.address, _tls(table))
    except (ValueError, OSError) as error:
        raise SandboxError(f"runtimes.container: {error}") from error
    return ContainerRuntime(
        address, image=table.image, server=_server_name(data_dir), user=table.user, home=table.home
    )


def _tls(table: ContainerTable) -> ssl.SSLContext | None:
    if table.tls_ca is None and table.tls_cert is None:
        return None
    context = ssl.create_default_context(cafile=table.tls_ca)
    if table.tls_cert is not None:
        context.load_cert_chain(table.tls_cert, table.tls_key)
    return context


def _kubernetes(data_dir: Path, tables: RuntimesTable) -> Runtime:
    table = tables.kubernetes
    return KubernetesRuntime(
        None if table.kubeconfig is None else Path(table.kubeconfig),
        context=table.context,
        namespace=table.namespace,
        image=table.image,
        template=table.template,
        server=_server_name(data_dir),
        home=table.home,
        ready_seconds=table.ready_seconds,
    )


def _ssh(data_dir: Path, tables: RuntimesTable) -> Runtime:
    table = tables.ssh
    if table is None:
        raise SandboxError(
            "the configuration has no table [runtimes.ssh] (address, username, known_hosts, keys)"
        )
    try:
        host = SshHost(
            address=table.address,
            username=table.username,
            known_hosts=table.known_hosts,
            port=table.port,
            keys=table.keys,
            certificates=table.certificates,
            agent=table.agent,
        )
        return SshRuntime(host, home=table.home, server=_server_name(data_dir))
    except ValueError as error:
        raise SandboxError(f"runtimes.ssh: {error}") from error


def _server_name(data_dir: Path) -> str:
    """Return what this server's sandboxes are marked with on machines that it shares with others."""
    path = data_dir / "server-name"
    with suppress(FileExistsError):
        create_private_file(path, secrets.token_hex(8).encode())
    return read_private_file(path, max_bytes=64).decode("ascii", "replace").strip()


MAKERS: Mapping[str, Maker] = MappingProxyType(
    {
        "bubblewrap": lambda data_dir, _: BubblewrapRuntime(data_dir / "sandboxes"),
        "local": lambda _, __: LocalRuntime(),
        "container": _container,
        "kubernetes": _kubernetes,
        "ssh": _ssh,
        "fake": lambda _, __: FakeRuntime(),
    }
)
"""Every runtime, by the name that the command line and profiles use."""
