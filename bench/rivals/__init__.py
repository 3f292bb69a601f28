"""What the bench compares: one module each, and the scripts of those that are libraries."""

from __future__ import annotations

from bench.rivals import (
    aiohttp,
    chisel,
    direct,
    haproxy,
    nginx,
    node_ws,
    openssh,
    picows,
    quart_trio,
    socket_stream,
    terminado,
    trio_websocket,
    trunkline,
    ttyd,
    websocat,
    websockify,
)
from bench.rivals.base import Subject

SUBJECTS: tuple[Subject, ...] = (
    direct.DIRECT,
    socket_stream.SOCKET_STREAM,
    socket_stream.CHAIN,
    trunkline.TRUNKLINE,
    trunkline.FORWARD,
    trunkline.SPIN,
    trunkline.BUBBLEWRAP,
    trunkline.TRUNK1,
    websockify.WEBSOCKIFY,
    websocat.WEBSOCAT,
    picows.PICOWS,
    aiohttp.AIOHTTP,
    node_ws.NODE_WS,
    trio_websocket.TRIO_WEBSOCKET,
    quart_trio.QUART_TRIO,
    nginx.NGINX,
    haproxy.HAPROXY,
    chisel.CHISEL,
    openssh.OPENSSH,
    ttyd.TTYD,
    terminado.TERMINADO,
)
"""Everything that can be measured, Trunkline and the references included."""


def by_name(name: str) -> Subject:
    """Return a subject.

    Raises:
      KeyError: there is none of this name.
    """
    return {subject.name: subject for subject in SUBJECTS}[name]
