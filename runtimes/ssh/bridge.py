"""The bridge to asyncssh: the one file of the project that imports asyncio.

Theory of operation
-------------------
asyncssh runs on asyncio, and asyncio here runs on Trio (trio-asyncio), in the same thread.  Each
sandbox has a loop of its own, served by a task of the sandbox, so that whatever happens in it ends with
it.  What asyncssh calls back (`_Session`) is passed on to a `RemoteChannel` at once; what is awaited of
asyncssh is awaited by `Bridge.wait`.  Nothing else of asyncssh is seen outside of this file.

Which loop is the running one is a context variable, and asyncssh asks for it now and then, also in
callbacks, which inherit the context of whoever caused them.  So whoever calls into asyncssh from a Trio
task says which loop it is (`Bridge.enter`).

This file is imported only when the first sandbox is made: importing trio-asyncio changes asyncio for
the whole process, and does not work on Python 3.14 yet.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - this is the bridge
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

import structlog
import trio

with warnings.catch_warnings():
    # On Python 3.12 and later it uses names of asyncio that are deprecated.  It comes before asyncssh,
    # which must see the functions of asyncio as they are afterwards.
    warnings.simplefilter("ignore")
    import trio_asyncio  # type: ignore[import-untyped] # it has no annotations

import asyncssh
from asyncssh.channel import SSHChannel

from relay.endpoint import Channel, ExitStatus, TerminalSize
from relay.service_nursery import open_service_nursery
from runtimes.ssh.channel import HIGH_WATER_BYTES, LOW_WATER_BYTES, WINDOW_BYTES, RemoteChannel
from runtimes.ssh.errors import ChannelRefused, SshError, Unreachable
from runtimes.ssh.host import SshHost
from runtimes.ssh.trust import untrusted

_log = structlog.get_logger()

# It logs the commands that it sends, and there are values of variables in them.
logging.getLogger("asyncssh").setLevel(logging.WARNING)

CONNECT_SECONDS = 20.0
"""How long connecting and logging in may take."""
CLOSE_SECONDS = 3.0
"""How long a connection may take to close in order."""

# AES-GCM first: with the processor's own instructions it is 1.6 to 2 times as fast as ChaCha20.
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
_FULL = frozenset(
    {
        asyncssh.OPEN_CONNECT_FAILED,
        asyncssh.OPEN_RESOURCE_SHORTAGE,
        asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED,
    }
)

_Result = TypeVar("_Result")


class _Wire:
    """As `runtimes.ssh.channel.Wire`."""

    def __init__(self, bridge: Bridge, channel: SSHChannel[bytes]) -> None:
        self._bridge = bridge
        self._channel = channel
        channel.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)

    def write(self, data: bytes) -> None:
        with self._bridge.enter():
            self._channel.write(data)

    def write_eof(self) -> None:
        with self._bridge.enter():
            self._channel.write_eof()

    def pause_reading(self) -> None:
        with self._bridge.enter():
            self._channel.pause_reading()

    def resume_reading(self) -> None:
        with self._bridge.enter():
            self._channel.resume_reading()

    def resize(self, size: TerminalSize) -> None:
        if isinstance(self._channel, asyncssh.SSHClientChannel):
            with self._bridge.enter():
                self._channel.change_terminal_size(size.columns, size.rows)

    def close(self) -> None:
        with self._bridge.enter():
            self._channel.close()

    def abort(self) -> None:
        with self._bridge.enter():
            self._channel.abort()


class _Session(
    asyncssh.SSHClientSession[bytes],
    asyncssh.SSHTCPSession[bytes],
    asyncssh.SSHUNIXSession[bytes],
):
    """What asyncssh calls about a channel."""

    def __init__(self, bridge: Bridge, host: SshHost, channel: RemoteChannel) -> None:
        self._bridge = bridge
        self._host = host
        self._channel = channel

    def connection_made(self, chan: Any) -> None:
        self._channel.opened(_Wire(self._bridge, chan))

    def data_received(self, data: bytes, datatype: int | None) -> None:
        is_error = datatype == asyncssh.EXTENDED_DATA_STDERR
        self._channel.feed(data, Channel.ERROR if is_error else Channel.OUTPUT)

    def eof_received(self) -> bool:
        self._channel.end_output()
        return True  # the other direction goes on

    def exit_status_received(self, status: int) -> None:
        self._channel.exited(ExitStatus(code=status & 0xFF))

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        # OpenSSH tells signals that RFC 4254 § 6.10 does not name as "SIG@openssh.com".
        name = signal.partition("@")[0]
        self._channel.exited(ExitStatus(signal=name if name != "SIG" else "unknown"))

    def pause_writing(self) -> None:
        self._channel.set_full(is_full=True)

    def resume_writing(self) -> None:
        self._channel.set_full(is_full=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.lost(None if exc is None else _loss(self._host, exc))


class _Client(asyncssh.SSHClient):
    """What asyncssh calls about the connection as a whole."""

    def __init__(self, host: SshHost) -> None:
        self._host = host
        self.shown: asyncssh.SSHKey | None = None
        self.loss: str | None = None
        self.lost = trio.Event()

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self.shown = key
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.loss = _loss(self._host, exc)
        self.lost.set()


def _loss(host: SshHost, error: Exception | None) -> str:
    reason = str(error) if error is not None else ""
    return f"the SSH connection to {host} was lost: {reason or 'it was closed'}"


class SshConnection:
    """A connection to an SSH server; made by `Bridge.connect`, closed by `aclose`."""

    def __init__(
        self,
        bridge: Bridge,
        host: SshHost,
        client: _Client,
        connection: asyncssh.SSHClientConnection,
    ) -> None:
        self._bridge = bridge
        self._host = host
        self._client = client
        self._connection = connection
        self._closing = False

    @property
    def loss(self) -> str | None:
        """Why the connection is no more; None: it is."""
        return None if self._closing else self._client.loss

    @property
    def is_usable(self) -> bool:
        """Whether channels can be opened."""
        return not self._closing and not self._client.lost.is_set()

    async def open_process(
        self, command: str, terminal: TerminalSize | None, term: str
    ) -> RemoteChannel:
        """Run `command` by the account's login shell, on a terminal of that size and type `term`.

        Raises:
          ChannelRefused: the server does not want to.
          Unreachable: the connection was lost.
        """
        channel = RemoteChannel()
        await self._open(
            partial(
                self._connection.create_session,
                self._session_of(channel),
                command,
                encoding=None,
                window=WINDOW_BYTES,
                env={},
                send_env=(),
                request_pty="force" if terminal else False,
                term_type=term if terminal else None,
                term_size=(terminal.columns, terminal.rows) if terminal else (0, 0),
            )
        )
        return channel

    async def open_port(self, address: str, port: int) -> RemoteChannel:
        """Connect from the server to a port (RFC 4254 § 7.2).  Raises: as `open_process`."""
        channel = RemoteChannel()
        await self._open(
            partial(
                self._connection.create_connection,
                self._session_of(channel),
                address,
                port,
                "127.0.0.1",
                encoding=None,
                window=WINDOW_BYTES,
            )
        )
        return channel

    async def open_path(self, path: str) -> RemoteChannel:
        """Connect to a Unix socket (OpenSSH's PROTOCOL § 2.4).  Raises: as `open_process`."""
        channel = RemoteChannel()
        await self._open(
            partial(
                self._connection.create_unix_connection,
                self._session_of(channel),
                path,
                encoding=None,
                window=WINDOW_BYTES,
            )
        )
        return channel

    def _session_of(self, channel: RemoteChannel) -> Callable[[], _Session]:
        return lambda: _Session(self._bridge, self._host, channel)

    async def _open(self, create: Callable[[], Awaitable[object]]) -> None:
        async def do() -> None:
            await create()

        if not self.is_usable:
            raise Unreachable(self._client.loss or "the connection is closed")
        try:
            await self._bridge.wait(do())
        except asyncssh.ChannelOpenError as error:
            if not self.is_usable:
                raise Unreachable(self._client.loss or "the connection is closed") from error
            reason = error.reason or "it does not say why"
            raise ChannelRefused(reason, is_full=error.code in _FULL) from error
        except (asyncssh.Error, OSError) as error:
            raise Unreachable(self._client.loss or str(error)) from error

    async def aclose(self) -> None:
        """Close it with all its channels.  Cancellation: closes at once."""
        self._closing = True
        try:
            with self._bridge.enter():
                self._connection.close()
            with trio.move_on_after(CLOSE_SECONDS):
                await self._client.lost.wait()
        finally:
            if not self._client.lost.is_set():
                with self._bridge.enter():
                    self._connection.abort()
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await self._client.lost.wait()


class Bridge:
    """A loop of asyncio; made by `open_bridge`."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    async def wait(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine of asyncio and return what it does.

        Cancellation: cancels it, and waits until it has ended.
        """
        with self.enter():
            result: _Result = await self._loop.run_aio_coroutine(coroutine)
        return result

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Make this loop the running one for what the block calls."""
        before = trio_asyncio.current_loop.set(self._loop)
        try:
            yield
        finally:
            trio_asyncio.current_loop.reset(before)

    async def connect(self, host: SshHost) -> SshConnection:
        """Connect and log in.

        Raises:
          Unreachable: there is nobody, its key is not known, or ours is not welcome.

        Cancellation: nothing is left open.
        """
        client = _Client(host)

        async def do() -> asyncssh.SSHClientConnection:
            async with _identities(host) as keys:
                return await connect(keys)

        async def connect(keys: list[Any]) -> asyncssh.SSHClientConnection:
            connection, _ = await asyncssh.create_connection(
                lambda: client,
                host.address,
                host.port,
                username=host.username,
                known_hosts=host.known_hosts,
                client_keys=keys,
                client_certs=list(host.certificates),
                agent_path=None,
                passphrase=host.passphrase,
                config=None,
                preferred_auth="publickey",
                encryption_algs=_CIPHERS,
                compression_algs=None,
                x509_trusted_certs=None,
                gss_host=None,
                keepalive_interval=host.keepalive,
                keepalive_count_max=host.patience,
            )
            return connection

        try:
            with trio.fail_after(CONNECT_SECONDS):
                connection = await self.wait(do())
        except trio.TooSlowError:
            raise Unreachable(
                f"the SSH server at {host} did not answer within {CONNECT_SECONDS:.0f} s"
            ) from None
        except asyncssh.HostKeyNotVerifiable as error:
            raise Unreachable(_untrusted(host, client.shown, error)) from error
        except asyncssh.PermissionDenied as error:
            raise Unreachable(
                f"the SSH server at {host} refuses our login ({error.reason}); add the public key"
                f" to ~/.ssh/authorized_keys of {host.username} there, or set another key or agent"
            ) from error
        except asyncssh.KeyImportError as error:
            raise Unreachable(
                f"a key for the SSH server at {host} cannot be used: {error};"
                " set the path of a private key, and its passphrase if it has one"
            ) from error
        except OSError as error:
            raise Unreachable(
                f"the SSH server at {host} cannot be reached: {_reason(error)};"
                " check the address, and that it runs"
            ) from error
        except (asyncssh.Error, SshError, ValueError) as error:
            raise Unreachable(f"no connection to the SSH server at {host}: {error}") from error
        return SshConnection(self, host, client, connection)


@asynccontextmanager
async def _identities(host: SshHost) -> AsyncIterator[list[Any]]:
    """Give the keys to log in with: those named, then the agent's, and never any other.

    The agent is asked here, because asyncssh would add the server's own user's keys to it.
    """
    keys: list[Any] = list(host.keys)
    if host.agent is None:
        yield keys
        return
    async with asyncssh.SSHAgentClient(host.agent) as agent:
        keys += await agent.get_keys()
        if not keys:
            raise SshError(f"the agent at {host.agent} holds no key: add one with ssh-add")
        yield keys


def _reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return where + (error.strerror or str(error) or type(error).__name__)


def _untrusted(host: SshHost, shown: asyncssh.SSHKey | None, error: Exception) -> str:
    if shown is None:
        return f"the key of the SSH server at {host} is not to be trusted: {error}"
    known = asyncssh.match_known_hosts(host.known_hosts, host.address, "", host.port)
    return untrusted(
        host,
        f"{shown.get_algorithm()} {shown.get_fingerprint()}",
        shown.export_public_key("openssh").decode().strip(),
        has_another=bool(known[0]),
    )


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """Run a loop of asyncio for as long as the ``async with`` block lasts.

    Close the connections before the block ends: what still runs in it is cancelled.
    """
    async with open_service_nursery() as nursery:
        loop, scope = await nursery.start(_serve)
        try:
            yield Bridge(loop)
        finally:
            scope.cancel()


async def _serve(task_status: trio.TaskStatus[tuple[Any, trio.CancelScope]]) -> None:
    """Run a loop, in a task of its own, so that only this task is in the context of the loop.

    It is shielded, because whoever is cancelled still needs it to close its connections in order; its
    end is that of the block of `open_bridge`, whatever that ends by.
    """
    with trio.CancelScope(shield=True) as scope:
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(_report)
            task_status.started((loop, scope))
            await trio.sleep_forever()


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody waits for; the default of trio-asyncio is to end the loop."""
    _log.error(
        "ssh_callback_failed", message=context.get("message"), error=repr(context.get("exception"))
    )
