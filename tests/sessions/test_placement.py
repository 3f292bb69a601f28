from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions.placement import (
    EMBEDDED_NODE,
    MINIMUM_CAPACITY,
    TIER_REASONS,
    Node,
    NoNodeAvailable,
    Placement,
    Reason,
    Tier,
    place,
)

FOG = ("fog-preferred", "healthy", "capacity-ok")
CLOUD = ("fog-unavailable", "cloud-fallback")


def test_the_embedded_node() -> None:
    assert place([EMBEDDED_NODE]) == Placement("local", "local", "fog", FOG)


@pytest.mark.parametrize("hint", ["", None, "local"])
def test_a_hint_that_is_honoured_or_empty_adds_no_reason(hint: str | None) -> None:
    assert place([EMBEDDED_NODE], hint).reasons == FOG


def test_a_hint_that_matches_nothing_is_said() -> None:
    assert place([EMBEDDED_NODE], "eu-west-1") == Placement(
        "local", "local", "fog", (*FOG, "hint-not-matched")
    )


def test_a_hint_narrows_by_region_and_by_node_id() -> None:
    near = Node("a", "eu", latency_ms=1)
    far = Node("b", "us", latency_ms=50)
    assert place([near, far]).node_id == "a"
    assert place([near, far], "us") == Placement("us", "b", "fog", FOG)
    assert place([near, far], "b").node_id == "b"


def test_fog_is_preferred_even_when_the_hint_names_a_cloud() -> None:
    fog = Node("f", "eu", latency_ms=90)
    cloud = Node("c", "us", Tier.CLOUD, latency_ms=1)
    assert place([cloud, fog], "us") == Placement("eu", "f", "fog", (*FOG, "hint-not-matched"))


def test_the_cloud_is_the_fallback() -> None:
    sick = Node("f", "eu", healthy=False)
    clouds = [Node("c1", "us", Tier.CLOUD, latency_ms=1), Node("c2", "eu", Tier.CLOUD)]
    assert place([sick, *clouds]) == Placement("eu", "c2", "cloud", CLOUD)
    assert place([sick, *clouds], "us") == Placement("us", "c1", "cloud", CLOUD)
    assert place([sick, *clouds], "x").reasons == (*CLOUD, "hint-not-matched")


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([], Reason.NO_NODES_REGISTERED),
        ([Node("a", "eu", healthy=False)], Reason.NO_HEALTHY_NODE),
        ([Node("a", "eu", capacity_free=MINIMUM_CAPACITY)], Reason.NO_FREE_CAPACITY),
        (
            [Node("a", "eu", capacity_free=0), Node("b", "eu", healthy=False)],
            Reason.NO_FREE_CAPACITY,
        ),
    ],
)
def test_no_candidate(nodes: list[Node], reason: Reason) -> None:
    with pytest.raises(NoNodeAvailable, match=reason) as caught:
        place(nodes)
    assert caught.value.reason is reason


def test_ties_are_broken_by_latency_then_capacity_then_node_id() -> None:
    nodes = [
        Node("d", "eu", latency_ms=2, capacity_free=1.0),
        Node("c", "eu", latency_ms=1, capacity_free=0.5),
        Node("b", "eu", latency_ms=1, capacity_free=0.9),
        Node("a", "eu", latency_ms=1, capacity_free=0.9),
    ]
    for order in itertools.permutations(nodes):
        assert place(order).node_id == "a"
    assert place(nodes[:3]).node_id == "b"
    assert place(nodes[:2]).node_id == "c"


def test_every_tier_has_its_reasons() -> None:
    assert set(TIER_REASONS) == set(Tier)


nodes_strategy = st.lists(
    st.builds(
        Node,
        node_id=st.sampled_from("abcdef"),
        region=st.sampled_from(["eu", "us"]),
        tier=st.sampled_from(Tier),
        healthy=st.booleans(),
        capacity_free=st.sampled_from([0.0, 0.1, 0.2, 1.0]),
        latency_ms=st.sampled_from([0.0, 1.0, 5.0]),
    ),
    unique_by=lambda node: node.node_id,
)


@settings(deadline=None)
@given(nodes_strategy, st.sampled_from([None, "eu", "us", "a", "zz"]))
def test_the_choice_is_a_candidate_of_the_best_tier_whatever_the_order(
    nodes: list[Node], hint: str | None
) -> None:
    candidates = [node for node in nodes if node.healthy and node.capacity_free > 0.1]
    if not candidates:
        with pytest.raises(NoNodeAvailable):
            place(nodes, hint)
        return
    chosen = place(nodes, hint)
    node = next(node for node in candidates if node.node_id == chosen.node_id)
    assert (chosen.region, chosen.tier) == (node.region, node.tier)
    if any(candidate.tier is Tier.FOG for candidate in candidates):
        assert node.tier is Tier.FOG
    could_match = any(
        hint in (candidate.region, candidate.node_id)
        for candidate in candidates
        if candidate.tier is node.tier
    )
    assert (hint in (node.region, node.node_id)) == could_match
    assert ("hint-not-matched" in chosen.reasons) == (hint is not None and not could_match)
    assert place(list(reversed(nodes)), hint) == chosen
