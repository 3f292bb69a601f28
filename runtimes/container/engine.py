"""A client of the Docker Engine API, as far as sandboxes need it.

Plain calls go through an HTTP client; each process has a connection of its own, taken over from
HTTP (`runtimes.container.hijack`).  Works with Docker and with Podman's service.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx2
import trio

from relay.endpoint import TerminalSize
from runtimes.container.address import EngineAddress
from runtimes.container.errors import EngineError, EngineUnreachable
from runtimes.container.hijack import connect, message_of, unreachable, upgrade

OLDEST_VERSION = (1, 40)
"""The first version of the API with everything that is used here (Docker 19.03)."""
NEWEST_VERSION = (1, 51)
"""The last version of the API whose changes were looked through."""

REQUEST_SECONDS = 60.0
"""How long one call may take; starting a container from a large image takes a while."""

_CONNECTIONS = 16
_MAX_CONNECTIONS = httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=4)


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A process to run in a container; `user` empty means the container's own."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    terminal: bool = False
    user: str = ""
    has_input: bool = True


@dataclass(frozen=True, slots=True)
class ExecState:
    """What the engine knows of a process; `exit_code` is None while it runs."""

    exit_code: int | None


class Exec:
    """A process in a container, and the connection to its input and output.

    Owns `stream`.  `early` is what came together with the answer.
    """

    def __init__(
        self, engine: Engine, exec_id: str, stream: trio.abc.HalfCloseableStream, early: bytes
    ) -> None:
        self.stream = stream
        self.early = early
        self._engine = engine
        self._path = f"/exec/{exec_id}"

    async def inspect(self) -> ExecState:
        """Return what the engine knows of the process.  Raises: EngineError."""
        found = await self._engine.get(f"{self._path}/json")
        return ExecState(None if found.get("Running") else int(found.get("ExitCode") or 0))

    async def resize(self, size: TerminalSize) -> None:
        """Set the size of its terminal.  Raises: EngineError."""
        await self._engine.post(f"{self._path}/resize", params={"h": size.rows, "w": size.columns})


class Engine:
    """Made by `open_engine`.  Every method raises `EngineError` when the engine refuses, and
    `EngineUnreachable` when it does not answer."""

    def __init__(self, address: EngineAddress, http: httpx2.AsyncClient) -> None:
        self.address = address
        self._http = http
        self._prefix = ""

    async def negotiate(self) -> None:
        """Choose the version of the API that both sides speak."""
        found = await self.get("/version")
        try:
            newest = _version(found["ApiVersion"])
            oldest = _version(found.get("MinAPIVersion") or found["ApiVersion"])
        except (KeyError, ValueError) as error:
            raise EngineUnreachable(
                f"what answers at {self.address} does not say which version of the Docker Engine"
                " API it speaks; is it a container engine?"
            ) from error
        chosen = min(newest, NEWEST_VERSION)
        if chosen < OLDEST_VERSION or oldest > NEWEST_VERSION:
            raise EngineUnreachable(
                f"the container engine at {self.address} speaks versions {_text(oldest)} to"
                f" {_text(newest)} of the Docker Engine API; {_text(OLDEST_VERSION)} to"
                f" {_text(NEWEST_VERSION)} are supported: use another release of it"
            )
        self._prefix = f"/v{_text(chosen)}"

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """GET and return the JSON that comes."""
        return await self._call("GET", path, params=params)

    async def post(
        self, path: str, body: object = None, params: Mapping[str, Any] | None = None
    ) -> Any:
        """POST and return the JSON that comes, None if there is none."""
        return await self._call("POST", path, params=params, json=body)

    async def remove_container(self, container: str) -> None:
        """Kill and remove a container with its anonymous volumes; one that is gone is fine."""
        try:
            await self._call(
                "DELETE", f"/containers/{container}", params={"force": "true", "v": "true"}
            )
        except EngineError as error:
            # 409: somebody else is removing it at this moment.
            if error.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
                raise

    async def remove_volume(self, volume: str) -> None:
        """Remove a volume; one that is gone is fine."""
        try:
            await self._call("DELETE", f"/volumes/{volume}")
        except EngineError as error:
            if not error.is_missing:
                raise

    async def containers(self, labels: tuple[str, ...]) -> list[Mapping[str, Any]]:
        """Return the containers that have all of `labels`, stopped ones too."""
        filters = json.dumps({"label": list(labels)})
        found = await self.get("/containers/json", {"all": "true", "filters": filters})
        return list(found)

    async def start_exec(self, container: str, spec: ExecSpec) -> Exec:
        """Run a process in a container and connect to it.

        Cancellation: the process may have been started; its input has ended.
        """
        body = {
            "AttachStdin": spec.has_input,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": spec.terminal,
            "Cmd": list(spec.command),
            "Env": [f"{name}={value}" for name, value in spec.environment.items()],
            "User": spec.user,
        }
        created = await self.post(f"/containers/{container}/exec", body)
        exec_id = str(created["Id"])
        try:
            with trio.fail_after(REQUEST_SECONDS):
                stream, early = await self._take_over(exec_id, terminal=spec.terminal)
        except trio.TooSlowError:
            raise self._too_slow("starting a process") from None
        return Exec(self, exec_id, stream, early)

    async def _take_over(
        self, exec_id: str, *, terminal: bool
    ) -> tuple[trio.abc.HalfCloseableStream, bytes]:
        stream = await connect(self.address)
        try:
            target = f"{self._prefix}/exec/{exec_id}/start"
            body = {"Detach": False, "Tty": terminal}
            return stream, await upgrade(stream, self.address, target, body)
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise unreachable(self.address, error) from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    def _too_slow(self, what: str) -> EngineUnreachable:
        return EngineUnreachable(
            f"the container engine at {self.address} does not answer"
            f" ({what} took more than {REQUEST_SECONDS:.0f} s); look at its log"
        )

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = await self._http.request(method, f"{self._prefix}{path}", **options)
        except httpx2.TimeoutException as error:
            raise self._too_slow(f"{method} {path}") from error
        except (httpx2.TransportError, OSError) as error:
            raise unreachable(self.address, _cause(error)) from error
        if answer.status_code >= HTTPStatus.BAD_REQUEST:
            raise EngineError(message_of(answer.content), answer.status_code)
        if not answer.content.strip():
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise EngineUnreachable(
                f"what answers at {self.address} is no container engine: {method} {path} gave no JSON"
            ) from error


def _cause(error: BaseException) -> BaseException:
    """Return the error of the system behind one of the HTTP client."""
    while not isinstance(error, OSError) and (cause := error.__cause__ or error.__context__):
        error = cause
    return error


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


@asynccontextmanager
async def open_engine(address: EngineAddress) -> AsyncIterator[Engine]:
    """Connect to the engine at `address` for as long as the ``async with`` block lasts.

    Raises:
      EngineUnreachable: it does not answer, or speaks no version of the API that is known here.
    """
    transport = httpx2.AsyncHTTPTransport(
        uds=address.path,
        verify=address.ssl_context or False,
        limits=_MAX_CONNECTIONS,
        trust_env=False,
    )
    async with httpx2.AsyncClient(
        transport=transport, base_url=address.base_url, timeout=REQUEST_SECONDS, trust_env=False
    ) as http:
        engine = Engine(address, http)
        await engine.negotiate()
        yield engine
