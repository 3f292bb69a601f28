"""Many sockets served by one Trio task: the fast path of plain WebSockets to ports."""

from relay.reactor.bridge import Bridge, BridgeEnd, BridgeStatistics
from relay.reactor.reactor import Reactor, ReactorStatistics, open_reactor

__all__ = [
    "Bridge",
    "BridgeEnd",
    "BridgeStatistics",
    "Reactor",
    "ReactorStatistics",
    "open_reactor",
]
