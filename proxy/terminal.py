"""``GET /v1/sessions/{id}/pty``: the WebSocket to the streams of one session.

With the subprotocol ``trunk.1`` it is a trunk/1 link, handed to the agent as it is.  With none asked
for it speaks the JSON frames of cloudshell-fog (`proxy.fog_terminal`).

The authority is a ticket, never a cookie or a bearer: in the query (``?token=``, the seed's way) or
as a second subprotocol ``trunk.ticket.<ticket>``, which no server logs.
"""

from __future__ import annotations

import re

import structlog

from auth.principal import Principal
from auth.tickets import TicketError, TicketOffice, TicketProblem
from proxy.fog_terminal import serve_fog_terminal
from proxy.upgrade import DataPlane, WebSocketRequest
from relay.grant import Grant
from relay.websocket import WebSocketCarrier
from runtimes.agent import Agent
from runtimes.base import UnknownSession
from sessions.database import StoreError
from sessions.manager import Manager, NotOwner, SessionNotFound
from sessions.state import State

SUBPROTOCOL = "trunk.1"
TICKET_PREFIX = "trunk.ticket."

_PATH = re.compile(r"/v1/sessions/([^/]+)/pty")

logger = structlog.get_logger(__name__)


class _Rejected(Exception):
    """The request is answered with this status and text instead of a WebSocket."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class TerminalRoutes:
    """The data plane's routes; see `proxy.upgrade.Routes`."""

    def __init__(self, manager: Manager, tickets: TicketOffice, agent: Agent) -> None:
        self._manager = manager
        self._tickets = tickets
        self._agent = agent

    def match(self, path: str) -> DataPlane | None:
        """Return what serves upgrade requests to `path`."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        session_id = match[1]

        async def serve(request: WebSocketRequest) -> None:
            await self._serve(request, session_id)

        return serve

    async def _serve(self, request: WebSocketRequest, session_id: str) -> None:
        try:
            speaks_trunk = _speaks_trunk(request)
            grant = await self._redeem(_ticket(request), session_id)
        except _Rejected as rejected:
            logger.info(
                "attach refused",
                session=session_id,
                client=request.client,
                status=rejected.status,
                reason=rejected.message,
            )
            await request.reject(rejected.status, rejected.message)
            return
        logger.info("attach", session=session_id, subject=grant.subject, client=request.client)
        websocket = await request.accept(SUBPROTOCOL if speaks_trunk else None)
        try:
            if speaks_trunk:
                await self._agent.serve_link(WebSocketCarrier(websocket), grant)
            else:
                await serve_fog_terminal(websocket, self._agent, grant)
        except UnknownSession:
            await websocket.close(1000, "session_ended")

    async def _redeem(self, ticket: str, session_id: str) -> Grant:
        """Turn a ticket into a grant, or say why not; statuses as in cloudshell-fog."""
        try:
            subject = self._tickets.inspect(ticket).subject
            record = self._manager.find(session_id)
            if record is None:
                record = await self._manager.get(Principal(subject), session_id)
            if record.state is not State.RUNNING:
                # An old ticket of another session learns nothing here.
                self._tickets.redeem(ticket, session_id=session_id, epoch=record.epoch)
                raise _Rejected(409, f"the session is {record.state}, not running")
            return self._tickets.redeem(ticket, session_id=session_id, epoch=record.epoch)
        except TicketError as error:
            wrong_session = error.problem is TicketProblem.WRONG_SESSION
            raise _Rejected(403 if wrong_session else 401, str(error)) from None
        except SessionNotFound:
            raise _Rejected(404, "there is no such session") from None
        except NotOwner:
            raise _Rejected(403, "the ticket was made for another session") from None
        except StoreError:
            logger.exception("session records cannot be read")
            raise _Rejected(500, "the session's record cannot be read") from None


def _speaks_trunk(request: WebSocketRequest) -> bool:
    offered = [p for p in request.subprotocols if not p.startswith(TICKET_PREFIX)]
    if SUBPROTOCOL in offered:
        return True
    if offered:
        raise _Rejected(400, f"no such subprotocol here; offer {SUBPROTOCOL} or none")
    return False


def _ticket(request: WebSocketRequest) -> str:
    tickets = [
        protocol.removeprefix(TICKET_PREFIX)
        for protocol in request.subprotocols
        if protocol.startswith(TICKET_PREFIX)
    ]
    tickets += request.query.get("token", ())
    if not tickets or not tickets[0]:
        raise _Rejected(
            401, "no ticket: ask for one with POST /v1/sessions/{id}/attach and send it as ?token="
        )
    if len(tickets) > 1:
        raise _Rejected(400, "more than one ticket")
    return tickets[0]
