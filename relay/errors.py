"""What can go wrong with an attachment, as its user sees it.

RelayError
├── AttachRefused      the owner said no; `code` says why
├── AttachmentClosed   the attachment is over; `reason` says why
├── InputUncertain     the owner forgot the attachment while input was under way
└── DialFailed         no carrier could be had
"""

from __future__ import annotations

from relay.protocol.reasons import CloseReason, Refusal


class RelayError(Exception):
    """Base of the errors below."""


class AttachRefused(RelayError):
    """An ATTACH was refused; the message tells the user why and what to do."""

    def __init__(self, code: Refusal, message: str) -> None:
        super().__init__(message or code.value)
        self.code = code
        self.message = message


class AttachmentClosed(RelayError):
    """The attachment is over."""

    def __init__(self, reason: CloseReason, message: str = "") -> None:
        super().__init__(message or reason.value)
        self.reason = reason
        self.message = message


class InputUncertain(RelayError):
    """The owner does not know this attachment any more, and not all input was acknowledged.

    So nobody can tell how much of the unacknowledged input reached the process.
    """


class DialFailed(RelayError):
    """A carrier could not be opened.  `permanent`: trying again cannot help."""

    def __init__(self, message: str, *, permanent: bool, reason: CloseReason | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.reason = reason or CloseReason.CONNECTION_LOST
