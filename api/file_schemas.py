"""The JSON of files, in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from api.schemas import Time
from api.times import format_time

FilePath = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=4096,
        pattern="^[^\\x00]*$",
        description="Relative to the session's home, or absolute in the sandbox",
    ),
]
Octal = Annotated[str, Meta(pattern="^[0-7]{1,4}$", description="Permission bits, like 0644")]
Modified = Annotated[str, Meta(description="RFC 3339, up to nanoseconds")]


class FileInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file or directory."""

    path: str
    type: Annotated[str, Meta(description="file, directory, symlink or other")]
    size: Annotated[int, Meta(description="Bytes; null where the system does not know")] | None
    mode: Octal
    modified: Time
    etag: Annotated[str, Meta(description="As in the ETag header, without the quotes")]
    target: Annotated[str, Meta(description="Where a symbolic link points")] | None = None
    name_base64: (
        Annotated[str, Meta(description="The name, where it is not UTF-8: path is not exact")]
        | None
    ) = None
    error: Annotated[str, Meta(description="Why it cannot be looked into")] | None = None
    sha256: Annotated[str, Meta(description="Of a file that was written")] | None = None
    created: Annotated[bool, Meta(description="Whether it was not there before")] | None = None


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a directory; paths are relative to it, in no particular order."""

    path: str
    entries: list[FileInfo]
    truncated: Annotated[bool, Meta(description="Whether there is more than the limit")]


class PathQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which file."""

    path: FilePath


class WriteQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which file, and how it is to be."""

    path: FilePath
    mode: Octal | None = None
    modified: Modified | None = None
    parents: Annotated[bool, Meta(description="Make missing directories")] = False


class RemoveQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which file or directory."""

    path: FilePath
    recursive: Annotated[bool, Meta(description="With everything in it")] = False


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which directory, how deep, and how many entries at the most."""

    path: FilePath = "."
    depth: Annotated[int, Meta(ge=1, le=64)] = 1
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 10_000


class MakeDirectory(msgspec.Struct, frozen=True, kw_only=True):
    """A directory to make."""

    path: FilePath
    parents: Annotated[
        bool, Meta(description="Make missing ones above it; one that is there will do")
    ] = False
    mode: Octal | None = None
    modified: Modified | None = None


class MoveFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file or directory to move."""

    path: FilePath
    target: Annotated[FilePath, Meta(description="The new path")]
    overwrite: Annotated[bool, Meta(description="Replace a file that is there")] = True


def file_info(told: Mapping[str, Any]) -> FileInfo:
    """Return a file as the API shows it."""
    return FileInfo(
        path=told["path"],
        type=told["type"],
        size=told.get("size"),
        mode=f"{told['mode']:04o}",
        modified=format_time(told["modified"]),
        etag=told["etag"],
        target=told.get("target"),
        name_base64=told.get("name_base64"),
        error=told.get("error"),
        sha256=told.get("sha256"),
        created=told.get("created"),
    )
