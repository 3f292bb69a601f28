"""The composition root: puts the parts together and runs them until a signal comes.

The only place that sees everything.  From the inside out: keys and credentials, the store, the
agent with its runtime, the sessions' manager, the API, the front.
"""

from __future__ import annotations

import ipaddress
import resource
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import cast

import structlog
import trio

from api.app import create_app
from api.context import Context
from auth.authenticator import OWNER, Authenticator
from auth.credential_file import load_or_create_credential
from auth.keys import Keyring, KeyringError
from auth.private_files import PrivateFileError, ensure_private_directory
from auth.tickets import TicketOffice
from proxy.admission import Admission
from proxy.asgi import ASGIApp, LifespanError
from proxy.config import FrontConfig
from proxy.front import Front
from proxy.front import serve as serve_front
from proxy.hosts import HostPolicy
from proxy.listener import ListenError, bound_port, open_listeners
from proxy.raw_socket import SocketRoutes
from proxy.routes import RouteTables
from proxy.terminal import TerminalRoutes
from proxy.tls import TlsError, server_context
from relay.reactor import open_reactor
from runtimes.agent import Agent
from runtimes.base import SandboxError
from runtimes.selection import AUTO, Selection, select
from sessions.database import StoreError
from sessions.manager import open_manager
from sessions.store import open_store
from trunkline.back_ends import MAKERS
from trunkline.sdk.discovery import leave_note, remove_note
from trunkline.settings import Ready, Settings, SettingsError
from trunkline.version import SOFTWARE, VERSION

RETRY_AFTER = 1.0
"""Seconds after which clients of a server that goes away come back."""

STARTUP_ERRORS = (KeyringError, LifespanError, ListenError, PrivateFileError, StoreError, TlsError)
"""What `serve` raises when it cannot start, besides SettingsError; the message is for the user."""

logger = structlog.get_logger(__name__)


def raise_descriptor_limit() -> None:
    """Let this process open as many descriptors as it may: a terminal takes four."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(settings: Settings, ready: Callable[[Ready], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second one does not wait for anybody.

    Calls `ready` once requests are answered.

    Raises:
      SettingsError, ListenError, TlsError, StoreError, KeyringError, PrivateFileError: it cannot
        start, and why.

    Cancellation: ends everything by force, under deadlines.
    """
    _check(settings)
    raise_descriptor_limit()
    config = settings.config
    scheme, ssl_context = _tls(settings)
    ensure_private_directory(settings.data_dir)
    keyring = Keyring.open(settings.data_dir / "keys")
    credential = load_or_create_credential(settings.data_dir / "credential")
    authenticator = Authenticator(credential, keyring, dev=settings.dev)
    tickets = TicketOffice(keyring)
    async with AsyncExitStack() as stack:
        listeners = await open_listeners(settings.host, settings.port)
        for listener in listeners:
            stack.push_async_callback(listener.aclose)
        port = bound_port(listeners)
        store = await stack.enter_async_context(open_store(settings.data_dir / "trunkline.db"))
        selection = await _select_runtimes(settings)
        agent = Agent(selection.runtimes, software=SOFTWARE, limits=config.streams)
        manager = await stack.enter_async_context(
            open_manager(agent, store, config.profiles, nodes=(config.node,))
        )
        app = create_app(
            Context(
                manager=manager,
                tickets=tickets,
                authenticator=authenticator,
                host=agent,
                version=VERSION,
                public_url=config.public_url,
            )
        )
        admission = Admission(manager, tickets)
        reactor = await stack.enter_async_context(open_reactor(spin=config.spin_microseconds / 1e6))
        run_front = partial(
            serve_front,
            listeners,
            cast("ASGIApp", app),  # Quart's types name each message; those of ASGI are open
            RouteTables(
                TerminalRoutes(admission, agent),
                SocketRoutes(admission, manager, agent, reactor),
            ),
            host_policy(settings, scheme, port),
            config=FrontConfig(grace=config.grace),
            ssl_context=ssl_context,
        )
        async with trio.open_nursery() as watchers:
            async with trio.open_nursery() as nursery:
                front: Front = await nursery.start(run_front)
                await watchers.start(_stop_on_signal, front, agent, watchers.cancel_scope)
                url = f"{scheme}://{_authority(settings.host, port, scheme)}"
                try:
                    leave_note(url, credential)
                    stack.callback(remove_note)
                except OSError as error:
                    # Only the command line needs it, and it can be told by its environment.
                    logger.warning("no note left for the command line", error=str(error))
                code = authenticator.issue_login_code(OWNER)
                base = (config.public_url or url).rstrip("/")
                ready(
                    Ready(
                        url,
                        f"{base}/#code={code}",
                        agent.isolated,
                        agent.runtime_name,
                        selection.fallback,
                    )
                )
            watchers.cancel_scope.cancel()


async def _stop_on_signal(
    front: Front,
    agent: Agent,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # started under nohup
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP and ignores_hangup:
                continue
            if front.draining.is_set():
                logger.warning("stopping at once", signal=signal.Signals(number).name)
                scope.cancel()
                return
            agent.drain(RETRY_AFTER)
            front.stop()


async def _select_runtimes(settings: Settings) -> Selection:
    needed = {
        profile.runtime: f"profiles.{profile.name}.runtime"
        for profile in settings.config.profiles.values()
        if profile.runtime
    }
    makers = {
        name: partial(make, settings.data_dir, settings.config.runtimes)
        for name, make in MAKERS.items()
    }
    try:
        return await select(settings.runtime, needed, makers)
    except SandboxError as error:
        raise SettingsError(str(error)) from error


def _check(settings: Settings) -> None:
    if settings.runtime not in (AUTO, *MAKERS):
        raise SettingsError(
            f"no runtime {settings.runtime!r}; there are {AUTO}, {', '.join(MAKERS)}"
        )
    if settings.dev and not _is_loopback(settings.host):
        raise SettingsError("--dev lets everybody in, so it works on loopback only")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SettingsError("--tls-cert and --tls-key go together")


def _tls(settings: Settings) -> tuple[str, ssl.SSLContext | None]:
    if settings.tls_cert is None or settings.tls_key is None:
        return "http", None
    return "https", server_context(settings.tls_cert, settings.tls_key)


def host_policy(settings: Settings, scheme: str, port: int) -> HostPolicy:
    """Return which names and origins are let in: what it is bound to, and what was configured."""
    default = {"http": 80, "https": 443}[scheme]
    suffix = "" if port == default else f":{port}"
    names = {f"{name}{suffix}" for name in ("127.0.0.1", "localhost", "[::1]")}
    if not _is_any(settings.host):
        names.add(_authority(settings.host, port, scheme))
    names.update(settings.config.allowed_hosts)
    origins = set(settings.config.allowed_origins)
    if settings.config.public_url:
        public_scheme, _, rest = settings.config.public_url.partition("://")
        authority = rest.split("/")[0]
        names.add(authority)
        origins.add(f"{public_scheme}://{authority}")
    return HostPolicy.for_hosts(names, scheme=scheme, origins=origins)


def _authority(host: str, port: int, scheme: str) -> str:
    if _is_any(host):
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    return shown if port == {"http": 80, "https": 443}[scheme] else f"{shown}:{port}"


def _is_any(host: str) -> bool:
    return host in {"", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound


def _is_loopback(host: str) -> bool:
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(addresses) and all(ipaddress.ip_address(a).is_loopback for a in addresses)
