"""Connections to ports of a sandbox: served by the listener, documented here."""

from __future__ import annotations

from typing import NoReturn

from quart import Blueprint

from api.openapi import problems, public
from api.problems import UPGRADE_REQUIRED, ApiError

blueprint = Blueprint("sockets", __name__, url_prefix="/v1/sessions/<session_id>")


@blueprint.get("/tcp/<port>")
@public
@problems(426)
async def tcp(session_id: str, port: str) -> NoReturn:
    """Connect to a port of the sandbox, as a WebSocket of plain binary messages.

    The ticket, of kind `tcp`, travels in `?token=` or as the subprotocol `trunk.ticket.<ticket>`.
    """
    # Upgrades are served by the listener and never come here.
    raise _upgrade_required("tcp")


@blueprint.get("/vnc")
@public
@problems(426)
async def vnc(session_id: str) -> NoReturn:
    """Connect to the desktop of the sandbox, as a WebSocket of plain binary messages.

    `?port=` or `?path=` (a Unix socket) says where it is served, else the profile does. The ticket,
    of kind `vnc`, travels in `?token=` or as the subprotocol `trunk.ticket.<ticket>`.
    """
    raise _upgrade_required("vnc")


def _upgrade_required(kind: str) -> ApiError:
    return ApiError(
        UPGRADE_REQUIRED,
        "Connect with a WebSocket client, passing a ticket in ?token=;"
        f' POST /v1/sessions/{{id}}/attach with {{"kinds": ["{kind}"]}} makes one.',
        headers={"Upgrade": "websocket"},
    )
