"""The HTTP half of the SDK: one method per endpoint, typed answers, typed errors."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from relay.endpoint import Kind
from relay.grant import Mode
from trunkline.sdk.discovery import Server
from trunkline.sdk.errors import ApiError, ServerUnreachable
from trunkline.version import SOFTWARE

TIMEOUT = 30.0
"""Seconds for one request; making a sandbox can take a while."""


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A session as the server tells it."""

    session_id: str
    status: str
    state: str
    profile: str
    created_at: datetime
    expires_at: datetime
    reason: str | None = None
    runtime: str | None = None
    isolated: bool | None = None


class ChannelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One output of a stream, in bytes: what can be replayed ends at `next_offset`."""

    channel: int
    first_offset: int
    next_offset: int
    dropped: int


class AttachmentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One client of a stream; `lag` and `skipped` are bytes of output."""

    subject: str
    mode: Mode
    policy: str
    connected: bool
    lag: int
    skipped: int
    input_bytes: int


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as the server tells it."""

    tag: str
    kind: Kind
    state: str
    pid: int | None
    command: list[str]
    age_seconds: float
    exit_code: int | None
    signal: str | None
    channels: list[ChannelInfo]
    attachments: list[AttachmentInfo]


class TicketInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A ticket, and where to redeem it."""

    token: str
    ws_url: str
    expires_at: datetime


class _Created(msgspec.Struct, frozen=True):
    session_id: str


class _Sessions(msgspec.Struct, frozen=True):
    sessions: list[SessionInfo]


class _Streams(msgspec.Struct, frozen=True):
    streams: list[StreamInfo]


class _LoginCode(msgspec.Struct, frozen=True):
    code: str


_Answer = TypeVar("_Answer")


class Api:
    """Requests to one server.  ``async with``."""

    def __init__(self, server: Server, ssl_context: ssl.SSLContext | None = None) -> None:
        self.server = server
        self.ssl_context = ssl_context
        self._http = httpx2.AsyncClient(
            base_url=server.url,
            headers={"Authorization": f"Bearer {server.token}", "User-Agent": SOFTWARE},
            timeout=TIMEOUT,
            verify=_verification(server.url, ssl_context),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(exc_type, exc, traceback)

    async def create_session(self, profile: str, ttl_seconds: int) -> str:
        """Make a session and return its id.  `ttl_seconds` 0 means the profile's default."""
        body = {"profile": profile, "ttl_seconds": ttl_seconds}
        return (await self._call("POST", "/v1/sessions", _Created, body)).session_id

    async def sessions(self) -> list[SessionInfo]:
        """Return the caller's sessions, newest first."""
        return (await self._call("GET", "/v1/sessions", _Sessions)).sessions

    async def session(self, session_id: str) -> SessionInfo:
        """Return one session."""
        return await self._call("GET", _path(session_id), SessionInfo)

    async def delete_session(self, session_id: str) -> None:
        """End a session and everything in it."""
        await self._call("DELETE", _path(session_id), dict[str, Any])

    async def pause_session(self, session_id: str) -> SessionInfo:
        """Stop everything in a session where it is."""
        return await self._call("POST", _path(session_id) + "/pause", SessionInfo)

    async def resume_session(self, session_id: str) -> SessionInfo:
        """Let everything in a paused session go on."""
        return await self._call("POST", _path(session_id) + "/resume", SessionInfo)

    async def stop_session(self, session_id: str) -> SessionInfo:
        """End everything in a session but its home."""
        return await self._call("POST", _path(session_id) + "/stop", SessionInfo)

    async def start_session(self, session_id: str) -> SessionInfo:
        """Start a stopped session again."""
        return await self._call("POST", _path(session_id) + "/start", SessionInfo)

    async def ticket(
        self,
        session_id: str,
        kinds: frozenset[Kind],
        mode: Mode,
        tag: str | None = None,
        ports: Sequence[int | str] | None = None,
    ) -> TicketInfo:
        """Return a ticket that can be redeemed once, within a minute."""
        body: dict[str, Any] = {"kinds": sorted(kinds), "mode": mode.value}
        if tag is not None:
            body["tag"] = tag
        if ports is not None:
            body["ports"] = list(ports)
        return await self._call("POST", _path(session_id) + "/attach", TicketInfo, body)

    async def streams(self, session_id: str) -> list[StreamInfo]:
        """Return the streams of a running session."""
        return (await self._call("GET", _path(session_id) + "/streams", _Streams)).streams

    async def send_signal(self, session_id: str, tag: str, name: str) -> None:
        """Send a signal (``"TERM"``) to the process group of a stream."""
        path = f"{_path(session_id)}/streams/{quote(tag, safe='')}/signal"
        await self._call("POST", path, dict[str, Any], {"signal": name})

    async def login_code(self) -> str:
        """Return a code with which a browser can log in once, as the caller."""
        return (await self._call("POST", "/v1/login-codes", _LoginCode)).code

    async def _call(
        self, method: str, path: str, answer: type[_Answer], body: object = None
    ) -> _Answer:
        try:
            response = await self._http.request(method, path, json=body)
        except httpx2.TransportError as error:
            raise ServerUnreachable(
                f"{self.server.url} does not answer: {root_of(error)}"
            ) from error
        if response.status_code >= 400:
            raise _api_error(response)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except ValueError as error:
            raise ApiError(
                response.status_code, "the server's answer is not understood", str(error)
            ) from error


def _verification(url: str, ssl_context: ssl.SSLContext | None) -> ssl.SSLContext | bool:
    """Return what to verify the server's certificate with: the system's authorities, by default."""
    if ssl_context is not None:
        return ssl_context
    # Reading the authorities takes a while, so not where nobody needs them.
    return ssl.create_default_context() if url.startswith("https:") else False


def root_of(error: BaseException) -> str:
    """Return the message of what lies behind `error`: libraries wrap errors without their words."""
    message = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, OSError) and cause.strerror:
            message = cause.strerror
        elif str(cause):
            message = str(cause)
        if isinstance(cause, ssl.SSLError):
            break  # it knows best; what is behind it is the broken connection
        cause = cause.__cause__ or cause.__context__
    return message


def _path(session_id: str) -> str:
    if not session_id or "/" in session_id or "?" in session_id or "#" in session_id:
        raise ApiError(404, "Not Found", f"{session_id!r} is not the id of a session")
    return f"/v1/sessions/{session_id}"


def _api_error(response: httpx2.Response) -> ApiError:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return ApiError(response.status_code, response.reason_phrase, response.text[:200])
    return ApiError(
        response.status_code,
        str(problem.get("title", response.reason_phrase)),
        str(problem.get("detail", "")),
        problem.get("field"),
        problem.get("request_id"),
    )
