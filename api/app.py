"""The Quart-Trio application: routes, errors, headers and the request log in one place.

It serves no WebSockets (the listener does, before a request comes here) and refuses any that
reach it: Quart's ``before_request``, which authenticates, does not run for them.
"""

from __future__ import annotations

import re
import traceback
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import msgspec
import structlog
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketCloseEvent
from quart import request
from quart.wrappers.base import BaseRequestWebsocket
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIWebsocketConnection
from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

import web
from api import openapi, problems, schemas
from api.body import BoundedConnection, BoundedRequest
from api.context import EXTENSION, Context
from api.fields import FieldError
from api.file_problems import of_failure
from api.gate import authenticate
from api.headers import DEFAULT_HEADERS
from api.pages import load_pages
from api.problems import ApiError, sentence
from api.routes import access, files, meta, pages, sessions, sockets, streams, uploads
from api.running import not_running
from api.tus import TusError
from relay.errors import AttachmentClosed, AttachRefused
from relay.file_stream import FileFailed
from runtimes.base import UnknownSession
from sessions import errors

log = structlog.get_logger()

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
"""What is taken over from a client's X-Request-Id; anything else is replaced."""

_QUIET_ENDPOINTS = frozenset({"meta.healthz", "pages.asset"})
"""Logged at debug level: they come often and say little."""


class ApiRequest(BoundedRequest):
    """A request with a name of its own.  `started` is a Trio time."""

    request_id: str
    started: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        given = self.headers.get("X-Request-Id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.started = trio.current_time()


class NoWebSockets(TrioASGIWebsocketConnection):
    """Refuses WebSockets, whoever lets them come here."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Refuse the handshake: the server answers it with 403."""
        await receive()
        await send(WebsocketCloseEvent(type="websocket.close", code=1008, reason="not a WebSocket"))


class Application(QuartTrio):
    """The ASGI application."""

    asgi_http_class = BoundedConnection
    asgi_websocket_class = NoWebSockets
    request_class = ApiRequest

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Match a request by its path and method alone.

        Quart would also decode the query and split the Host, which raises, outside of all error
        handling, on bytes that clients may well send.
        """
        if request is None:
            return super().create_url_adapter(None)
        return self.url_map.bind("localhost", path_info=request.path, default_method=request.method)

    def log_exception(
        self,
        exception_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None],
    ) -> None:
        """Log an exception that no handler expected."""
        # Formatted here, because pretty printers of logs may show local variables, and with them
        # credentials.
        log.error(
            "request failed",
            request_id=_current_request().request_id,
            method=request.method,
            endpoint=request.endpoint,
            traceback="".join(traceback.format_exception(exception_info[1])),
        )


def create_app(context: Context, *, static_root: Path | None = None) -> Application:
    """Make the application.

    `static_root` is the directory of the web pages; None means those of the `web` package.
    Reads the pages from the disk: call it at start-up.

    Raises:
      OSError: the web pages cannot be read.
    """
    app = Application("api", static_folder=None, template_folder=None)
    app.config["BODY_TIMEOUT"] = None  # slow heads and bodies are the listener's to bound
    app.config["RESPONSE_TIMEOUT"] = None  # would cut long downloads and event streams
    app.config["MAX_CONTENT_LENGTH"] = problems.MAX_JSON_BODY
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # answered with redirects, which no client here follows
    app.extensions[EXTENSION] = context
    app.extensions[pages.EXTENSION] = load_pages(
        static_root or Path(web.__file__).parent / "static"
    )
    for module in (access, files, meta, pages, sessions, sockets, streams, uploads):
        app.register_blueprint(module.blueprint)
    app.before_request(authenticate)
    app.after_request(_finish)
    for culprit, translate in _TRANSLATIONS.items():
        app.register_error_handler(culprit, _handler(translate))
    openapi.describe(app, context.version)
    return app


_TRANSLATIONS: dict[type[Exception], Callable[[Any], ApiError]] = {
    ApiError: lambda error: error,
    HTTPException: problems.of_http_exception,
    FieldError: lambda error: ApiError(problems.INVALID_FIELD, str(error), field=error.field),
    TusError: lambda error: ApiError(problems.INVALID_FIELD, str(error), field=error.field),
    FileFailed: of_failure,
    AttachRefused: problems.of_refusal,
    AttachmentClosed: lambda _: not_running("ending"),
    UnknownSession: lambda _: not_running("ending"),
    errors.InvalidRequest: lambda error: ApiError(
        problems.INVALID_FIELD, sentence(error.problem), field=error.field
    ),
    errors.UnknownProfile: lambda error: ApiError(
        problems.INVALID_FIELD,
        f"There is no profile {error.profile!r}. Name one of the server's configuration;"
        " 'default' is there unless that says otherwise.",
        field="profile",
    ),
    errors.PolicyDenied: lambda error: ApiError(problems.POLICY_DENIED, sentence(error.reason)),
    errors.NoCapacity: lambda error: ApiError(
        problems.NO_CAPACITY,
        sentence(error.reason),
        headers={"Retry-After": "10"},
    ),
    errors.SessionFailed: lambda error: ApiError(
        problems.SESSION_FAILED,
        f"{sentence(error.reason)} Whoever runs the server finds more in its log.",
    ),
    errors.ShuttingDown: lambda _: ApiError(
        problems.SHUTTING_DOWN,
        "The server is shutting down; try again when it is back.",
        headers={"Retry-After": "5"},
    ),
    errors.SessionNotFound: lambda error: problems.session_not_found(error.session_id),
    errors.NotRunning: lambda error: ApiError(
        problems.SESSION_NOT_RUNNING,
        f"The session is {error.state}: only one that runs can be paused, only a paused one"
        " can be resumed, and one that has ended can be neither stopped nor started.",
    ),
    errors.CannotStop: lambda error: ApiError(problems.HOME_NOT_KEPT, sentence(error.reason)),
    errors.CannotPause: lambda error: ApiError(problems.NOT_SUPPORTED, sentence(error.reason)),
    errors.NotOwner: lambda _: ApiError(
        problems.NOT_OWNER,
        "Only its owner may use this session. GET /v1/sessions lists yours.",
    ),
}
"""How each expected error is answered; whatever is not here is a bug and becomes a 500."""


def _handler(translate: Callable[[Any], ApiError]) -> Callable[[Any], Awaitable[TrioResponse]]:
    async def handle(error: Exception) -> TrioResponse:
        problem = translate(error)
        body = schemas.Problem(
            type=problem.kind.type,
            title=problem.kind.title,
            status=problem.kind.status,
            detail=problem.detail,
            request_id=_current_request().request_id,
            field=problem.field,
        )
        return TrioResponse(
            msgspec.json.encode(body),
            problem.kind.status,
            headers=problem.headers,
            content_type=problems.CONTENT_TYPE,
        )

    return handle


async def _finish(response: TrioResponse) -> TrioResponse:
    """Add the headers that every response has, and write the request's one line of log."""
    current = _current_request()
    for name, value in DEFAULT_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = current.request_id
    write = log.debug if current.endpoint in _QUIET_ENDPOINTS else log.info
    write(
        "request",
        request_id=current.request_id,
        method=current.method,
        path=current.path[:256],  # never the query: it may hold a ticket
        status=response.status_code,
        milliseconds=round((trio.current_time() - current.started) * 1000, 1),
    )
    return response


def _current_request() -> ApiRequest:
    return cast("ApiRequest", request)
