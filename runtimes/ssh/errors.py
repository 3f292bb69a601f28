"""What can go wrong between us and an SSH server.  The messages are shown to users."""

from __future__ import annotations

from runtimes.exec_inside.process import ExecError


class SshError(ExecError):
    """Something was refused, or failed; the message says what."""


class Unreachable(SshError):
    """There is no connection to the server: it cannot be had, or it was lost."""


class ChannelRefused(SshError):
    """The server refused to open a channel.

    `is_full` says that it may have opened as many on this connection as it allows on one.
    """

    def __init__(self, message: str, *, is_full: bool) -> None:
        super().__init__(message)
        self.is_full = is_full
