from __future__ import annotations

import errno

import pytest

from relay.file_problems import FileProblem
from runtimes.files.errors import FileError, explained, of_os_error


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (errno.ENOENT, FileProblem.NOT_FOUND),
        (errno.EACCES, FileProblem.FORBIDDEN),
        (errno.EROFS, FileProblem.FORBIDDEN),
        (errno.EDQUOT, FileProblem.NO_SPACE),
        (errno.ELOOP, FileProblem.OUTSIDE),
        (errno.EXDEV, FileProblem.INVALID),
        (errno.EIO, FileProblem.FAILED),
    ],
)
def test_what_errors_of_the_system_mean(number: int, problem: FileProblem) -> None:
    error = of_os_error(OSError(number, "whatever"), "some/path")
    assert error.problem is problem
    assert "'some/path'" in error.message


def test_an_error_without_a_number() -> None:
    assert "odd" in of_os_error(OSError("odd"), "p").message


def test_only_errors_of_the_system_are_explained() -> None:
    with pytest.raises(FileError, match="does not exist"), explained("p"):
        raise FileNotFoundError(errno.ENOENT, "x")
    with pytest.raises(LookupError), explained("p"):
        raise LookupError
