"""Errors as `application/problem+json` (RFC 9457), for answers that the app never sees."""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus

CONTENT_TYPE = b"application/problem+json"


def make_request_id() -> str:
    """Return a fresh id that ties an answer to its log line: 16 hexadecimal digits."""
    return secrets.token_hex(8)


def phrase(status: int) -> str:
    """Return the reason phrase of an HTTP status; "" for an unknown one."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def problem(status: int, detail: str, request_id: str) -> bytes:
    """Return the body of a problem+json answer."""
    return json.dumps(
        {
            "type": "about:blank",
            "title": phrase(status),
            "status": status,
            "detail": detail,
            "request_id": request_id,
        }
    ).encode()
