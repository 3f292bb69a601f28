"""Errors as the client sees them: problem details (RFC 9457), one literal table.

A handler raises `ApiError`; errors of the layers below and of Quart itself are translated here.
The `detail` is written for the person at the other end and says what to do next; it never holds
a credential, nor anything about the inside of the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from werkzeug.exceptions import HTTPException, MethodNotAllowed

from relay.errors import AttachRefused
from relay.protocol.reasons import Refusal

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:trunkline:problem:"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """A kind of error: the last part of its `type`, its status code and its title."""

    name: str
    status: int
    title: str

    @property
    def type(self) -> str:
        """The URI that identifies this kind of error, for programs (RFC 9457 §3.1.1)."""
        return TYPE_PREFIX + self.name


INVALID_FIELD = ProblemKind("invalid-field", 400, "A field of the request is not valid")
UNAUTHENTICATED = ProblemKind("unauthenticated", 401, "A valid bearer credential is needed")
POLICY_DENIED = ProblemKind("policy-denied", 403, "Denied by policy")
NOT_OWNER = ProblemKind("not-owner", 403, "The session belongs to somebody else")
FORBIDDEN = ProblemKind("forbidden", 403, "Not with this credential")
SESSION_NOT_FOUND = ProblemKind("session-not-found", 404, "There is no such session")
NOT_FOUND = ProblemKind("not-found", 404, "There is nothing here")
METHOD_NOT_ALLOWED = ProblemKind("method-not-allowed", 405, "The method does not apply here")
SESSION_NOT_RUNNING = ProblemKind("session-not-running", 409, "The session is not running")
HOME_NOT_KEPT = ProblemKind("home-not-kept", 409, "Stopping would lose the session's home")
STREAM_NOT_FOUND = ProblemKind("stream-not-found", 404, "There is no such stream")
STREAM_CONFLICT = ProblemKind("stream-conflict", 409, "The tag is in use")
STREAM_BUSY = ProblemKind("stream-busy", 409, "Another client controls the stream")
STREAM_LIMIT = ProblemKind("stream-limit", 429, "The session has as many streams as it may")
NOT_SUPPORTED = ProblemKind("not-supported", 501, "The runtime cannot do this")
BODY_TOO_LARGE = ProblemKind("body-too-large", 413, "The request body is too large")
UNSUPPORTED_MEDIA_TYPE = ProblemKind(
    "unsupported-media-type", 415, "The request body is of another media type than the API takes"
)
UPGRADE_REQUIRED = ProblemKind("upgrade-required", 426, "This is a WebSocket endpoint")
INTERNAL_ERROR = ProblemKind("internal-error", 500, "The server failed")
SESSION_FAILED = ProblemKind("session-failed", 503, "The session could not be started")
NO_CAPACITY = ProblemKind("no-capacity", 503, "The server is full")
SHUTTING_DOWN = ProblemKind("shutting-down", 503, "The server is shutting down")

MAX_JSON_BODY = 64 * 1024
"""Bytes of a JSON request body."""

_UNEXPECTED = (
    "The server met an error that it did not expect. Try again; if it stays, give the request_id"
    " to whoever runs the server: it is in the server's log."
)

_OF_QUART: Mapping[int, tuple[ProblemKind, str]] = {
    404: (NOT_FOUND, "No resource has this path. The paths are listed in /openapi.json."),
    405: (METHOD_NOT_ALLOWED, "Use one of the methods that the Allow header names."),
    413: (BODY_TOO_LARGE, f"Send a body of at most {MAX_JSON_BODY} bytes."),
    500: (INTERNAL_ERROR, _UNEXPECTED),
}


_OF_REFUSAL: Mapping[Refusal, tuple[ProblemKind, str | None, Mapping[str, str]]] = {
    Refusal.BAD_REQUEST: (INVALID_FIELD, None, {}),
    Refusal.FORBIDDEN: (FORBIDDEN, None, {}),
    Refusal.NOT_FOUND: (STREAM_NOT_FOUND, "tag", {}),
    Refusal.CONFLICT: (STREAM_CONFLICT, "tag", {}),
    Refusal.BUSY: (STREAM_BUSY, "tag", {}),
    Refusal.LIMIT: (STREAM_LIMIT, None, {"Retry-After": "10"}),
    Refusal.START_FAILED: (INVALID_FIELD, "command", {}),
    Refusal.UNSUPPORTED: (NOT_SUPPORTED, None, {}),
}


class ApiError(Exception):
    """An error to answer a request with.

    `detail` is shown to the user.  `field` names the culprit among the fields of the body (or the
    header).  `headers` are added to the response.
    """

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})


def of_http_exception(error: HTTPException) -> ApiError:
    """Translate an error that Quart raised."""
    status = error.code or 500
    if status in _OF_QUART:
        kind, detail = _OF_QUART[status]
    else:
        phrase = HTTPStatus(status).phrase
        kind = ProblemKind(phrase.lower().replace(" ", "-"), status, phrase)
        detail = "The request cannot be served as it is; compare it with /openapi.json."
    headers = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return ApiError(kind, detail, headers=headers)


def unauthenticated(detail: str, *, presented: bool) -> ApiError:
    """Make the answer to a missing (`presented` False) or refused credential (RFC 6750 §3)."""
    challenge = 'Bearer error="invalid_token"' if presented else "Bearer"
    return ApiError(UNAUTHENTICATED, sentence(detail), headers={"WWW-Authenticate": challenge})


def of_refusal(error: AttachRefused) -> ApiError:
    """Translate what the owner of the streams said no to."""
    kind, field, headers = _OF_REFUSAL.get(error.code, (SESSION_NOT_RUNNING, None, {}))
    return ApiError(kind, sentence(error.message or error.code), field=field, headers=headers)


def session_not_found(session_id: str) -> ApiError:
    """Make the answer to an id that no session on record has."""
    return ApiError(
        SESSION_NOT_FOUND,
        f"No session has the id {session_id[:64]!r}: it never existed, or its record was removed"
        " 24 hours after it ended. GET /v1/sessions lists yours.",
    )


def sentence(text: str) -> str:
    """Return `text` with a full stop, and a capital first letter unless a name comes first."""
    text = text.strip()
    first, _, _ = text.partition(" ")
    if first.isalpha():
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
