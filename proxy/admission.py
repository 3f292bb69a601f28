"""Who gets a WebSocket to a session: tickets into grants.

The authority is a ticket, never a cookie or a bearer: in the query (``?token=``, the seed's way) or
as a subprotocol ``trunk.ticket.<ticket>``, which no server logs.
"""

from __future__ import annotations

import structlog

from auth.principal import Principal
from auth.tickets import TicketError, TicketOffice, TicketProblem
from proxy.upgrade import WebSocketRequest
from relay.grant import Grant
from sessions.database import StoreError
from sessions.manager import Manager, NotOwner, SessionNotFound
from sessions.record import SessionRecord
from sessions.state import State

TICKET_PREFIX = "trunk.ticket."

logger = structlog.get_logger(__name__)


class Rejected(Exception):
    """The request is answered with this status and text instead of a WebSocket."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Admission:
    """Turns the ticket of a request into a grant."""

    def __init__(self, manager: Manager, tickets: TicketOffice) -> None:
        self._manager = manager
        self._tickets = tickets

    async def admit(
        self, request: WebSocketRequest, session_id: str
    ) -> tuple[Grant, SessionRecord]:
        """Redeem the ticket of a request for a session; return the grant, and the session.

        Raises:
          Rejected: no; statuses as in cloudshell-fog.
        """
        ticket = _ticket(request)
        try:
            record = self._manager.find(session_id)
            if record is not None and record.state is State.RUNNING:
                grant = self._tickets.redeem(ticket, session_id=session_id, epoch=record.epoch)
                return grant, record
            # An invalid ticket learns nothing about sessions.
            subject = self._tickets.inspect(ticket).subject
            if record is None:
                record = await self._manager.get(Principal(subject), session_id)
            if record.state is not State.RUNNING:
                # An old ticket of another session learns nothing here.
                self._tickets.redeem(ticket, session_id=session_id, epoch=record.epoch)
                advice = "; start it" if record.state is State.STOPPED else ""
                raise Rejected(409, f"the session is {record.state}, not running{advice}")
            grant = self._tickets.redeem(ticket, session_id=session_id, epoch=record.epoch)
        except TicketError as error:
            wrong_session = error.problem is TicketProblem.WRONG_SESSION
            raise Rejected(403 if wrong_session else 401, str(error)) from None
        except SessionNotFound:
            raise Rejected(404, "there is no such session") from None
        except NotOwner:
            raise Rejected(403, "the ticket was made for another session") from None
        except StoreError:
            logger.exception("session records cannot be read")
            raise Rejected(500, "the session's record cannot be read") from None
        return grant, record


async def reject(request: WebSocketRequest, session_id: str, rejected: Rejected) -> None:
    """Answer a request with what was wrong with it."""
    logger.info(
        "attach refused",
        session=session_id,
        client=request.client,
        status=rejected.status,
        reason=rejected.message,
    )
    await request.reject(rejected.status, rejected.message)


def choose_subprotocol(request: WebSocketRequest, known: str) -> str | None:
    """Return `known` if the client offers it; None if it offers nothing but a ticket.

    Raises:
      Rejected: it offers others only (400).
    """
    offered = [p for p in request.subprotocols if not p.startswith(TICKET_PREFIX)]
    if known in offered:
        return known
    if offered:
        raise Rejected(400, f"no such subprotocol here; offer {known} or none")
    return None


def _ticket(request: WebSocketRequest) -> str:
    tickets = [
        protocol.removeprefix(TICKET_PREFIX)
        for protocol in request.subprotocols
        if protocol.startswith(TICKET_PREFIX)
    ]
    tickets += request.query.get("token", ())
    if not tickets or not tickets[0]:
        raise Rejected(
            401, "no ticket: ask for one with POST /v1/sessions/{id}/attach and send it as ?token="
        )
    if len(tickets) > 1:
        raise Rejected(400, "more than one ticket")
    return tickets[0]
