"""Resumable uploads, in the tus protocol (https://tus.io/protocols/resumable-upload, 1.0.0).

What is here holds nothing: the part of the file that has come, and the metadata, are with the
session.  An upload is addressed by a name that is made up when it is created.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime, timedelta

from quart import Blueprint, request
from quart_trio.wrappers import TrioResponse

from api import tus
from api.conditions import http_date
from api.file_access import perform, send_body, session_trunk, writing
from api.file_problems import DIGEST_MISMATCH
from api.openapi import problems, public
from api.problems import (
    INVALID_FIELD,
    METHOD_NOT_ALLOWED,
    UNSUPPORTED_MEDIA_TYPE,
    ApiError,
    ProblemKind,
)
from api.query import check_path, parse_flag, parse_mode, parse_time
from relay.client import Trunk
from relay.endpoint import FileOperation
from relay.file_problems import FileProblem
from relay.file_stream import FileFailed, Told
from relay.protocol.messages import FileStart
from runtimes.files.uploads import IDLE_SECONDS

UPLOAD_NOT_FOUND = ProblemKind("upload-not-found", 404, "There is no such upload")
OFFSET_CONFLICT = ProblemKind("upload-offset", 409, "The upload is at another offset")
WRONG_VERSION = ProblemKind("tus-version", 412, "Another version of the tus protocol is needed")
CHECKSUM_MISMATCH = ProblemKind("checksum-mismatch", 460, "The checksum does not fit")

_NAME = re.compile(r"[A-Za-z0-9_-]{16,64}")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")

blueprint = Blueprint("uploads", __name__, url_prefix="/v1/sessions/<session_id>/uploads")


@blueprint.after_request
async def _say_version(response: TrioResponse) -> TrioResponse:
    response.headers["Tus-Resumable"] = tus.VERSION
    return response


@blueprint.route("", methods=["OPTIONS"])
@blueprint.route("/<upload>", methods=["OPTIONS"])
@public
async def options(session_id: str, upload: str | None = None) -> TrioResponse:
    """Tell what of the tus protocol is spoken here."""
    response = _empty(204)
    response.headers.update(tus.CAPABILITIES)
    return response


@blueprint.post("")
@problems(400, 401, 403, 404, 409, 412, 413, 415, 429, 460, 507)
async def create(session_id: str) -> TrioResponse:
    """Begin an upload (tus: creation, creation-with-upload).

    The metadata needs a `path`; `mode` (octal), `modified` (RFC 3339), `parents`, `overwrite` (true or
    false) and `sha256` (hexadecimal, of the whole file) may be added.
    """
    _check_version()
    start = _announced()
    has_content = request.mimetype == tus.CONTENT_TYPE
    if request.content_length or "Transfer-Encoding" in request.headers:
        _check_type()  # of an empty body, clients send any
    trunk = await session_trunk(session_id)
    told = await _add(trunk, start, has_content=has_content)
    response = _progress(201, told)
    response.headers["Location"] = f"/v1/sessions/{session_id}/uploads/{start.upload}"
    return response


def _announced() -> FileStart:
    if "Upload-Defer-Length" in request.headers:
        raise tus.TusError("Upload-Defer-Length", "The length must be known at the beginning.")
    size = tus.parse_number("Upload-Length", request.headers.get("Upload-Length"))
    note = request.headers.get("Upload-Metadata")
    metadata = tus.parse_metadata(note)
    checksum = tus.parse_checksum(request.headers.get("Upload-Checksum"))
    if "path" not in metadata:
        raise ApiError(
            INVALID_FIELD,
            "Add the key path to Upload-Metadata: where the file shall be, in base64.",
            field="Upload-Metadata",
        )
    sha256 = metadata.get("sha256")
    if sha256 is not None and _SHA256.fullmatch(sha256) is None:
        raise ApiError(INVALID_FIELD, "sha256 must be hexadecimal.", field="Upload-Metadata")
    return FileStart(
        operation=FileOperation.WRITE,
        path=check_path("path", metadata["path"]),
        size=size,
        length=request.content_length,
        sha256=sha256.lower() if sha256 else None,
        checksum=str(checksum) if checksum else None,
        mode=parse_mode("mode", metadata["mode"]) if "mode" in metadata else None,
        modified=parse_time("modified", metadata["modified"]) if "modified" in metadata else None,
        parents=parse_flag("parents", metadata.get("parents", "false")),
        overwrite=parse_flag("overwrite", metadata.get("overwrite", "true")),
        upload=secrets.token_urlsafe(18),
        note=note,
    )


@blueprint.get("/<upload>")
@problems(401, 403, 404, 405, 409, 412)
async def show(session_id: str, upload: str) -> TrioResponse:
    """Tell how far an upload is (tus: HEAD); a request that still adds to it is broken off."""
    if request.method != "HEAD" and _override() != "HEAD":
        raise ApiError(
            METHOD_NOT_ALLOWED,
            "An upload can be asked how far it is, with HEAD; the file is under …/files.",
            headers={"Allow": "DELETE, HEAD, OPTIONS, PATCH, POST"},
        )
    _check_version()
    trunk = await session_trunk(session_id)
    told = await _perform(trunk, FileOperation.STAT, upload)
    response = _progress(200, told)
    if told["size"] is not None:
        response.headers["Upload-Length"] = str(told["size"])
    if told.get("note"):
        response.headers["Upload-Metadata"] = told["note"]
    return response


@blueprint.patch("/<upload>")
@problems(400, 401, 403, 404, 409, 412, 413, 415, 460, 507)
async def add(session_id: str, upload: str) -> TrioResponse:
    """Add to an upload (tus); with its last byte the file appears."""
    _check_version()
    _check_type()
    offset = tus.parse_number("Upload-Offset", request.headers.get("Upload-Offset"))
    checksum = tus.parse_checksum(request.headers.get("Upload-Checksum"))
    start = FileStart(
        operation=FileOperation.WRITE,
        path=".",
        upload=_checked(upload),
        offset=offset,
        length=request.content_length,
        checksum=str(checksum) if checksum else None,
    )
    trunk = await session_trunk(session_id)
    return _progress(204, await _add(trunk, start, has_content=True))


@blueprint.delete("/<upload>")
@problems(401, 403, 404, 409, 412)
async def terminate(session_id: str, upload: str) -> TrioResponse:
    """Give an upload up (tus: termination)."""
    _check_version()
    trunk = await session_trunk(session_id)
    await _perform(trunk, FileOperation.REMOVE, upload)
    return _empty(204)


@blueprint.post("/<upload>")
@problems(400, 401, 403, 404, 405, 409, 412, 413, 415, 460, 507)
async def override(session_id: str, upload: str) -> TrioResponse:
    """Do what `X-HTTP-Method-Override` says, for clients that cannot send PATCH or DELETE (tus)."""
    match _override():
        case "PATCH":
            return await add(session_id, upload)
        case "DELETE":
            return await terminate(session_id, upload)
        case "HEAD":
            return await show(session_id, upload)
        case _:
            raise ApiError(
                METHOD_NOT_ALLOWED,
                "Use PATCH, or name it in X-HTTP-Method-Override.",
                headers={"Allow": "DELETE, HEAD, OPTIONS, PATCH, POST"},
            )


def _override() -> str:
    return request.headers.get("X-HTTP-Method-Override", "").upper()


async def _add(trunk: Trunk, start: FileStart, *, has_content: bool) -> Told:
    """Send the body of the request to an upload."""
    try:
        async with writing(trunk, start) as stream:
            return await (send_body(stream) if has_content else stream.finish())
    except FileFailed as error:
        raise _of_failure(error, start) from None


def _of_failure(error: FileFailed, start: FileStart) -> Exception:
    match error.problem:
        case FileProblem.RANGE:
            headers = {} if error.offset is None else {"Upload-Offset": str(error.offset)}
            return ApiError(OFFSET_CONFLICT, f"{error.message}. Ask with HEAD.", headers=headers)
        case FileProblem.NOT_FOUND if start.size is None:
            return _not_found()
        case FileProblem.MISMATCH:
            kind = CHECKSUM_MISMATCH if start.checksum is not None else DIGEST_MISMATCH
            return ApiError(kind, f"{error.message}.")
        case _:
            return error


async def _perform(trunk: Trunk, operation: FileOperation, upload: str) -> Told:
    start = FileStart(operation=operation, path=".", upload=_checked(upload))
    try:
        return await perform(trunk, start)
    except FileFailed as error:
        raise _of_failure(error, start) from None


def _progress(status: int, told: Told) -> TrioResponse:
    """Tell how far an upload is, and how long it is safe."""
    response = _empty(status)
    response.headers["Upload-Offset"] = str(told["offset"])
    response.headers["Cache-Control"] = "no-store"
    if not told["complete"]:
        expires = datetime.now(UTC) + timedelta(seconds=IDLE_SECONDS)
        response.headers["Upload-Expires"] = http_date(expires)
    return response


def _empty(status: int) -> TrioResponse:
    response = TrioResponse(status=status)
    del response.headers["Content-Type"]
    return response


def _checked(upload: str) -> str:
    if _NAME.fullmatch(upload) is None:
        raise _not_found()
    return upload


def _not_found() -> ApiError:
    return ApiError(
        UPLOAD_NOT_FOUND,
        "There is no such upload (any more): it was given up, or it lay idle while others needed"
        " the room. Create another.",
    )


def _check_version() -> None:
    if request.headers.get("Tus-Resumable") != tus.VERSION:
        raise ApiError(
            WRONG_VERSION,
            f"Send the header Tus-Resumable: {tus.VERSION}.",
            headers={"Tus-Version": tus.VERSION},
        )


def _check_type() -> None:
    if request.mimetype != tus.CONTENT_TYPE:
        raise ApiError(
            UNSUPPORTED_MEDIA_TYPE, f"Send the content with Content-Type: {tus.CONTENT_TYPE}."
        )
