"""The ``container`` runtime: sandboxes are containers of a Docker or Podman engine."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus

import structlog
import trio

from runtimes.base import Runtime, SandboxError, SandboxSpec
from runtimes.container.address import DEFAULT_ADDRESS, EngineAddress
from runtimes.container.creation import (
    SERVER_LABEL,
    SESSION_LABEL,
    Defaults,
    check_warnings,
    container_name,
    creation,
    home_volume,
    image_of,
)
from runtimes.container.engine import Engine, open_engine
from runtimes.container.errors import EngineError, EngineUnreachable
from runtimes.container.sandbox import ContainerSandbox, open_container_sandbox

_log = structlog.get_logger()

CREATE_SECONDS = 60.0
"""How long creating may take; it is not broken off half-way, so that nothing is left behind."""
REMOVE_SECONDS = 30.0
"""How long removing may take; what is left is removed as an orphan later."""


class ContainerRuntime(Runtime):
    """Makes a container for each sandbox.  Nothing is connected to before the first one.

    `address` is where the engine listens.  `image` is what a container is made of when the profile
    names none.  `server` names this server on its containers: one that starts with the same name
    finds what it left behind (`remove_orphans`); no two servers on one engine may share it.  `user`
    is whom processes run as; empty means the image's choice.  `home` is where they start and
    relative paths of files begin; None means the image's working directory.  `grace` is how many
    seconds a process has between being asked to end and being killed.
    """

    def __init__(
        self,
        address: EngineAddress | None = None,
        *,
        image: str | None = None,
        server: str = "default",
        user: str = "",
        home: str | None = None,
        grace: float = 2.0,
    ) -> None:
        self._address = address or EngineAddress.parse(DEFAULT_ADDRESS)
        self._defaults = Defaults(image=image, server=server, user=user)
        self._home = home
        self._grace = grace

    @property
    def name(self) -> str:
        """``"container"``."""
        return "container"

    @property
    def isolated(self) -> bool:
        """True: the engine keeps what is inside from what is outside."""
        return True

    def keeps_homes(self, name: str) -> bool:
        """Tell so for this one."""
        return name == self.name

    async def prepare(self) -> None:
        """As `Runtime.prepare`: see that the engine answers; remove what an earlier server left."""
        for session in await self.remove_orphans(()):
            _log.info("container_of_an_earlier_server_removed", session_id=session)

    @asynccontextmanager
    async def open_sandbox(self, spec: SandboxSpec) -> AsyncIterator[ContainerSandbox]:
        """As `Runtime.open_sandbox`."""
        async with AsyncExitStack() as stack:
            try:
                engine = await stack.enter_async_context(open_engine(self._address))
                container, home = await self._create(engine, spec, stack)
                sandbox = await stack.enter_async_context(
                    open_container_sandbox(engine, container, spec, home, self._grace)
                )
            except EngineError as error:
                raise SandboxError(str(error)) from error
            yield sandbox

    async def _create(
        self, engine: Engine, spec: SandboxSpec, stack: AsyncExitStack
    ) -> tuple[str, str]:
        """Create and start the container, to be removed with `stack`; return its name and home."""
        home = spec.directory or self._home
        if spec.keep_home and home is None:
            home = await self._image_directory(engine, spec)
        body = creation(spec, self._defaults, home if spec.keep_home else None)
        name = container_name(spec, secrets.token_hex(6))
        stack.push_async_callback(_remove, engine, name)
        try:
            with trio.fail_after(CREATE_SECONDS) as scope:
                scope.shield = True
                created = await engine.post("/containers/create", body, {"name": name})
        except trio.TooSlowError:
            raise EngineUnreachable(
                f"the container engine at {self._address} took more than {CREATE_SECONDS:.0f} s"
                " to create a container; look at its log"
            ) from None
        except EngineError as error:
            if error.is_missing and "image" in str(error).lower():
                raise self._no_image(spec) from error
            raise SandboxError(f"the container could not be created: {error}") from error
        check_warnings(created.get("Warnings"))
        try:
            await engine.post(f"/containers/{name}/start")
        except EngineUnreachable:
            raise
        except EngineError as error:
            raise SandboxError(f"the container could not be started: {error}") from error
        if home is None:
            found = await engine.get(f"/containers/{name}/json")
            home = str(found["Config"].get("WorkingDir") or "/")
        return name, home

    async def _image_directory(self, engine: Engine, spec: SandboxSpec) -> str:
        try:
            found = await engine.get(f"/images/{image_of(spec, self._defaults)}/json")
        except EngineError as error:
            if error.is_missing:
                raise self._no_image(spec) from error
            raise
        directory = str(found["Config"].get("WorkingDir") or "/")
        if directory == "/":
            raise SandboxError(
                "the whole file system of a container cannot be kept: set `directory` in the"
                " profile, or WORKDIR in the image, to what shall be kept as the home"
            )
        return directory

    def _no_image(self, spec: SandboxSpec) -> SandboxError:
        image = image_of(spec, self._defaults)
        return SandboxError(
            f"the container engine at {self._address} has no image {image}; pull or load it there"
            f" first: docker pull {image}, or podman pull {image}"
        )

    async def remove_orphans(self, known: Collection[str]) -> tuple[str, ...]:
        """Remove the containers that this server made for sessions other than `known`.

        Return the ids of those sessions.  For the start of a server, which cannot take over what a
        predecessor left.  Kept homes stay.

        Raises:
          SandboxError: the engine does not answer, or refuses.

        Cancellation: safe; some may have been removed.
        """
        removed: list[str] = []
        try:
            async with open_engine(self._address) as engine:
                found = await engine.containers((f"{SERVER_LABEL}={self._defaults.server}",))
                for container in found:
                    session = container.get("Labels", {}).get(SESSION_LABEL)
                    if session is not None and session not in known:
                        await engine.remove_container(str(container["Id"]))
                        removed.append(session)
        except EngineError as error:
            raise SandboxError(str(error)) from error
        return tuple(removed)

    async def remove_home(self, spec: SandboxSpec) -> None:
        """Remove the kept home of a session that will not be started again; idempotent.

        Raises:
          SandboxError: the engine does not answer, or refuses: it may be in use.
        """
        volume = home_volume(spec, self._defaults.server)
        try:
            async with open_engine(self._address) as engine:
                await engine.remove_volume(volume)
        except EngineError as error:
            raise SandboxError(f"the home {volume} could not be removed: {error}") from error


async def _remove(engine: Engine, container: str) -> None:
    """Remove a container, whatever happens; what cannot be removed now is an orphan."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + REMOVE_SECONDS) as scope:
        try:
            await engine.remove_container(container)
        except EngineError as error:
            status = error.status or HTTPStatus.SERVICE_UNAVAILABLE
            _log.warning("container_left", container=container, status=status, error=str(error))
    if scope.cancelled_caught:
        _log.warning("container_left", container=container, error="the engine does not answer")
