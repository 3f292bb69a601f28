"""Why an operation on a file failed (docs/spec/trunk-1.md § 6)."""

from __future__ import annotations

from enum import StrEnum


class FileProblem(StrEnum):
    """The value of ``error`` in what is told of an operation."""

    NOT_FOUND = "not_found"
    """There is nothing at the path, or a directory on the way to it is missing."""
    EXISTS = "exists"
    """Something is there already."""
    NOT_A_DIRECTORY = "not_a_directory"
    IS_A_DIRECTORY = "is_a_directory"
    NOT_EMPTY = "not_empty"
    FORBIDDEN = "forbidden"
    """Permissions, or the file system, do not allow it."""
    OUTSIDE = "outside"
    """The path leads nowhere within the root: endless or magic links."""
    RANGE = "range"
    """The offset is not in the file, or not where the upload is."""
    MISMATCH = "mismatch"
    """What came has another size or checksum than was announced."""
    CHANGED = "changed"
    """The file is not the one that was asked for, or is no longer."""
    NO_SPACE = "no_space"
    TOO_LARGE = "too_large"
    """More than was announced, or than the file system takes."""
    LIMIT = "limit"
    """Too many uploads are unfinished."""
    INVALID = "invalid"
    """The request makes no sense for what is there."""
    INTERRUPTED = "interrupted"
    """It was broken off: by its client, by another one that goes on with the upload, by the end."""
    FAILED = "failed"
    """The system failed, and says why."""
