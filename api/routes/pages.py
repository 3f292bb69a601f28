"""The web pages."""

from __future__ import annotations

import re
from typing import cast

from quart import Blueprint, current_app, request
from quart_schema import hide
from quart_trio.wrappers import TrioResponse

from api.context import current_context
from api.headers import content_security_policy
from api.pages import Asset, StaticPages
from api.problems import NOT_FOUND, ApiError

EXTENSION = "trunkline.pages"

_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
@hide
async def index() -> TrioResponse:
    """Show the terminal page."""
    return _serve("index.html")


@blueprint.get("/t/<session_id>")
@hide
async def terminal(session_id: str) -> TrioResponse:
    """Show the terminal page; its script attaches to the session that the path names."""
    if _UUID.fullmatch(session_id) is None:
        raise ApiError(NOT_FOUND, "A session's page is /t/ and the session's id.")
    return _serve("index.html")


@blueprint.get("/desktop/<session_id>")
@hide
async def desktop(session_id: str) -> TrioResponse:
    """Show the desktop page; its script attaches to the session that the path names."""
    if _UUID.fullmatch(session_id) is None:
        raise ApiError(NOT_FOUND, "A session's desktop is /desktop/ and the session's id.")
    return _serve("desktop.html")


@blueprint.get("/static/<path:path>")
@hide
async def asset(path: str) -> TrioResponse:
    """Serve a file of the pages."""
    return _serve(path)


def _serve(path: str) -> TrioResponse:
    pages = cast("StaticPages", current_app.extensions[EXTENSION])
    found = pages.find(path)
    if found is None:
        raise ApiError(NOT_FOUND, "The web pages have no such file. They begin at /.")
    response = _not_modified(found) or TrioResponse(found.content, content_type=found.content_type)
    response.headers["ETag"] = found.etag
    # Names carry no version, so a copy is asked about each time; 304 makes that cheap.
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Content-Security-Policy"] = content_security_policy(
        script_hashes=found.script_hashes,
        host=request.headers.get("Host"),
        public_url=current_context().public_url,
    )
    return response


def _not_modified(found: Asset) -> TrioResponse | None:
    """Return the empty answer to a client that has this very content (RFC 9110 §13.1.2)."""
    if not request.if_none_match.contains_weak(found.etag.strip('"')):
        return None
    response = TrioResponse(status=304)
    del response.headers["Content-Type"]
    return response
