"""Compact signed tokens (JWT, RFC 7519) of one audience and one type.

What is checked, and in which order: size, shape, key id, type, signature under the algorithm that
the *key* fixes, issuer, audience, presence of the required claims, expiry without leeway.  A
token has exactly one spelling: base64url that decodes to the same bytes but is written
differently (padding, stray low bits) is refused, so an altered token is never accepted.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jwt

from auth.clock import Clock, system_clock
from auth.keys import Keyring

ISSUER = "trunkline"
MAX_TOKEN_CHARACTERS = 4096
"""Longer tokens are refused before anything of them is parsed."""

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)")
_REGISTERED = ("iss", "aud", "iat", "exp", "jti", "sub")


class TokenError(Exception):
    """The token is not one of ours; the message is safe to show and holds nothing of it."""


class TokenExpired(TokenError):
    """The token was ours, and its time is over."""


class Signer:
    """Makes and checks the tokens of one audience.

    `token_type` goes into the ``typ`` header (RFC 8725 §3.11), so that a token made for one
    purpose is never taken for another's, even under the same key.
    """

    def __init__(
        self, keyring: Keyring, *, audience: str, token_type: str, clock: Clock = system_clock
    ) -> None:
        self._keyring = keyring
        self._audience = audience
        self._type = token_type
        self._clock = clock

    def sign(
        self, claims: Mapping[str, Any], *, subject: str, token_id: str, ttl_seconds: int
    ) -> tuple[str, datetime]:
        """Return a token and the moment it expires: in `ttl_seconds`, up to the next full second.

        Raises:
          ValueError: the token would be longer than `MAX_TOKEN_CHARACTERS`.
        """
        now = self._clock().timestamp()
        expires = math.ceil(now) + ttl_seconds
        key = self._keyring.signing_key
        payload = {
            **claims,
            "iss": ISSUER,
            "aud": self._audience,
            "sub": subject,
            "jti": token_id,
            "iat": math.floor(now),
            "exp": expires,
        }
        token = jwt.encode(
            payload, key.secret, key.algorithm, headers={"kid": key.kid, "typ": self._type}
        )
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise ValueError(f"the token would be longer than {MAX_TOKEN_CHARACTERS} characters")
        return token, datetime.fromtimestamp(expires, UTC)

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of `token`.

        Raises:
          TokenExpired: it is one of ours, and its time is over.
          TokenError: it is none of ours.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise TokenError("the token is too long")
        match = _COMPACT.fullmatch(token)
        if match is None or not _canonical(match[1]):
            raise TokenError("the token is malformed")
        try:
            header = jwt.get_unverified_header(token)
            key = self._keyring.verification_key(str(header.get("kid")))
            if key is None:
                raise TokenError("the token was signed with a key this server does not have")
            if header.get("typ") != self._type:
                raise TokenError("the token was made for another purpose")
            claims = jwt.decode(
                token,
                key.secret,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=ISSUER,
                # The times are checked below, against our clock.
                options={
                    "require": list(_REGISTERED),
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.PyJWTError:
            # Not chained: the cause may quote the token.
            raise TokenError("the token is not valid here") from None
        expires = claims["exp"]
        if type(expires) is not int:
            raise TokenError("the token is malformed")
        if self._clock().timestamp() >= expires:
            raise TokenExpired("the token has expired")
        return claims


def _canonical(segment: str) -> bool:
    try:
        decoded = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        return False
    return base64.urlsafe_b64encode(decoded).rstrip(b"=").decode("ascii") == segment
