"""Who may come in: everything needs a bearer credential, except what is listed here."""

from __future__ import annotations

from quart import g, request

from api.context import current_context
from api.problems import unauthenticated
from auth.authenticator import AuthenticationError

PUBLIC_ENDPOINTS = frozenset(
    {
        "access.login",  # takes a one-use code instead
        "meta.healthz",
        "meta.openapi",
        "pages.asset",
        "pages.desktop",
        "pages.index",
        "pages.terminal",
        # These only say that they are WebSockets, which take a ticket:
        "sessions.pty",
        "sockets.tcp",
        "sockets.vnc",
        "uploads.options",  # says which extensions of tus there are
    }
)
"""The endpoints that need no credential.  Whatever is added is closed until it is named here."""


async def authenticate() -> None:
    """Find out who makes the current request.

    Raises:
      ApiError: nobody that is known (401).
    """
    if request.url_rule is None:
        return  # no endpoint will run: the answer is 404 or 405
    if request.endpoint in PUBLIC_ENDPOINTS:
        return
    values = request.headers.getlist("Authorization")
    if len(values) > 1:
        raise unauthenticated("Send one Authorization header, not several.", presented=True)
    authorization = values[0] if values else None
    try:
        g.principal = current_context().authenticator.authenticate(authorization)
    except AuthenticationError as error:
        raise unauthenticated(str(error), presented=authorization is not None) from None
