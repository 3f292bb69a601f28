"""Attach tickets: short-lived, narrow authority over the streams of one session.

A ticket is a JWT, so any process that has the keys can check it.  How often a ticket with limited
uses was used is known to the process that issued it alone: such a ticket carries that process's
boot id and is refused by every other, a restarted one included.  The office holds one table entry
for each such ticket that is out, bounded by count (see `auth.ledger`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from auth.clock import Clock, Entropy, system_clock
from auth.keys import Keyring
from auth.ledger import Ledger, LedgerStatistics
from auth.signer import Signer, TokenError, TokenExpired
from relay.endpoint import Kind
from relay.grant import Grant, Mode
from relay.socket_rules import SocketRules

AUDIENCE = "cloudshell-pty"
"""The audience of the seed API's tokens."""

MAX_TTL_SECONDS = 24 * 3600
MAX_USES = 1_000_000

_TOKEN_TYPE = "trunk-ticket+jwt"  # noqa: S105 - the name of a type, no secret
_DEFAULT_CAPACITY = 16_384


class TicketProblem(StrEnum):
    """Why a ticket was refused."""

    INVALID = "invalid"
    """It is none of ours, or was altered."""
    EXPIRED = "expired"
    """Its time is over."""
    USED = "used"
    """It was used as often as it allows, or nobody can know any more how often it was."""
    REVOKED = "revoked"
    """The session's tickets were revoked after it was issued."""
    WRONG_SESSION = "wrong_session"
    """It was made for another session."""


class TicketError(Exception):
    """The ticket is refused because of `problem`; the message is safe to show."""

    def __init__(self, problem: TicketProblem, message: str) -> None:
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class IssuedTicket:
    """A ticket and when it expires (aware, UTC).  The token never shows up in a `repr`."""

    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TicketStatistics:
    """How many tickets were issued, redeemed and refused; `outstanding` counts limited ones."""

    issued: int
    redeemed: int
    refused: dict[TicketProblem, int]
    outstanding: LedgerStatistics


@dataclass(frozen=True, slots=True)
class _Ticket:
    ticket_id: str
    grant: Grant
    limited: bool
    boot: str


