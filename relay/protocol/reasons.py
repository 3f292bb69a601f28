"""Why something ended or was refused (docs/spec/close-reasons.md).  Also the metric labels."""

from __future__ import annotations

from enum import StrEnum


class CloseReason(StrEnum):
    """Why an attachment or a link was closed."""

    EXITED = "exited"
    """The process ended and everything it wrote was delivered."""
    DETACHED = "detached"
    """This attachment was given up by its client."""
    SUPERSEDED = "superseded"
    """The same attachment was resumed over a newer link."""
    TAKEN_OVER = "taken_over"
    """Another client took control of the stream."""
    EXPIRED = "expired"
    """The session reached the end of its time to live."""
    REVOKED = "revoked"
    """The authority behind the attachment was withdrawn."""
    SESSION_ENDED = "session_ended"
    """The session was terminated."""
    AGENT_LOST = "agent_lost"
    """The agent that owns the stream cannot be reached."""
    DRAINING = "draining"
    """The server is going away; reconnect, here or elsewhere."""
    PROTOCOL_ERROR = "protocol_error"
    """The peer broke a rule of the protocol."""
    SLOW_READER = "slow_reader"
    """The peer does not read what it asked for."""
    TOO_FAR_BEHIND = "too_far_behind"
    """The attachment asked to be dropped rather than to miss bytes, and bytes were missed."""
    CONNECTION_LOST = "connection_lost"
    """The carrier broke or fell silent; never sent, only recorded."""
    INTERNAL_ERROR = "internal_error"
    """A bug or a failed resource on the side that closes."""


class Refusal(StrEnum):
    """Why an ATTACH was refused."""

    BAD_REQUEST = "bad_request"
    """The request contradicts itself or a limit; sending it again cannot help."""
    FORBIDDEN = "forbidden"
    """The ticket of this link does not cover what was asked for, or it is somebody else's."""
    NOT_FOUND = "not_found"
    """There is no stream with this tag, and the request does not start one."""
    CONFLICT = "conflict"
    """The tag names a stream of another kind, with another command, or to another port."""
    BUSY = "busy"
    """Another client controls the stream; view it, or take it over."""
    GONE = "gone"
    """What was to be resumed no longer exists, or the request came too late; attach afresh."""
    LIMIT = "limit"
    """A limit of the server is reached; try again later."""
    START_FAILED = "start_failed"
    """The process could not be started."""
    UNSUPPORTED = "unsupported"
    """This runtime has no such kind of stream."""
    ENDING = "ending"
    """The session is ending or has ended."""
