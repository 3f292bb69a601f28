"""What the server says of itself."""

from __future__ import annotations

from quart import Blueprint, current_app
from quart_schema import document_response, hide
from quart_trio.wrappers import TrioResponse

from api import schemas
from api.openapi import DOCUMENT, public
from api.schemas import JSON, respond

blueprint = Blueprint("meta", __name__)


@blueprint.get("/healthz")
@public
@document_response(schemas.Health)
async def healthz() -> TrioResponse:
    """Tell that the server is alive."""
    return respond(schemas.Health())


@blueprint.get("/openapi.json")
@hide
async def openapi() -> TrioResponse:
    """Describe the API (OpenAPI 3.1)."""
    return TrioResponse(current_app.extensions[DOCUMENT], content_type=JSON)
