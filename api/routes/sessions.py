"""Sessions and their attach tickets."""

from __future__ import annotations

from quart import Blueprint, request
from quart_schema import document_request, document_response
from quart_trio.wrappers import TrioResponse

from api import fields, schemas
from api.addresses import HostError, pty_url, websocket_base
from api.context import current_context, current_principal
from api.json_body import read_json
from api.openapi import problems, public
from api.problems import FORBIDDEN, INVALID_FIELD, UPGRADE_REQUIRED, ApiError
from api.running import checked_id, running_session
from api.schemas import respond
from relay.grant import Grant
from relay.socket_rules import SocketRules
from sessions.record import SessionRecord, rfc3339

NEW_SESSION_TICKET_TTL = 900
"""Seconds that the ticket of a new session lives; the seed's 15 minutes."""

blueprint = Blueprint("sessions", __name__, url_prefix="/v1/sessions")


@blueprint.post("")
@document_request(schemas.CreateSession)
@document_response(schemas.CreatedSession, 201)
@problems(400, 401, 403, 413, 415, 500, 503)
async def create() -> TrioResponse:
    """Start a session."""
    context = current_context()
    wish = fields.parse_create(await read_json())
    base = _websocket_base()  # a bad Host is found out before anything is started
    record = await context.manager.create(current_principal(), wish)
    grant = Grant(
        session_id=record.session_id,
        subject=record.owner,
        kinds=frozenset(fields.DEFAULT_KINDS),
        epoch=record.epoch,
        ports=context.manager.profile(record).ports_of(record.session_id),
    )
    body = schemas.CreatedSession(
        session_id=record.session_id,
        attach=_attach(base, grant, ttl_seconds=NEW_SESSION_TICKET_TTL, uses=None),
        placement=schemas.placement_of(record),
    )
    response = respond(body, 201)
    response.headers["Location"] = f"/v1/sessions/{record.session_id}"
    return response


@blueprint.get("")
@document_response(schemas.Sessions)
@problems(401)
async def index() -> TrioResponse:
    """List your sessions, the newest first."""
    records = await current_context().manager.list(current_principal())
    return respond(schemas.Sessions(sessions=[_session(record) for record in records]))


@blueprint.get("/<session_id>")
@document_response(schemas.Session)
@problems(401, 403, 404)
async def show(session_id: str) -> TrioResponse:
    """Tell the state of a session."""
    record = await current_context().manager.get(current_principal(), checked_id(session_id))
    return respond(_session(record))


@blueprint.delete("/<session_id>")
@document_response(schemas.Terminated)
@problems(401, 403, 404)
async def terminate(session_id: str) -> TrioResponse:
    """End a session and everything in it; returns when that is done.  Idempotent."""
    await current_context().manager.terminate(current_principal(), checked_id(session_id))
    return respond(schemas.Terminated())


@blueprint.post("/<session_id>/pause")
@document_response(schemas.Session)
@problems(401, 403, 404, 409, 501)
async def pause(session_id: str) -> TrioResponse:
    """Stop everything in a session where it is; what is attached stays so.  Idempotent."""
    manager = current_context().manager
    return respond(_session(await manager.pause(current_principal(), checked_id(session_id))))


@blueprint.post("/<session_id>/resume")
@document_response(schemas.Session)
@problems(401, 403, 404, 409, 501)
async def resume(session_id: str) -> TrioResponse:
    """Let everything in a paused session go on.  Idempotent."""
    manager = current_context().manager
    return respond(_session(await manager.resume(current_principal(), checked_id(session_id))))


@blueprint.post("/<session_id>/stop")
@document_response(schemas.Session)
@problems(401, 403, 404, 409)
async def stop(session_id: str) -> TrioResponse:
    """End everything in a session but its home; returns when that is done.  Idempotent."""
    manager = current_context().manager
    return respond(_session(await manager.stop(current_principal(), checked_id(session_id))))


@blueprint.post("/<session_id>/start")
@document_response(schemas.Session)
@problems(401, 403, 404, 409, 503)
async def start(session_id: str) -> TrioResponse:
    """Start a stopped session again; returns when it runs.  Idempotent."""
    manager = current_context().manager
    return respond(_session(await manager.start(current_principal(), checked_id(session_id))))


@blueprint.post("/<session_id>/attach")
@document_request(schemas.CreateTicket)
@document_response(schemas.Attach, 201)
@problems(400, 401, 403, 404, 409, 413, 415)
async def create_ticket(session_id: str) -> TrioResponse:
    """Make a ticket for a running session; the body may be left out."""
    wish = fields.parse_attach(await read_json())
    base = _websocket_base()
    record = await running_session(session_id)
    grant = Grant(
        session_id=record.session_id,
        subject=current_principal().subject,
        kinds=wish.kinds,
        mode=wish.mode,
        tag=wish.tag,
        epoch=record.epoch,
        ports=_narrowed(record, wish.ports),
    )
    return respond(_attach(base, grant, ttl_seconds=wish.ttl_seconds, uses=wish.uses), 201)


@blueprint.delete("/<session_id>/attach")
@document_response(schemas.Revoked)
@problems(401, 403, 404)
async def revoke(session_id: str) -> TrioResponse:
    """Refuse every ticket made so far and close the live attachments.  Idempotent."""
    await current_context().manager.revoke(current_principal(), checked_id(session_id))
    return respond(schemas.Revoked())


@blueprint.get("/<session_id>/pty")
@public
@problems(426)
async def pty(session_id: str) -> TrioResponse:
    """Attach to the terminal, as a WebSocket.

    With `Sec-WebSocket-Protocol: trunk.1` it speaks trunk/1, without it the JSON text frames of
    cloudshell-fog. The ticket travels in `?token=` or as the subprotocol `trunk.ticket.<ticket>`.
    """
    # Upgrades are served by the listener and never come here.
    raise ApiError(
        UPGRADE_REQUIRED,
        "Connect with a WebSocket client, passing a ticket in ?token=;"
        " POST /v1/sessions/{id}/attach makes one.",
        headers={"Upgrade": "websocket"},
    )


def _narrowed(record: SessionRecord, wish: SocketRules | None) -> SocketRules | None:
    """Return the ports of a ticket: those of the profile, or fewer if fewer are asked for."""
    allowed = current_context().manager.profile(record).ports_of(record.session_id)
    if wish is None or allowed is None:
        return wish or allowed
    if not allowed.covers(wish):
        raise ApiError(
            FORBIDDEN,
            f"The profile {record.profile!r} allows connections to {allowed} only.",
            field="ports",
        )
    return wish


def _session(record: SessionRecord) -> schemas.Session:
    # A record may stem from a time when the server had other runtimes.
    return schemas.session_of(record, isolated=current_context().host.isolates(record.runtime))


def _websocket_base() -> str:
    try:
        return websocket_base(
            request.scheme, request.headers.get("Host"), current_context().public_url
        )
    except HostError as error:
        raise ApiError(INVALID_FIELD, str(error), field="Host") from None


def _attach(base: str, grant: Grant, *, ttl_seconds: int, uses: int | None) -> schemas.Attach:
    ticket = current_context().tickets.issue(grant, ttl_seconds=ttl_seconds, uses=uses)
    return schemas.Attach(
        ws_url=pty_url(base, grant.session_id),
        token=ticket.token,
        expires_at=rfc3339(ticket.expires_at),
    )
