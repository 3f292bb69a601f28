"""Finding the session that a request is about."""

from __future__ import annotations

import re
from collections.abc import Mapping

from api.context import current_context, current_principal
from api.problems import SESSION_NOT_RUNNING, ApiError, session_not_found
from relay.endpoint import Kind
from relay.grant import Grant, Mode
from sessions.record import SessionRecord
from sessions.state import State

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def checked_id(session_id: str) -> str:
    """Return the id as it is on record; what has not even the shape of one cannot be there."""
    session_id = session_id.lower()
    if _UUID.fullmatch(session_id) is None:
        raise session_not_found(session_id)
    return session_id


_WAY_OUT: Mapping[str, str] = {
    State.PAUSED: "POST /v1/sessions/{id}/resume lets it go on",
    State.STOPPING: "POST /v1/sessions/{id}/start starts it again",
    State.STOPPED: "POST /v1/sessions/{id}/start starts it again",
    State.STARTING: "try again once it is running",
}
"""What to do with one that lives, but does not run."""


async def running_session(session_id: str) -> SessionRecord:
    """Return the record of the caller's session, which runs.

    Raises:
      ApiError: there is no such session (404), or it does not run (409).
      sessions.errors.NotOwner: it is somebody else's (403).
    """
    record = await current_context().manager.get(current_principal(), checked_id(session_id))
    if record.state is not State.RUNNING:
        raise not_running(record.state)
    return record


def not_running(state: str) -> ApiError:
    """Make the answer to a request that needs a running session."""
    if state in _WAY_OUT:
        return ApiError(SESSION_NOT_RUNNING, f"The session is {state}: {_WAY_OUT[state]}.")
    return ApiError(
        SESSION_NOT_RUNNING,
        f"The session is {state}: only a running one can be attached to."
        " Start another with POST /v1/sessions.",
    )


def grant_for(record: SessionRecord, kind: Kind, mode: Mode = Mode.CONTROL) -> Grant:
    """Return the caller's authority over the streams of one kind, for one request."""
    return Grant(
        session_id=record.session_id,
        subject=current_principal().subject,
        kinds=frozenset({kind}),
        mode=mode,
        epoch=record.epoch,
    )
