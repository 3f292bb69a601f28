"""Signing in, and who one is."""

from __future__ import annotations

from quart import Blueprint
from quart_schema import document_request, document_response
from quart_trio.wrappers import TrioResponse

from api import fields, schemas
from api.context import current_context, current_principal
from api.json_body import read_json
from api.openapi import problems, public
from api.problems import FORBIDDEN, ApiError, unauthenticated
from api.schemas import respond
from auth.authenticator import AuthenticationError
from sessions.record import rfc3339

blueprint = Blueprint("access", __name__, url_prefix="/v1")


@blueprint.post("/login")
@public
@document_request(schemas.Login)
@document_response(schemas.ConsoleToken)
@problems(400, 401, 413, 415)
async def login() -> TrioResponse:
    """Exchange the one-use code of the address that `trunkline serve` prints for a credential."""
    code = fields.parse_login(await read_json())
    try:
        token = current_context().authenticator.exchange_login_code(code)
    except AuthenticationError as error:
        raise unauthenticated(str(error), presented=True) from None
    return respond(schemas.ConsoleToken(token=token.token, expires_at=rfc3339(token.expires_at)))


@blueprint.post("/login-codes")
@document_response(schemas.LoginCode, 201)
@problems(401, 403)
async def login_code() -> TrioResponse:
    """Make a code that logs a browser in once, as the caller, within 15 minutes."""
    principal = current_principal()
    if principal.derived:
        raise ApiError(
            FORBIDDEN, "A console token cannot make login codes: run 'trunkline open' instead."
        )
    code = current_context().authenticator.issue_login_code(principal)
    return respond(schemas.LoginCode(code=code), 201)


@blueprint.get("/whoami")
@document_response(schemas.WhoAmI)
@problems(401)
async def whoami() -> TrioResponse:
    """Tell whose credential this is."""
    return respond(schemas.WhoAmI(subject=current_principal().subject))
