"""Who is asking."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    `subject` names the caller and owns what the caller creates.  `groups` and `roles` are what
    the identity provider says about the caller; profiles may ask for a group.  `derived` tells
    that the caller showed something made from a login code; such authority ends on time, so it
    cannot make another login code.
    """

    subject: str
    groups: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    derived: bool = False
