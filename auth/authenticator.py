"""Who a bearer credential belongs to.

Three kinds are known: the credential made at the first start (see `auth.credential_file`),
console tokens, which the web page gets for a login code, and, with ``--dev``, anything at all.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from auth.clock import Clock, Entropy, system_clock
from auth.keys import Keyring
from auth.ledger import Ledger, LedgerStatistics
from auth.principal import Principal
from auth.signer import Signer, TokenError, TokenExpired

OWNER = Principal("owner")
"""Whoever has the credential made at the first start."""

CONSOLE_AUDIENCE = "trunkline-console"
CONSOLE_TOKEN_SECONDS = 12 * 3600
LOGIN_CODE_SECONDS = 15 * 60
MAX_BEARER_CHARACTERS = 4096

_CONSOLE_TOKEN_TYPE = "trunk-console+jwt"  # noqa: S105 - the name of a type, no secret
_LOGIN_CODE_BYTES = 32
_MAX_LOGIN_CODES = 1024
_BEARER = re.compile(r"bearer +([\x21-\x7e]+) *", re.IGNORECASE)


class AuthenticationError(Exception):
    """The caller is not known; the message is safe to show and holds nothing that was sent."""


@dataclass(frozen=True, slots=True)
class ConsoleToken:
    """A bearer token for the web page and when it expires (aware, UTC)."""

    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AuthenticatorStatistics:
    """How often a caller was known and was not; `login_codes` are those that are out."""

    accepted: int
    rejected: int
    login_codes: LedgerStatistics


class Authenticator:
    """Tells principals by their bearer credentials.

    `credential` is the one made at the first start.  `dev` accepts every bearer that is not empty,
    each as a principal of its own; it must never face a network.
    """

    def __init__(
        self,
        credential: str,
        keyring: Keyring,
        *,
        dev: bool = False,
        clock: Clock = system_clock,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        if not credential:
            raise ValueError("an empty credential would let everybody in")
        # Digests have one length, so that comparing them tells nothing about the credential's.
        self._credential_digest = _digest(credential)
        self._dev = dev
        self._clock = clock
        self._entropy = entropy
        self._console = Signer(
            keyring, audience=CONSOLE_AUDIENCE, token_type=_CONSOLE_TOKEN_TYPE, clock=clock
        )
        self._login_codes: Ledger[Principal] = Ledger(_MAX_LOGIN_CODES)
        self._accepted = 0
        self._rejected = 0

    def authenticate(self, authorization: str | None) -> Principal:
        """Return who sent the ``Authorization`` header of this value.

        Raises:
          AuthenticationError: it is missing, malformed, unknown or expired.
        """
        try:
            principal = self._authenticate(authorization)
        except AuthenticationError:
            self._rejected += 1
            raise
        self._accepted += 1
        return principal

    def issue_login_code(self, principal: Principal) -> str:
        """Return a code that lets a browser in as `principal`, once, within 15 minutes.

        It belongs into the fragment of a URL, which browsers send to nobody.
        """
        code = self._entropy(_LOGIN_CODE_BYTES).hex()
        now = self._clock().timestamp()
        self._login_codes.add(
            _digest(code).hex(),
            principal,
            holder=principal.subject,
            uses=1,
            expires_at=now + LOGIN_CODE_SECONDS,
            now=now,
        )
        return code

    def exchange_login_code(self, code: str) -> ConsoleToken:
        """Turn a login code into a bearer token for the console that lives 12 hours.

        Raises:
          AuthenticationError: the code is unknown, was used or has expired.
        """
        # Found by its digest: how long the search takes tells nothing about the codes that are out.
        key = _digest(code).hex()
        principal = self._login_codes.use(key, now=self._clock().timestamp())
        if principal is None:
            self._rejected += 1
            raise AuthenticationError(
                "this login link was used, has expired or is from another server: "
                "get a new one where the server runs"
            )
        token, expires_at = self._console.sign(
            {"groups": sorted(principal.groups), "roles": sorted(principal.roles)},
            subject=principal.subject,
            token_id=self._entropy(16).hex(),
            ttl_seconds=CONSOLE_TOKEN_SECONDS,
        )
        return ConsoleToken(token, expires_at)

    def statistics(self) -> AuthenticatorStatistics:
        """Return a snapshot of the counters."""
        return AuthenticatorStatistics(
            accepted=self._accepted,
            rejected=self._rejected,
            login_codes=self._login_codes.statistics(),
        )

    def _authenticate(self, authorization: str | None) -> Principal:
        if authorization is None:
            raise AuthenticationError(
                "no credential: send the header 'Authorization: Bearer <credential>'"
            )
        match = None
        if len(authorization) <= MAX_BEARER_CHARACTERS + len("Bearer "):
            match = _BEARER.fullmatch(authorization)
        if match is None:
            raise AuthenticationError(
                "malformed credential: the header is 'Authorization: Bearer <credential>', of at "
                f"most {MAX_BEARER_CHARACTERS} visible ASCII characters"
            )
        bearer = match[1]
        if hmac.compare_digest(_digest(bearer), self._credential_digest):
            return OWNER
        try:
            return _console_principal(self._console.verify(bearer))
        except TokenExpired:
            raise AuthenticationError("the console token has expired: sign in again") from None
        except TokenError:
            # Not a console token: it may still do for --dev.
            pass
        if self._dev:
            return Principal("dev-" + _digest(bearer).hex()[:12])
        raise AuthenticationError("unknown credential")


def _console_principal(claims: dict[str, Any]) -> Principal:
    return Principal(
        claims["sub"],
        frozenset(map(str, claims.get("groups", ()))),
        frozenset(map(str, claims.get("roles", ()))),
        derived=True,
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
