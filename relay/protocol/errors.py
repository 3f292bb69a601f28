"""Errors of the protocol core, named by who caused them.

ProtocolError
├── LocalProtocolError    we were about to break a rule: a bug on this side
└── RemoteProtocolError   the peer broke a rule: the link closes with `reason`
"""

from __future__ import annotations

from relay.protocol.reasons import CloseReason


class ProtocolError(Exception):
    """Base of both culprits; never raised itself."""


class LocalProtocolError(ProtocolError):
    """The caller asked for something the protocol forbids in this state."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something the protocol forbids.

    `reason` is what the link is closed with.
    """

    def __init__(self, message: str, reason: CloseReason = CloseReason.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.reason = reason
