"""The ``ssh`` runtime: sandboxes are processes of an account on another machine.

Nothing keeps a process there from harming what else the account may harm: that suits a machine, or an
account, that exists for one user alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from runtimes.base import Network, ResourceLimits, Runtime, SandboxError, SandboxSpec
from runtimes.ssh.connections import Connections
from runtimes.ssh.endpoint import Manners
from runtimes.ssh.errors import SshError
from runtimes.ssh.host import SshHost
from runtimes.ssh.sandbox import SshSandbox, open_ssh_sandbox
from runtimes.ssh.scripts import check, mark_of
from runtimes.ssh.strays import FORCE_SECONDS, end_by_force, end_politely, run_script

if TYPE_CHECKING:
    from runtimes.ssh.bridge import Bridge

_log = structlog.get_logger()

LAST_ATTEMPT_SECONDS = 10.0
"""How long it is tried to reach a machine again whose connection was lost, to end what runs there."""


class SshRuntime(Runtime):
    """Makes sandboxes on `host`.  Nothing is connected to before the first one.

    `home` is where processes start and relative paths of files begin, an absolute path there; None
    means the account's home.  `server` names this server on the processes that it starts: one that
    starts with the same name finds what it left behind (`end_lost`).  `grace` is how many seconds a
    process has between being asked to end and being killed.  `linger` is how many seconds a channel that
    a background process still holds open stays open without data after the process itself has ended.
    """

    def __init__(
        self,
        host: SshHost,
        *,
        home: str | None = None,
        server: str = "default",
        grace: float = 2.0,
        linger: float = 1.0,
    ) -> None:
        if home is not None and not home.startswith("/"):
            raise ValueError(f"the home {home!r} on an SSH host must be an absolute path")
        self._host = host
        self._home = home
        self._server = server
        self._manners = Manners(grace=grace, linger=linger)

    @property
    def name(self) -> str:
        """``"ssh"``."""
        return "ssh"

    @property
    def isolated(self) -> bool:
        """False: a process may do whatever the account may do."""
        return False

    async def prepare(self) -> None:
        """As `Runtime.prepare`: see that what is needed here is here.  Nothing is connected to."""
        _bridge_opener()
        await self._check_known_hosts()

    async def _check_known_hosts(self) -> None:
        path = self._host.known_hosts
        try:
            async with await trio.open_file(path, "rb"):
                pass
        except OSError as error:
            raise SandboxError(
                f"known_hosts, {path}, cannot be read ({error.strerror}); without it no SSH server is"
                f" trusted: make it with ssh-keyscan -p {self._host.port} {self._host.address} >{path},"
                " and compare the fingerprints"
            ) from error

    @asynccontextmanager
    async def open_sandbox(self, spec: SandboxSpec) -> AsyncIterator[SshSandbox]:
        """As `Runtime.open_sandbox`."""
        _check(spec)
        opener = _bridge_opener()
        await self._check_known_hosts()
        mark = mark_of(self._server, spec.session_id)
        async with AsyncExitStack() as stack:
            bridge = await stack.enter_async_context(opener())
            connections = Connections(bridge, self._host)
            stack.push_async_callback(connections.aclose)
            try:
                await connections.open()
                home = spec.directory or self._home or await _account_home(connections)
                if not home.startswith("/"):
                    raise SandboxError(f"the directory {home!r} is not absolute")
                stack.push_async_callback(self._end_strays, bridge, connections, mark)
                sandbox = await stack.enter_async_context(
                    open_ssh_sandbox(
                        connections, spec, home, mark, self._host.username, self._manners
                    )
                )
            except SshError as error:
                raise SandboxError(str(error)) from error
            yield sandbox

    async def _end_strays(self, bridge: Bridge, connections: Connections, mark: str) -> None:
        """End what the session's processes have left behind, over a new connection if need be."""
        fresh = Connections(bridge, self._host)
        try:
            if connections.loss is not None:
                await _open_at_last(fresh)
                connections = fresh
            await self._end(connections, (mark,))
        except SshError as error:
            _log.warning("ssh_processes_left", host=str(self._host), error=str(error))
        finally:
            await fresh.aclose()

    async def _end(self, connections: Connections, marks: Sequence[str]) -> None:
        """End all processes that carry one of `marks`; cancellation goes straight to force."""
        try:
            await end_politely(connections, marks, self._manners.grace)
        finally:
            with trio.move_on_after(FORCE_SECONDS, shield=True) as scope:
                await end_by_force(connections, marks)
            if scope.cancelled_caught:
                _log.warning("processes_survived_sigkill", host=str(self._host))

    async def end_lost(self, session_ids: Collection[str]) -> None:
        """As `Runtime.end_lost`: processes are known by the variable that they carry."""
        if not session_ids:
            await trio.lowlevel.checkpoint()
            return
        marks = [mark_of(self._server, session_id) for session_id in session_ids]
        try:
            async with _bridge_opener()() as bridge:
                connections = Connections(bridge, self._host)
                try:
                    await connections.open()
                    await self._end(connections, marks)
                finally:
                    await connections.aclose()
        except (SshError, SandboxError) as error:
            _log.warning("ssh_processes_left", host=str(self._host), error=str(error))


def _bridge_opener() -> Callable[[], AbstractAsyncContextManager[Bridge]]:
    """Return `runtimes.ssh.bridge.open_bridge`.

    Raises:
      SandboxError: what it needs is not installed.
    """
    try:
        from runtimes.ssh.bridge import open_bridge  # late: see there
    except ImportError as error:
        raise SandboxError(
            f"the ssh runtime needs asyncssh and trio-asyncio, which cannot be imported ({error});"
            " install them: pip install asyncssh trio-asyncio (Python 3.13 or earlier)"
        ) from error
    return open_bridge


async def _open_at_last(connections: Connections) -> None:
    """Connect even when cancelled, but not for long.

    Raises:
      SshError: there is no connection.
    """
    with trio.move_on_after(LAST_ATTEMPT_SECONDS, shield=True):
        await connections.open()
        return
    raise SshError("the SSH server does not answer")


async def _account_home(connections: Connections) -> str:
    """Return the home of the account, after a look whether sandboxes are possible there."""
    word, _, rest = (await run_script(connections, check())).rpartition("\n")[2].partition(" ")
    match word:
        case "home":
            return rest or "/"
        case "no-proc":
            raise SshError("the machine has no /proc: the ssh runtime needs Linux there")
        case "no-program":
            raise SshError(f"the machine lacks the program {rest}: install it there")
        case _:
            raise SshError(
                f"the login shell of the account says {word[:100]!r}; it must be a shell like sh or"
                " bash, and its start-up files must print nothing"
            )


def _check(spec: SandboxSpec) -> None:
    if not spec.session_id or "\0" in spec.session_id:
        raise SandboxError(f"the session id {spec.session_id!r} is empty or contains a NUL")
    for what, asked in (
        ("limits", spec.limits != ResourceLimits()),
        ("network", spec.network is Network.NONE),
        ("root", spec.root is not None),
        ("mounts", bool(spec.mounts)),
    ):
        if asked:
            raise SandboxError(
                f"{what}: the ssh runtime does not isolate, so it cannot do this;"
                " use another runtime in the profile, or leave the key out"
            )
