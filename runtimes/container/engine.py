"""A client of the Docker Engine API, as far as sandboxes need it.

Plain calls go through an HTTP client; each process has a connection of its own, taken over from
HTTP (`runtimes.container.hijack`).  Works with Docker and with Podman's service.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import httpx2
import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, TerminalSize
from runtimes.container.address import EngineAddress
from runtimes.container.errors import EngineError, EngineUnreachable
from runtimes.container.hijack import connect, message_of, unreachable, upgrade
from runtimes.container.multiplex import Demultiplexer, MultiplexError
from runtimes.exec_inside.process import Exec, ExecHost, ExecSpec

OLDEST_VERSION = (1, 40)
"""The first version of the API with everything that is used here (Docker 19.03)."""
NEWEST_VERSION = (1, 51)
"""The last version of the API whose changes were looked through."""

REQUEST_SECONDS = 60.0
"""How long one call may take; starting a container from a large image takes a while."""

_READ_BYTES = 64 * 1024
_CONNECTIONS = 16
_MAX_CONNECTIONS = httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=4)

Opened = tuple[trio.abc.HalfCloseableStream, bytes]
"""A connection that was taken over, and what came with the answer."""


class ContainerExec(Exec):
    """A process in a container.  Owns `stream`; `early` is what came together with the answer."""

    def __init__(self, engine: Engine, exec_id: str, opened: Opened, *, is_terminal: bool) -> None:
        self._engine = engine
        self._path = f"/exec/{exec_id}"
        self._stream, self._early = opened
        self._is_terminal = is_terminal
        self._demultiplexer = Demultiplexer()
        self._failure: MultiplexError | None = None

    async def receive(self) -> Sequence[tuple[Channel, Buffer]]:
        """As `Exec.receive`."""
        pieces: list[tuple[Channel, Buffer]] = []
        while not pieces:
            if self._failure is not None:
                raise trio.BrokenResourceError(str(self._failure)) from self._failure
            data, self._early = self._early, b""
            if not data:
                data = bytes(await self._stream.receive_some(_READ_BYTES))
            if not data:
                break
            if self._is_terminal:
                return [(Channel.OUTPUT, data)]
            try:
                pieces.extend(self._demultiplexer.feed(data))
            except MultiplexError as error:
                self._failure = error
        return pieces

    async def send(self, data: Buffer) -> None:
        """As `Exec.send`."""
        await self._stream.send_all(data)

    async def send_eof(self) -> None:
        """As `Exec.send_eof`."""
        await self._stream.send_eof()

    async def exit_code(self) -> int | None:
        """As `Exec.exit_code`: the engine knows it."""
        found = await self._engine.get(f"{self._path}/json")
        return None if found.get("Running") else int(found.get("ExitCode") or 0)

    async def resize(self, size: TerminalSize) -> None:
        """As `Exec.resize`."""
        await self._engine.post(f"{self._path}/resize", params={"h": size.rows, "w": size.columns})

    async def aclose(self) -> None:
        """As `Exec.aclose`."""
        await trio.aclose_forcefully(self._stream)


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

    async def start_exec(self, container: str, spec: ExecSpec) -> ContainerExec:
        """Run a process in a container and connect to it.

        Cancellation: the process may have been started; its input has ended.
        """
        body = {
            "AttachStdin": True,
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
                opened = await self._take_over(exec_id, terminal=spec.terminal)
        except trio.TooSlowError:
            raise self._too_slow("starting a process") from None
        return ContainerExec(self, exec_id, opened, is_terminal=spec.terminal)

    async def _take_over(self, exec_id: str, *, terminal: bool) -> Opened:
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


class ContainerHost(ExecHost):
    """Runs processes in one container."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name

    async def start(self, spec: ExecSpec) -> ContainerExec:
        """As `ExecHost.start`."""
        return await self._engine.start_exec(self.name, spec)

    async def order(self, verb: str) -> None:
        """Do with the container what the engine calls `verb` (``pause``).  Raises: EngineError."""
        await self._engine.post(f"/containers/{self.name}/{verb}")


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
