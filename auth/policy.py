"""What a principal may do.  Pure: limits and counts come in, a decision comes out.

The rules of a creation are one literal table, tried in order; the first that forbids decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from auth.principal import Principal


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a profile.

    `allowed_groups` None lets everybody in.  `max_sessions` counts the live sessions of one owner
    under this profile.  Times are in seconds.
    """

    profile: str
    max_ttl_seconds: int
    default_ttl_seconds: int
    max_sessions: int
    allowed_groups: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed; `reason` is shown to the caller."""

    allowed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Creation:
    """A wish for a new session.

    `ttl_seconds` is at least 1 (the default is already in); `live_sessions` is how many the
    principal has under this profile now, those that are starting or ending included.
    """

    principal: Principal
    limits: Limits
    ttl_seconds: int
    live_sessions: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason to say no: `forbids` decides and `explain` tells the caller."""

    name: str
    forbids: Callable[[Creation], bool]
    explain: Callable[[Creation], str]


CREATION_RULES: tuple[Rule, ...] = (
    Rule(
        "group-not-allowed",
        lambda c: (
            c.limits.allowed_groups is not None
            and c.limits.allowed_groups.isdisjoint(c.principal.groups)
        ),
        lambda c: f"your groups may not use profile {c.limits.profile!r}",
    ),
    Rule(
        "ttl-too-long",
        lambda c: c.ttl_seconds > c.limits.max_ttl_seconds,
        lambda c: (
            f"ttl_seconds {c.ttl_seconds} is more than the {c.limits.max_ttl_seconds} that "
            f"profile {c.limits.profile!r} allows"
        ),
    ),
    Rule(
        "quota-exceeded",
        lambda c: c.live_sessions >= c.limits.max_sessions,
        lambda c: (
            f"you have {c.live_sessions} of at most {c.limits.max_sessions} sessions under "
            f"profile {c.limits.profile!r}; end one first"
        ),
    ),
)
"""The rules of a creation, in the order in which they are tried."""

ALLOWED = Decision(allowed=True, reason="allowed")


def effective_ttl(limits: Limits, ttl_seconds: int) -> int:
    """Return how long the session is to live, in seconds: 0 means the profile's default.

    Raises:
      ValueError: `ttl_seconds` is negative.
    """
    if ttl_seconds < 0:
        raise ValueError("must not be negative; 0 means the default of the profile")
    return ttl_seconds or limits.default_ttl_seconds


def decide_creation(creation: Creation) -> Decision:
    """Decide whether a session may be made."""
    for rule in CREATION_RULES:
        if rule.forbids(creation):
            return Decision(allowed=False, reason=rule.explain(creation))
    return ALLOWED


def decide_access(principal: Principal, owner: str) -> Decision:
    """Decide whether `principal` may see, end or attach to what `owner` owns: the owner may."""
    if principal.subject == owner:
        return ALLOWED
    return Decision(allowed=False, reason="it belongs to somebody else")
