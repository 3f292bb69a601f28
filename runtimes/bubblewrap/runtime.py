"""The ``bubblewrap`` runtime: a sandbox is a set of namespaces with an init of ours in it.

Who owns what, from the outside in: the directory of the sandbox, its control group, bwrap (`jail`),
the conversation with the init (`control`), the endpoints (`sandbox`).  They are freed in the
opposite order.  The conversation is a task that lives as long as the ``async with`` block; when
the init is lost it fails, which ends the block with a `SandboxError`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import structlog
import trio

from relay.service_nursery import open_service_nursery
from runtimes.base import Runtime, SandboxError, SandboxSpec
from runtimes.bubblewrap.command import HOME, Descriptors, bwrap_command
from runtimes.bubblewrap.control import Control
from runtimes.bubblewrap.jail import Jail, start_jail
from runtimes.bubblewrap.places import Place, Places
from runtimes.bubblewrap.sandbox import BubblewrapSandbox
from runtimes.cgroups import CannotEnforce, ControlGroup, ControlGroups, Hierarchy, find_groups
from runtimes.files import open_session_files
from runtimes.local.endpoint import Manners

_log = structlog.get_logger()

_THREADS = 4
_FILE_THREADS = 8
_GREETING_SECONDS = 20.0
_LAST_WORDS_SECONDS = 1.0


class BubblewrapRuntime(Runtime):
    """Sandboxes made by bubblewrap.

    `directory` is where homes are kept; it belongs to this runtime alone.  `grace` and `linger` are
    as for the local runtime, in seconds.  `hierarchy` says where control groups are made: by
    default where `find_groups` says.  `executable` None finds ``bwrap`` in PATH.
    """

    def __init__(
        self,
        directory: Path,
        *,
        grace: float = 2.0,
        linger: float = 1.0,
        hierarchy: Hierarchy | None = None,
        executable: str | None = None,
    ) -> None:
        self._manners = Manners(grace=grace, linger=linger)
        self._places = Places(directory)
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._file_limiter = trio.CapacityLimiter(_FILE_THREADS)
        self._groups = ControlGroups(hierarchy or find_groups(), group_prefix(directory))
        self._executable = executable

    @property
    def name(self) -> str:
        """``"bubblewrap"``."""
        return "bubblewrap"

    @property
    def isolated(self) -> bool:
        """True: see docs/topics/runtimes.md for what it does and does not mean."""
        return True

    def keeps_homes(self, name: str) -> bool:
        """Tell so for this one."""
        return name == self.name

    async def remove_home(self, spec: SandboxSpec) -> None:
        """As `Runtime.remove_home`."""
        await trio.to_thread.run_sync(
            self._places.remove_kept, spec.session_id, limiter=self._limiter
        )

    async def prepare(self) -> None:
        """As `Runtime.prepare`: of an earlier life, directories and control groups are left.

        Nothing of it runs any more, since it died with that server.
        """
        groups = await trio.to_thread.run_sync(self._groups.remove_leftovers, limiter=self._limiter)
        places = await trio.to_thread.run_sync(self._places.remove_leftovers, limiter=self._limiter)
        if groups or places:
            _log.info("leftovers_removed", control_groups=groups, directories=places)
        await self.check()

    async def check(self) -> None:
        """Make a sandbox for trial.

        Raises:
          SandboxError: it does not work here; the message says why, and what to do.
        """
        try:
            async with self.open_sandbox(SandboxSpec(f"trial-{os.getpid()}")):
                pass
        except* SandboxError as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise SandboxError(str(error)) from None

    @asynccontextmanager
    async def open_sandbox(self, spec: SandboxSpec) -> AsyncIterator[BubblewrapSandbox]:
        """As `Runtime.open_sandbox`.

        Raises (also from the block, in an exception group):
          SandboxError: the sandbox has broken.
        """
        executable = self._executable or shutil.which("bwrap")
        if executable is None:
            raise SandboxError(
                "bubblewrap is not installed: there is no bwrap in PATH; install the package"
                " bubblewrap, or use another runtime"
            )
        async with (
            self._open_place(spec) as place,
            self._open_group(spec) as group,
            open_session_files(str(place.root), HOME, self._file_limiter) as files,
            self._open_jail(executable, spec, place, group) as (jail, connection),
        ):
            control = Control(connection)
            try:
                async with open_service_nursery() as nursery:
                    sandbox = BubblewrapSandbox(
                        spec, control, files, group, self._manners, self._limiter
                    )
                    nursery.start_soon(_converse, control, jail)
                    await _greet(control, jail)
                    await sandbox.enter()
                    try:
                        yield sandbox
                    finally:
                        try:
                            await sandbox.aclose()
                        finally:
                            control.close()
            finally:
                control.close()

    @asynccontextmanager
    async def _open_place(self, spec: SandboxSpec) -> AsyncIterator[Place]:
        place = await trio.to_thread.run_sync(
            lambda: self._places.make(spec.session_id, keep=spec.keep_home), limiter=self._limiter
        )
        try:
            yield place
        finally:
            with trio.CancelScope(shield=True):  # a thread could not be cancelled anyway
                await trio.to_thread.run_sync(self._places.leave, place, limiter=self._limiter)

    @asynccontextmanager
    async def _open_group(self, spec: SandboxSpec) -> AsyncIterator[ControlGroup]:
        try:
            group = await trio.to_thread.run_sync(
                self._groups.create, spec.session_id, spec.limits, limiter=self._limiter
            )
        except CannotEnforce as error:
            raise SandboxError(str(error)) from error
        try:
            yield group
        finally:
            with trio.CancelScope(shield=True):  # it has a deadline of its own
                removed = await trio.to_thread.run_sync(group.remove, limiter=self._limiter)
            if not removed:
                _log.warning("control_group_not_removed", session_id=spec.session_id)

    @asynccontextmanager
    async def _open_jail(
        self, executable: str, spec: SandboxSpec, place: Place, group: ControlGroup
    ) -> AsyncIterator[tuple[Jail, socket.socket]]:
        with ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            info, info_end = os.pipe()
            stack.callback(os.close, info)
            block, release = os.pipe()
            fds = Descriptors(control=theirs.detach(), info=info_end, block=block)
            try:
                command = bwrap_command(executable, spec, place.home, place.etc, fds)
            except BaseException:
                for fd in (fds.control, fds.info, fds.block, release):
                    os.close(fd)
                raise
            jail = await start_jail(
                command,
                inherited=(fds.control, fds.info, fds.block),
                info=info,
                release=release,
                group=group,
            )
            try:
                yield jail, ours
            finally:
                try:
                    # What is frozen does not die.
                    await trio.to_thread.run_sync(_thaw, group, limiter=self._limiter)
                finally:
                    await jail.end()


def _thaw(group: ControlGroup) -> None:
    try:
        group.thaw()
    except OSError as error:
        _log.warning("control_group_not_thawed", error=str(error))


async def _converse(control: Control, jail: Jail) -> None:
    """Talk with the init for as long as there is one.

    Raises:
      SandboxError: it was lost before anybody hung up.
    """
    await control.run()
    if not control.hung_up and control.shells:
        with trio.move_on_after(_LAST_WORDS_SECONDS):
            await jail.ended()
        raise SandboxError(
            f"the first process of the sandbox has ended: {jail.complaints() or 'it was killed'}"
        )


async def _greet(control: Control, jail: Jail) -> None:
    with trio.move_on_after(_GREETING_SECONDS):
        await control.greeted.wait()
        if control.shells:
            return
        with trio.move_on_after(_LAST_WORDS_SECONDS):
            await jail.ended()
        raise SandboxError(
            f"the sandbox could not be made: {jail.complaints() or 'its first process ended'}"
        )
    raise SandboxError(f"the sandbox does not answer: {jail.complaints() or 'it is silent'}")


def group_prefix(directory: Path) -> str:
    """Return how the names of the control groups of a runtime begin: no other has the same."""
    digest = hashlib.sha256(os.fsencode(directory.absolute())).hexdigest()
    return f"trunkline-{digest[:12]}-"
