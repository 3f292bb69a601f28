"""``GET /v1/sessions/{id}/pty``: the WebSocket to the streams of one session.

With the subprotocol ``trunk.1`` it is a trunk/1 link, handed to the agent as it is.  With none asked
for it speaks the JSON frames of cloudshell-fog (`proxy.fog_terminal`).
"""

from __future__ import annotations

import re

import structlog

from proxy.admission import Admission, Rejected, choose_subprotocol, reject
from proxy.fog_terminal import serve_fog_terminal
from proxy.upgrade import DataPlane, WebSocketRequest
from relay.websocket import WebSocketCarrier
from runtimes.agent import Agent
from runtimes.base import UnknownSession

SUBPROTOCOL = "trunk.1"

_PATH = re.compile(r"/v1/sessions/([^/]+)/pty")

logger = structlog.get_logger(__name__)


class TerminalRoutes:
    """See `proxy.upgrade.Routes`."""

    def __init__(self, admission: Admission, agent: Agent) -> None:
        self._admission = admission
        self._agent = agent

    def match(self, path: str) -> DataPlane | None:
        """Return what serves upgrade requests to `path`."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        session_id = match[1]

        async def serve(request: WebSocketRequest) -> None:
            await self._serve(request, session_id)

        return serve

    async def _serve(self, request: WebSocketRequest, session_id: str) -> None:
        try:
            subprotocol = choose_subprotocol(request, SUBPROTOCOL)
            grant, _ = await self._admission.admit(request, session_id)
        except Rejected as rejected:
            await reject(request, session_id, rejected)
            return
        logger.info("attach", session=session_id, subject=grant.subject, client=request.client)
        websocket = await request.accept(subprotocol)
        try:
            if subprotocol is not None:
                await self._agent.serve_link(WebSocketCarrier(websocket), grant)
            else:
                await serve_fog_terminal(websocket, self._agent, grant, request.draining)
        except UnknownSession:
            await websocket.close(1000, "session_ended")
