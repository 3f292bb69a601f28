"""What all connections of a front share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import trio

from proxy.asgi import ASGIApp
from proxy.config import FrontConfig
from proxy.hosts import HostPolicy
from proxy.upgrade import Routes


@dataclass(frozen=True, slots=True)
class Site:
    """The app, the WebSocket routes, the names it answers to and the limits."""

    app: ASGIApp
    routes: Routes
    hosts: HostPolicy
    config: FrontConfig
    state: dict[str, Any] = field(default_factory=dict)
    """What the app's lifespan left for its requests."""
    draining: trio.Event = field(default_factory=trio.Event)
    """Set once the server is going away."""
