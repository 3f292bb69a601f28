from __future__ import annotations

import itertools

import pytest

from auth.policy import (
    CREATION_RULES,
    Creation,
    Limits,
    decide_access,
    decide_creation,
    effective_ttl,
)
from auth.principal import Principal

ANN = Principal("ann", frozenset({"staff", "ops"}))
LIMITS = Limits("small", max_ttl_seconds=100, default_ttl_seconds=50, max_sessions=2)
FOR_STAFF = Limits("small", 100, 50, 2, frozenset({"staff", "root"}))
FOR_ROOT = Limits("small", 100, 50, 2, frozenset({"root"}))


@pytest.mark.parametrize(
    ("limits", "ttl", "live"),
    list(itertools.product([LIMITS, FOR_STAFF, FOR_ROOT], [1, 100, 101], [0, 1, 2, 3])),
)
def test_every_combination_of_the_rules(limits: Limits, ttl: int, live: int) -> None:
    decision = decide_creation(Creation(ANN, limits, ttl, live))
    if limits is FOR_ROOT:
        assert decision.reason == "your groups may not use profile 'small'"
    elif ttl > 100:
        assert decision.reason == (
            "ttl_seconds 101 is more than the 100 that profile 'small' allows"
        )
    elif live >= 2:
        assert decision.reason == (
            f"you have {live} of at most 2 sessions under profile 'small'; end one first"
        )
    else:
        assert decision.allowed
        return
    assert not decision.allowed


def test_who_has_no_group_is_let_in_only_where_all_are() -> None:
    bob = Principal("bob")
    assert decide_creation(Creation(bob, LIMITS, 1, 0)).allowed
    assert not decide_creation(Creation(bob, FOR_STAFF, 1, 0)).allowed


def test_every_rule_has_a_name_of_its_own() -> None:
    assert [rule.name for rule in CREATION_RULES] == [
        "group-not-allowed",
        "ttl-too-long",
        "quota-exceeded",
    ]


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (100, 100), (10**9, 10**9)])
def test_effective_ttl(asked: int, given: int) -> None:
    assert effective_ttl(LIMITS, asked) == given


def test_a_negative_ttl_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative; 0 means the default"):
        effective_ttl(LIMITS, -1)


@pytest.mark.parametrize("roles", [frozenset[str](), frozenset({"admin"})])
def test_only_the_owner_has_access(roles: frozenset[str]) -> None:
    assert decide_access(Principal("ann", roles=roles), "ann").allowed
    other = decide_access(Principal("ann", roles=roles), "bob")
    assert not other.allowed
    assert other.reason == "it belongs to somebody else"
