"""The files of a session: content, metadata, directories."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import msgspec
from quart import Blueprint, request
from quart_schema import document_querystring, document_request, document_response
from quart_trio.wrappers import TrioResponse

from api import file_schemas
from api.conditions import (
    ByteRange,
    Outcome,
    Unsatisfiable,
    evaluate,
    http_date,
    range_applies,
    requested_range,
)
from api.digests import DigestError, Digests, digest_field, parse_digests, wants_sha256
from api.fields import FieldError, parse_make_directory, parse_move
from api.file_access import (
    conditions,
    open_until_answered,
    perform,
    pin,
    send_body,
    session_trunk,
    version_of,
    writing,
)
from api.file_problems import RANGE_NOT_SATISFIABLE, precondition_failed
from api.file_schemas import file_info
from api.json_body import read_json
from api.media_types import disposition, media_type
from api.openapi import problems
from api.problems import INVALID_FIELD, UNSUPPORTED_MEDIA_TYPE, ApiError
from api.query import Query, parse_mode, parse_time
from api.schemas import JSON, respond
from relay.endpoint import FileOperation
from relay.file_problems import FileProblem
from relay.file_stream import FileFailed, FileStream, Told
from relay.protocol.messages import FileStart

ATTEMPTS = 5
"""How often a file that changes between looking at it and opening it is looked at again."""

blueprint = Blueprint("files", __name__, url_prefix="/v1/sessions/<session_id>/files")

_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Accept-Ranges": "bytes",
        # A copy may be kept, and is asked about each time.
        "Cache-Control": "private, no-cache",
        # Whatever is in the file, it is no page of this server.
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
)


@blueprint.get("")
@document_querystring(file_schemas.PathQuery)
@problems(400, 401, 403, 404, 409, 412, 416)
async def read(session_id: str) -> TrioResponse:
    """Give the content of a file, or a range of it."""
    path = Query(request.query_string).path()
    trunk = await session_trunk(session_id)
    headers = conditions()
    looks_first = request.method == "HEAD" or headers or "Range" in request.headers
    if not looks_first and "Want-Repr-Digest" not in request.headers:
        stream = await open_until_answered(trunk, FileStart(operation=_READ, path=path))
        return _content(stream, await stream.head(), None, None)
    for _ in range(ATTEMPTS):
        found = await perform(trunk, _look(path))
        if found["type"] == "directory":
            raise FileFailed(FileProblem.IS_A_DIRECTORY, f"{path!r} is a directory")
        version = version_of(found)
        outcome = evaluate(request.method, headers, version)
        if outcome is Outcome.FAILED:
            raise precondition_failed()
        if outcome is Outcome.NOT_MODIFIED:
            return _bodiless(304, found)
        if request.method == "HEAD":
            return _bodiless(200, found)
        part = _range(found)
        start = FileStart(
            operation=_READ,
            path=path,
            offset=part.start if part else 0,
            length=part.length if part else None,
            if_match=version.etag,
        )
        stream = await open_until_answered(trunk, start)
        try:
            await stream.head()
        except FileFailed as error:
            if error.problem is not FileProblem.CHANGED:
                raise
        else:
            return _content(stream, found, part, found.get("sha256"))
    raise precondition_failed("The file changes all the time.")


_READ = FileOperation.READ


def _look(path: str) -> FileStart:
    digest = wants_sha256(request.headers.get("Want-Repr-Digest"))
    return FileStart(operation=FileOperation.STAT, path=path, digest=digest)


def _range(found: Told) -> ByteRange | None:
    size = found["size"]
    if not size or not range_applies(
        request.headers.get("If-Range"), version_of(found), datetime.now(UTC)
    ):
        return None
    try:
        return requested_range(request.headers.get("Range"), size)
    except Unsatisfiable:
        raise ApiError(
            RANGE_NOT_SATISFIABLE,
            f"The file has {size} bytes.",
            headers={"Content-Range": f"bytes */{size}"},
        ) from None


def _content(
    stream: FileStream, found: Told, part: ByteRange | None, sha256: str | None
) -> TrioResponse:
    response = TrioResponse(_checked_content(stream), 206 if part else 200)
    _describe(response, found, sha256)
    if part is not None:
        response.headers["Content-Range"] = part.header(found["size"])
        response.content_length = part.length
    elif found["size"] is not None:
        response.content_length = found["size"]
    return response


async def _checked_content(stream: FileStream) -> AsyncIterator[bytes]:
    while piece := await stream.receive():
        yield piece
    await stream.result()  # raises if that was not all: the connection then breaks off


def _bodiless(status: int, found: Told) -> TrioResponse:
    response = TrioResponse(status=status)
    _describe(response, found, found.get("sha256"))
    if status == 304:
        del response.headers["Content-Type"]
        del response.headers["Content-Disposition"]
    elif found["size"] is not None:
        response.content_length = found["size"]
    return response


def _describe(response: TrioResponse, found: Told, sha256: str | None) -> None:
    version = version_of(found)
    response.headers.update(_HEADERS)
    response.headers["Content-Type"] = guessed = media_type(found["path"])
    response.headers["Content-Disposition"] = disposition(found["path"], guessed)
    response.headers["ETag"] = f'"{version.etag}"'
    # A date in the future would be taken for a mistake of ours (RFC 9110 §8.8.2.1).
    response.headers["Last-Modified"] = http_date(min(version.modified, datetime.now(UTC)))
    if sha256 is not None:
        response.headers["Repr-Digest"] = digest_field(sha256)


@blueprint.put("")
@document_querystring(file_schemas.WriteQuery)
@document_response(file_schemas.FileInfo)
@document_response(file_schemas.FileInfo, 201)
@problems(400, 401, 403, 404, 409, 412, 413, 415, 507)
async def write(session_id: str) -> TrioResponse:
    """Write a file: it appears, or replaces the one that was there, when all of it has come."""
    query = Query(request.query_string)
    path, mode, modified = query.path(), query.mode(), query.time()
    parents = query.flag("parents")
    digests = _announced_digests()
    trunk = await session_trunk(session_id)
    if_match, overwrite = await pin(trunk, path)
    start = FileStart(
        operation=FileOperation.WRITE,
        path=path,
        size=request.content_length,
        sha256=digests.sha256,
        checksum=None if digests.sha512 is None else f"sha512:{digests.sha512}",
        mode=mode,
        modified=modified,
        parents=parents,
        overwrite=overwrite,
        if_match=if_match,
    )
    try:
        async with writing(trunk, start) as stream:
            told = await send_body(stream)
    except FileFailed as error:
        raise _unpinned(error, if_match, overwrite=overwrite) from None
    response = respond(file_info(told), 201 if told["created"] else 200)
    response.headers["ETag"] = f'"{told["etag"]}"'
    return response


def _announced_digests() -> Digests:
    for name in ("Content-Range", "Content-Encoding"):
        if request.headers.get(name, "identity") != "identity":
            kind = UNSUPPORTED_MEDIA_TYPE if name == "Content-Encoding" else INVALID_FIELD
            raise ApiError(kind, f"Send the whole file, as it is, without {name}.", field=name)
    try:
        return parse_digests(
            request.headers.get("Content-Digest"), request.headers.get("Repr-Digest")
        )
    except DigestError as error:
        raise FieldError("Content-Digest", f"The digest is not valid: {error}.") from None


def _unpinned(error: FileFailed, if_match: str | None, *, overwrite: bool) -> Exception:
    """Return what an error means, given that preconditions were turned into `pin`s."""
    if error.problem is FileProblem.EXISTS and not overwrite:
        return precondition_failed("The file exists by now.")
    if error.problem is FileProblem.NOT_FOUND and if_match is not None:
        return precondition_failed()
    return error


@blueprint.delete("")
@document_querystring(file_schemas.RemoveQuery)
@problems(400, 401, 403, 404, 409, 412)
async def remove(session_id: str) -> TrioResponse:
    """Remove a file, or a directory; a link is removed itself."""
    query = Query(request.query_string)
    path, recursive = query.path(), query.flag("recursive")
    trunk = await session_trunk(session_id)
    if_match, _ = await pin(trunk, path)
    start = FileStart(
        operation=FileOperation.REMOVE, path=path, recursive=recursive, if_match=if_match
    )
    await perform(trunk, start)
    return _empty()


def _empty() -> TrioResponse:
    response = TrioResponse(status=204)
    del response.headers["Content-Type"]
    return response


@blueprint.get("/stat")
@document_querystring(file_schemas.PathQuery)
@document_response(file_schemas.FileInfo)
@problems(400, 401, 403, 404, 409)
async def stat(session_id: str) -> TrioResponse:
    """Tell about a file or directory; links are followed."""
    path = Query(request.query_string).path()
    found = await perform(await session_trunk(session_id), _look(path))
    response = respond(file_info(found))
    response.headers["ETag"] = f'"{found["etag"]}"'
    return response


@blueprint.get("/list")
@document_querystring(file_schemas.ListQuery)
@document_response(file_schemas.FileList)
@problems(400, 401, 403, 404, 409)
async def list_(session_id: str) -> TrioResponse:
    """List a directory, or the tree beneath it."""
    query = Query(request.query_string)
    path = query.path(default=".")
    depth = query.integer("depth", 1, 1, 64)
    limit = query.integer("limit", 10_000, 1, 100_000)
    trunk = await session_trunk(session_id)
    start = FileStart(operation=FileOperation.LIST, path=path, depth=depth)
    stream = await open_until_answered(trunk, start)
    head = await stream.head()
    return TrioResponse(_entries(stream, head["path"], limit), content_type=JSON)


async def _entries(stream: FileStream, path: str, limit: int) -> AsyncIterator[bytes]:
    yield b'{"path":' + msgspec.json.encode(path) + b',"entries":['
    separator = b""
    rest = b""
    while piece := await stream.receive():
        *lines, rest = (rest + piece).split(b"\n")
        shown = lines[:limit]
        if shown:
            infos = (file_info(msgspec.json.decode(line)) for line in shown)
            yield separator + b",".join(map(msgspec.json.encode, infos))
            separator = b","
        if len(lines) > limit:
            yield b'],"truncated":true}'
            return
        limit -= len(lines)
    await stream.result()
    yield b'],"truncated":false}'


@blueprint.post("/mkdir")
@document_request(file_schemas.MakeDirectory)
@document_response(file_schemas.FileInfo, 201)
@problems(400, 401, 403, 404, 409, 413, 415, 507)
async def make_directory(session_id: str) -> TrioResponse:
    """Make a directory."""
    wish = parse_make_directory(await read_json())
    start = FileStart(
        operation=FileOperation.MAKE_DIRECTORY,
        path=wish.path,
        parents=wish.parents,
        mode=None if wish.mode is None else parse_mode("mode", wish.mode),
        modified=None if wish.modified is None else parse_time("modified", wish.modified),
    )
    return respond(file_info(await perform(await session_trunk(session_id), start)), 201)


@blueprint.post("/move")
@document_request(file_schemas.MoveFile)
@document_response(file_schemas.FileInfo)
@problems(400, 401, 403, 404, 409, 413, 415)
async def move(session_id: str) -> TrioResponse:
    """Move a file or directory to another path, in one step."""
    wish = parse_move(await read_json())
    start = FileStart(
        operation=FileOperation.MOVE,
        path=wish.path,
        target=wish.target,
        overwrite=wish.overwrite,
    )
    return respond(file_info(await perform(await session_trunk(session_id), start)))
