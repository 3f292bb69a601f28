"""What can go wrong between us and a container engine."""

from __future__ import annotations

from http import HTTPStatus


class EngineError(Exception):
    """The engine refused; `status` is that of its answer.  The message is shown to users."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_missing(self) -> bool:
        """Whether what the request was about does not exist."""
        return self.status == HTTPStatus.NOT_FOUND


class EngineUnreachable(EngineError):
    """There is no engine there, it does not answer, or it is not one that we can work with."""
