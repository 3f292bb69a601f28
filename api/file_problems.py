"""Failed operations on files as answers: one literal table."""

from __future__ import annotations

from collections.abc import Mapping

from api.problems import INTERNAL_ERROR, ApiError, ProblemKind, sentence
from relay.file_problems import FileProblem
from relay.file_stream import FileFailed

PRECONDITION_FAILED = ProblemKind("precondition-failed", 412, "The file is not the one you mean")
DIGEST_MISMATCH = ProblemKind("digest-mismatch", 400, "What came is not what was announced")
RANGE_NOT_SATISFIABLE = ProblemKind(
    "range-not-satisfiable", 416, "None of these bytes are in the file"
)

KINDS: Mapping[FileProblem, ProblemKind] = {
    FileProblem.NOT_FOUND: ProblemKind("file-not-found", 404, "There is no such file"),
    FileProblem.EXISTS: ProblemKind("file-exists", 409, "Something is there already"),
    FileProblem.NOT_A_DIRECTORY: ProblemKind("not-a-directory", 409, "It is not a directory"),
    FileProblem.IS_A_DIRECTORY: ProblemKind("is-a-directory", 409, "It is a directory"),
    FileProblem.NOT_EMPTY: ProblemKind("directory-not-empty", 409, "The directory is not empty"),
    FileProblem.FORBIDDEN: ProblemKind("file-forbidden", 403, "The sandbox does not allow it"),
    FileProblem.OUTSIDE: ProblemKind("path-outside", 403, "The path leads nowhere in the sandbox"),
    FileProblem.RANGE: RANGE_NOT_SATISFIABLE,
    FileProblem.MISMATCH: DIGEST_MISMATCH,
    FileProblem.CHANGED: PRECONDITION_FAILED,
    FileProblem.NO_SPACE: ProblemKind("no-space", 507, "The sandbox's disk is full"),
    FileProblem.TOO_LARGE: ProblemKind("file-too-large", 413, "The file is too large"),
    FileProblem.LIMIT: ProblemKind("too-many-uploads", 429, "Too many uploads are unfinished"),
    FileProblem.INVALID: ProblemKind("invalid-file-request", 400, "This cannot be done there"),
    FileProblem.INTERRUPTED: ProblemKind("interrupted", 409, "The operation was broken off"),
    FileProblem.FAILED: INTERNAL_ERROR,
}

_ADVICE: Mapping[FileProblem, str] = {
    FileProblem.IS_A_DIRECTORY: "GET …/files/list shows what is in it.",
    FileProblem.NOT_EMPTY: "Add recursive=true to remove it with everything in it.",
    FileProblem.CHANGED: "Read it again, and decide anew.",
    FileProblem.EXISTS: "Allow to replace it, or choose another name.",
}


def of_failure(error: FileFailed) -> ApiError:
    """Make the answer to an operation that failed."""
    detail = sentence(error.message or error.problem.value)
    advice = _ADVICE.get(error.problem)
    return ApiError(KINDS[error.problem], f"{detail} {advice}" if advice else detail)


def precondition_failed(detail: str = "") -> ApiError:
    """Make the answer to a precondition that does not hold (412)."""
    return ApiError(
        PRECONDITION_FAILED,
        detail or "The file has changed, or is not there. Read it again, and decide anew.",
    )