class TicketOffice:
    """Issues, checks and redeems tickets.

    `capacity` bounds how many tickets with limited uses can be out at a time; beyond it, the
    oldest of the subject who has the most is given up and refused as used.

    No method waits, so each is atomic: of several tasks that redeem a one-use ticket, one wins.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        clock: Clock = system_clock,
        entropy: Entropy = secrets.token_bytes,
        capacity: int = _DEFAULT_CAPACITY,
    ) -> None:
        self._signer = Signer(keyring, audience=AUDIENCE, token_type=_TOKEN_TYPE, clock=clock)
        self._clock = clock
        self._entropy = entropy
        self._boot = entropy(8).hex()
        self._outstanding: Ledger[Grant] = Ledger(capacity)
        self._issued = 0
        self._redeemed = 0
        self._refused = dict.fromkeys(TicketProblem, 0)

    def issue(self, grant: Grant, *, ttl_seconds: int, uses: int | None) -> IssuedTicket:
        """Make a ticket for `grant` that lives `ttl_seconds` and can be redeemed `uses` times.

        `uses` None means as often as one likes until it expires.

        Raises:
          ValueError: `ttl_seconds` is not in 1..`MAX_TTL_SECONDS`, `uses` is not in
            1..`MAX_USES`, the grant covers no kind, or its fields are too long for a ticket.
        """
        if not 1 <= ttl_seconds <= MAX_TTL_SECONDS:
            raise ValueError(f"ttl_seconds: must be in 1..{MAX_TTL_SECONDS}")
        if uses is not None and not 1 <= uses <= MAX_USES:
            raise ValueError(f"uses: must be in 1..{MAX_USES}")
        if not grant.kinds:
            raise ValueError("kinds: a ticket covers at least one kind of stream")
        ticket_id = self._entropy(16).hex()
        claims = {
            "session_id": grant.session_id,
            "kinds": sorted(grant.kinds),
            "mode": grant.mode,
            "tag": grant.tag,
            "epoch": grant.epoch,
            "ports": None if grant.ports is None else grant.ports.items(),
            "uses": uses,
            "boot": self._boot,
        }
        token, expires_at = self._signer.sign(
            claims, subject=grant.subject, token_id=ticket_id, ttl_seconds=ttl_seconds
        )
        if uses is not None:
            self._outstanding.add(
                ticket_id,
                grant,
                holder=grant.subject,
                uses=uses,
                expires_at=expires_at.timestamp(),
                now=self._clock().timestamp(),
            )
        self._issued += 1
        return IssuedTicket(token, expires_at)

    def inspect(self, token: str) -> Grant:
        """Return what the ticket grants; counts no use, and knows nothing of any session.

        Raises:
          TicketError: INVALID or EXPIRED.
        """
        return self._open(token).grant

    def redeem(self, token: str, *, session_id: str, epoch: int) -> Grant:
        """Use the ticket for the session `session_id`, whose revocation epoch is `epoch` now.

        A refused ticket loses no use.

        Raises:
          TicketError: for any `TicketProblem`; checked in the order INVALID, EXPIRED,
            WRONG_SESSION, REVOKED, USED.
        """
        try:
            ticket = self._open(token)
            self._check(ticket, session_id, epoch)
        except TicketError as exc:
            self._refused[exc.problem] += 1
            raise
        self._redeemed += 1
        return ticket.grant

    def statistics(self) -> TicketStatistics:
        """Return a snapshot of the counters."""
        return TicketStatistics(
            issued=self._issued,
            redeemed=self._redeemed,
            refused=dict(self._refused),
            outstanding=self._outstanding.statistics(),
        )

    def _open(self, token: str) -> _Ticket:
        try:
            return _parse(self._signer.verify(token))
        except TokenExpired:
            raise TicketError(
                TicketProblem.EXPIRED, "the ticket has expired; ask for a new one"
            ) from None
        except (TokenError, ValueError):
            # Not chained: the cause may quote the ticket.
            raise TicketError(TicketProblem.INVALID, "the ticket is not valid") from None

    def _check(self, ticket: _Ticket, session_id: str, epoch: int) -> None:
        grant = ticket.grant
        if grant.session_id != session_id:
            raise TicketError(
                TicketProblem.WRONG_SESSION, "the ticket was made for another session"
            )
        if grant.epoch < epoch:
            raise TicketError(TicketProblem.REVOKED, "the ticket was revoked; ask for a new one")
        if grant.epoch > epoch:
            # Epochs only grow: this one cannot have been issued for the session as it is.
            raise TicketError(TicketProblem.INVALID, "the ticket is not valid")
        if not ticket.limited:
            return
        if ticket.boot != self._boot:
            raise TicketError(
                TicketProblem.USED,
                "the ticket was issued before the server restarted; ask for a new one",
            )
        if self._outstanding.use(ticket.ticket_id, now=self._clock().timestamp()) is None:
            raise TicketError(TicketProblem.USED, "the ticket was used up; ask for a new one")


def _parse(claims: dict[str, Any]) -> _Ticket:
    """Turn claims into a ticket; ValueError where a version other than ours wrote them."""

    def take(name: str, *types: type) -> Any:
        value = claims.get(name)
        if type(value) not in types:
            raise ValueError(f"claim {name}")
        return value

    none = type(None)
    kinds = frozenset(Kind(kind) for kind in take("kinds", list))
    uses = take("uses", int, none)
    ports = take("ports", list, none)
    return _Ticket(
        ticket_id=take("jti", str),
        grant=Grant(
            session_id=take("session_id", str),
            subject=take("sub", str),
            kinds=kinds,
            mode=Mode(take("mode", str)),
            tag=take("tag", str, none),
            epoch=take("epoch", int),
            ports=None if ports is None else SocketRules.parse(ports),
        ),
        limited=uses is not None,
        boot=take("boot", str),
    )
