"""Errors of the SDK, as a tree.

    TrunklineError
    ├── ServerNotFound      nothing tells where the server is
    ├── ServerUnreachable   it is known, but does not answer
    └── ApiError            it answered with an error

What goes wrong with an attachment is in `relay.errors`: AttachRefused, AttachmentClosed and
InputUncertain.
"""

from __future__ import annotations


class TrunklineError(Exception):
    """Base of the errors below; the message is for the user."""


class ServerNotFound(TrunklineError):
    """Nothing tells where the server is, or the credential for it."""


class ServerUnreachable(TrunklineError):
    """The server does not answer."""


class ApiError(TrunklineError):
    """The server answered with an error (RFC 9457).

    `status` is the HTTP status, `field` the name of a wrong field of the request, and
    `request_id` what to look for in the server's log.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        field: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.field = field
        self.request_id = request_id
