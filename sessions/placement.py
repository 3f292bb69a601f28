"""Where a session runs, and why.  Pure: the nodes come in as an argument.

The rules are those of cloudshell-fog.  A node is a candidate when it is healthy and has more than
`MINIMUM_CAPACITY` free.  Fog nodes come before cloud nodes.  Within a tier a hint (a region or a
node id) narrows the choice where at least one candidate matches; then the lowest latency wins,
then the most free capacity, then the smallest node id, so that equal nodes give one answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

MINIMUM_CAPACITY = 0.1
"""A candidate has more than this share of its capacity free."""


class Tier(StrEnum):
    """How near a node is."""

    FOG = "fog"
    CLOUD = "cloud"


class Reason(StrEnum):
    """What decided; told to the user as they are."""

    FOG_PREFERRED = "fog-preferred"
    HEALTHY = "healthy"
    CAPACITY_OK = "capacity-ok"
    FOG_UNAVAILABLE = "fog-unavailable"
    CLOUD_FALLBACK = "cloud-fallback"
    HINT_NOT_MATCHED = "hint-not-matched"
    NO_NODES_REGISTERED = "no-nodes-registered"
    NO_HEALTHY_NODE = "no-healthy-node"
    NO_FREE_CAPACITY = "no-free-capacity"


TIER_REASONS: Mapping[Tier, tuple[Reason, ...]] = MappingProxyType(
    {
        Tier.FOG: (Reason.FOG_PREFERRED, Reason.HEALTHY, Reason.CAPACITY_OK),
        Tier.CLOUD: (Reason.FOG_UNAVAILABLE, Reason.CLOUD_FALLBACK),
    }
)
"""What is said of a node of each tier."""


@dataclass(frozen=True, slots=True)
class Node:
    """A place where sessions can run.

    `capacity_free` is a share in 0..1.  `latency_ms` is in milliseconds.
    """

    node_id: str
    region: str
    tier: Tier = Tier.FOG
    healthy: bool = True
    capacity_free: float = 1.0
    latency_ms: float = 0.0


EMBEDDED_NODE = Node(node_id="local", region="local")
"""The node of a server that hosts its sessions itself."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a session runs; `reasons` says why, in the words of the API."""

    region: str
    node_id: str
    tier: str
    reasons: tuple[str, ...]


class NoNodeAvailable(Exception):
    """No node can take a session; `reason` says what is missing."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"no node can take a session: {reason}")
        self.reason = reason


def place(nodes: Iterable[Node], hint: str | None = None) -> Placement:
    """Choose a node.

    `hint` is a region or a node id; one that cannot be honoured is said in the reasons.  An empty
    hint is no hint.

    Raises:
      NoNodeAvailable: there is no candidate at all.
    """
    registered = tuple(nodes)
    if not registered:
        raise NoNodeAvailable(Reason.NO_NODES_REGISTERED)
    healthy = [node for node in registered if node.healthy]
    if not healthy:
        raise NoNodeAvailable(Reason.NO_HEALTHY_NODE)
    candidates = [node for node in healthy if node.capacity_free > MINIMUM_CAPACITY]
    if not candidates:
        raise NoNodeAvailable(Reason.NO_FREE_CAPACITY)

    tier = Tier.FOG if any(node.tier is Tier.FOG for node in candidates) else Tier.CLOUD
    of_tier = [node for node in candidates if node.tier is tier]
    matching = [node for node in of_tier if hint in (node.region, node.node_id)]
    best = min(matching or of_tier, key=_rank)
    reasons = [*TIER_REASONS[tier]]
    if hint and not matching:
        reasons.append(Reason.HINT_NOT_MATCHED)
    return Placement(best.region, best.node_id, str(best.tier), tuple(map(str, reasons)))


def _rank(node: Node) -> tuple[float, float, str]:
    return (node.latency_ms, -node.capacity_free, node.node_id)
