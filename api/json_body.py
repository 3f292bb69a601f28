"""Reading the JSON body of a request."""

from __future__ import annotations

from typing import cast

from quart import request

from api.problems import UNSUPPORTED_MEDIA_TYPE, ApiError


async def read_json() -> bytes:
    """Return the body of the current request, which is JSON as far as its media type says.

    A body without a media type is taken for JSON.

    Raises:
      ApiError: another media type is declared (415).
      werkzeug.exceptions.RequestEntityTooLarge: the body is longer than ``MAX_CONTENT_LENGTH``.

    Cancellation: safe.
    """
    if request.mimetype and not request.is_json:
        raise ApiError(
            UNSUPPORTED_MEDIA_TYPE,
            "Send the body as JSON, with the header Content-Type: application/json.",
        )
    return cast("bytes", await request.get_data(as_text=False))
