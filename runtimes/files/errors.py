"""What can go wrong with a file, as its client is told (docs/spec/trunk-1.md § 6)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from relay.file_problems import FileProblem


class FileError(Exception):
    """An operation could not be done; the message is shown to the user.

    `offset` tells how much of an upload is there.
    """

    def __init__(self, problem: FileProblem, message: str, *, offset: int | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message
        self.offset = offset


_OF_ERRNO: Mapping[int, tuple[FileProblem, str]] = {
    errno.ENOENT: (FileProblem.NOT_FOUND, "does not exist"),
    errno.ENOTDIR: (FileProblem.NOT_A_DIRECTORY, "is not a directory, or is below a file"),
    errno.EISDIR: (FileProblem.IS_A_DIRECTORY, "is a directory"),
    errno.EEXIST: (FileProblem.EXISTS, "exists already"),
    errno.ENOTEMPTY: (FileProblem.NOT_EMPTY, "is a directory with something in it"),
    errno.EACCES: (FileProblem.FORBIDDEN, "may not be used: permission denied"),
    errno.EPERM: (FileProblem.FORBIDDEN, "may not be changed: operation not permitted"),
    errno.EROFS: (FileProblem.FORBIDDEN, "is on a read-only file system"),
    errno.EBUSY: (FileProblem.FORBIDDEN, "is in use by the system, as a mount point is"),
    errno.ETXTBSY: (FileProblem.FORBIDDEN, "is a program that is running"),
    errno.ELOOP: (FileProblem.OUTSIDE, "goes through too many links, or through a magic one"),
    errno.EXDEV: (FileProblem.INVALID, "is on another file system; copy it instead"),
    errno.ENOSPC: (FileProblem.NO_SPACE, "does not fit: the disk is full"),
    errno.EDQUOT: (FileProblem.NO_SPACE, "does not fit: the quota is used up"),
    errno.EFBIG: (FileProblem.TOO_LARGE, "is larger than the file system takes"),
    errno.ENAMETOOLONG: (FileProblem.INVALID, "is longer than a name may be"),
    errno.EINVAL: (FileProblem.INVALID, "cannot be used like this"),
}


def of_os_error(error: OSError, path: str) -> FileError:
    """Say what an error of the system means for `path`."""
    number = error.errno or 0
    problem, words = _OF_ERRNO.get(
        number, (FileProblem.FAILED, f"failed: {os.strerror(number) if number else error}")
    )
    return FileError(problem, f"{path!r} {words}")


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn errors of the system into a `FileError` about `path`."""
    try:
        yield
    except OSError as error:
        raise of_os_error(error, path) from error
