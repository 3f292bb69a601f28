"""Why a session could not be made, found or changed, named by who has to act.

SessionError
├── InvalidRequest     the request breaks a rule; `field` says which (also a ValueError)
├── UnknownProfile     there is no profile of that name
├── PolicyDenied       a limit of the profile says no; `reason` is shown to the caller
├── SessionFailed      the sandbox could not be made; `reason` is shown to the caller
│   └── NoCapacity     this server has no room now; trying later may help
├── NotRunning         the session does not run, so this cannot be done with it
├── CannotPause        the sandbox cannot be paused or resumed; `reason` is shown to the caller
├── CannotStop         stopping would lose its home; `reason` says what to set
├── ShuttingDown       the server is going away
├── SessionNotFound    there is no record of that session
└── NotOwner           the session belongs to somebody else
"""

from __future__ import annotations


class SessionError(Exception):
    """Base of all of them; the message is safe to show to the caller."""


class InvalidRequest(SessionError, ValueError):
    """A field of the request is out of its range; `field` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class UnknownProfile(SessionError):
    """There is no profile `profile`."""

    def __init__(self, profile: str) -> None:
        super().__init__(f"there is no profile {profile!r}")
        self.profile = profile


class PolicyDenied(SessionError):
    """A limit of the profile forbids it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SessionFailed(SessionError):
    """The session could not be started."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NoCapacity(SessionFailed):
    """The server has no room for another session now."""


class NotRunning(SessionError):
    """The session is in `state`."""

    def __init__(self, state: str) -> None:
        super().__init__(f"the session is {state}")
        self.state = state


class CannotPause(SessionError):
    """The session can be neither paused nor resumed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CannotStop(SessionError):
    """The session cannot be stopped, only ended: its home would be lost."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ShuttingDown(SessionError):
    """The server is shutting down and takes no new session."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; try again when it is back")


class SessionNotFound(SessionError):
    """There is no record of the session `session_id`."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session {session_id[:64]!r}")
        self.session_id = session_id


class NotOwner(SessionError):
    """The session belongs to somebody else."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id[:64]!r} belongs to somebody else")
        self.session_id = session_id
