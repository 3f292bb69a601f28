"""What the client of a link may do: the authority a ticket was turned into."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from relay.endpoint import Kind, SocketTarget
from relay.socket_rules import SocketRules


class Mode(StrEnum):
    """What an attachment may do."""

    CONTROL = "control"
    """Read, write, resize, signal."""
    VIEW = "view"
    """Read."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Authority over the streams of one session.

    `subject` is who was granted it.  `kinds` are the kinds of stream it covers.  `mode` VIEW
    forbids control and starting; but of a `vnc` stream,
    which is a connection of its viewer alone, it covers all, with its input reduced to what looking
    takes.  `tag`, where given, narrows it to that stream; `ports`, where
    given, narrows streams of kind `tcp` and `vnc` to those ports and Unix sockets.  `epoch` is the
    session's revocation epoch at the time of the grant.
    """

    session_id: str
    subject: str
    kinds: frozenset[Kind]
    mode: Mode = Mode.CONTROL
    tag: str | None = None
    epoch: int = 0
    ports: SocketRules | None = None

    def allows(self, kind: Kind, mode: Mode, tag: str) -> bool:
        """Tell whether an attachment of this kind, mode and tag is covered."""
        return (
            kind in self.kinds
            and (mode is Mode.VIEW or self.mode is Mode.CONTROL or kind is Kind.VNC)
            and (self.tag is None or self.tag == tag)
        )

    def allows_socket(self, target: SocketTarget) -> bool:
        """Tell whether a connection to `target` is covered, as far as ports and paths go."""
        return self.ports is None or self.ports.allows(target)
