"""Operations on the files of a sandbox; what they mean is said in `runtimes.files`."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from typing import NoReturn

import msgspec

from relay.endpoint import FileRequest
from relay.file_problems import FileProblem
from runtimes.exec_inside.files.calls import Call, Calls, status_of
from runtimes.files.beneath import Place, Root, split
from runtimes.files.entries import Entry, entry_of, etag_of, matches, printable
from runtimes.files.errors import FileError
from runtimes.files.operations import DIGEST_BYTES, PIECE_BYTES, Operation, Site, Told, telling

_encoder = msgspec.json.Encoder()
_NANOSECONDS = 10**9
_FIELDS = 4


class InnerPlace(Place):
    """Where something is or shall be: an absolute path in a sandbox.  Holds nothing."""

    def __init__(self, calls: Calls, path: str) -> None:
        super().__init__(-1, path)
        self.calls = calls

    def stat(self) -> os.stat_result | None:
        """As `Place.stat`."""
        try:
            return self.calls.do(self.name, "lstat", self.name).statuses()[0]
        except FileError as error:
            if error.problem is FileProblem.NOT_FOUND:
                return None
            raise


class InnerRoot(Root):
    """The root of a sandbox; nothing of it is opened here."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def close(self) -> None:
        """Do nothing: nothing is held."""

    def resolve(self, path: str, *, follow: bool = True) -> NoReturn:
        """Must not be called: there are no descriptors of what is in a sandbox."""
        raise NotImplementedError(f"{path!r} is in a sandbox, follow={follow}")

    def target(self, path: str) -> InnerPlace:
        """As `Root.target`; the draft finds out where links lead."""
        components = split(path)
        if not components or components[-1] == "..":
            raise FileError(FileProblem.IS_A_DIRECTORY, f"{path!r} is a directory")
        return InnerPlace(self.calls, "/" + "/".join(components))

    def make_directories(self, path: str, mode: int = 0o777) -> None:
        """As `Root.make_directories`; the mode is that of new directories in the sandbox."""
        del mode
        path = "/" + "/".join(split(path))
        self.calls.do(path, "parents", path)


class Inside(Site):
    """Where operations take place: a sandbox, and the home, an absolute path in it."""

    @property
    def calls(self) -> Calls:
        """What reaches into the sandbox."""
        if not isinstance(self.root, InnerRoot):
            raise TypeError("the root is none of a sandbox")
        return self.root.calls

    def place(self, path: str) -> str:
        """Return the absolute path of an entry of a directory.

        Raises:
          FileError: `path` ends in ``..`` or names the root.
        """
        components = split(self.absolute(path))
        if not components:
            raise FileError(FileProblem.FORBIDDEN, f"{path!r} is the root directory")
        if components[-1] == "..":
            raise FileError(FileProblem.INVALID, f"{path!r} ends in '..'; name it directly")
        return "/" + "/".join(components)

    def check(self, request: FileRequest, verb: str, path: str) -> None:
        """Raise FileError unless what is there fulfils ``if_match``."""
        if request.if_match is not None:
            status = self.calls.do(request.path, verb, path).statuses()[0]
            if not matches(request.if_match, status):
                raise FileError(FileProblem.CHANGED, f"{request.path!r} has changed")


class Inner(Operation):
    """What the operations here have in common."""

    def __init__(self, inside: Inside, request: FileRequest) -> None:
        self._inside = inside
        self._calls = inside.calls
        self._request = request


def metadata(mode: int | None, modified: int | None) -> tuple[str, str, str]:
    """Return the arguments for permission bits and time of modification (ns)."""
    octal = "-" if mode is None else f"{mode:o}"
    if modified is None:
        return octal, "-", "-"
    seconds, rest = divmod(modified, _NANOSECONDS)
    return octal, str(seconds), f"{rest:09}"


class Stat(Inner):
    """Tells about a file or directory; links are followed."""

    def finish(self) -> Told:
        """See `Operation`."""
        request = self._request
        path = self._inside.absolute(request.path)
        status = self._calls.do(request.path, "stat", path).statuses()[0]
        if not matches(request.if_match, status):
            raise FileError(FileProblem.CHANGED, f"{request.path!r} has changed")
        entry = entry_of(request.path, status)
        told = telling(entry)
        if request.digest and entry.type == "file" and status.st_size <= DIGEST_BYTES:
            told |= self._digest(path, status)
        return told

    def _digest(self, path: str, status: os.stat_result) -> dict[str, object]:
        call = self._calls.start(self._request.path, "read", path, "1", str(DIGEST_BYTES))
        digest = hashlib.sha256()

        async def read() -> None:
            try:
                while await call.more():
                    digest.update(call.output)
                    call.output.clear()
                await call.check()
            finally:
                await call.aclose()

        self._calls.wait(read)
        if any(etag_of(seen) != etag_of(status) for seen in call.statuses()):
            return {}
        return {"sha256": digest.hexdigest()}


class MakeDirectory(Inner):
    """Makes a directory; with `parents`, one that is there already will do."""

    def finish(self) -> Told:
        """See `Operation`."""
        request = self._request
        path = "/" + "/".join(split(self._inside.absolute(request.path)))
        options = ("1" if request.parents else "0", *metadata(request.mode, request.modified))
        call = self._calls.do(request.path, "mkdir", path, *options)
        return telling(entry_of(request.path, call.statuses()[0]))


class Move(Inner):
    """Renames a file or directory; a link is moved itself."""

    def finish(self) -> Told:
        """See `Operation`."""
        request = self._request
        if request.target is None:
            raise FileError(FileProblem.INVALID, "a move needs a target")
        source, target = self._inside.place(request.path), self._inside.place(request.target)
        self._inside.check(request, "lstat", source)
        overwrite = "1" if request.overwrite else "0"
        call = self._calls.do(request.path, "move", source, target, overwrite)
        return telling(entry_of(request.target, call.statuses()[-1]))


class Remove(Inner):
    """Removes a file, a link itself, an empty directory, or with `recursive` any directory."""

    def finish(self) -> Told:
        """See `Operation`."""
        request = self._request
        path = self._inside.place(request.path)
        self._inside.check(request, "lstat", path)
        home = self._inside.home.rstrip("/")
        recursive = "1" if request.recursive else "0"
        call = self._calls.do(request.path, "remove", path, recursive, home)
        return telling(entry_of(request.path, call.statuses()[0]))


class _Streaming(Inner):
    """Gives what a call puts out."""

    def __init__(self, inside: Inside, request: FileRequest) -> None:
        super().__init__(inside, request)
        self._call: Call | None = None

    def _running(self) -> Call:
        if self._call is None:
            raise RuntimeError("the operation has not begun, or was abandoned")
        return self._call

    def _wait_until(self, enough: Callable[[Call], bool]) -> bool:
        """Read until there is `enough`; False if it ended before."""
        call = self._running()

        async def read() -> bool:
            while not enough(call):
                if not await call.more():
                    await call.check()
                    return enough(call)
            return True

        return self._calls.wait(read)

    def _first_status(self) -> os.stat_result:
        if not self._wait_until(lambda call: bool(call.told("status "))):
            raise FileError(FileProblem.FAILED, f"{self._request.path!r}: nothing was told of it")
        return self._running().statuses()[0]

    def abandon(self) -> None:
        """See `Operation`."""
        call, self._call = self._call, None
        if call is not None:
            self._calls.wait(call.aclose)


class Read(_Streaming):
    """Tells about the file, gives its content, then says that it was all of it."""

    def __init__(self, inside: Inside, request: FileRequest) -> None:
        super().__init__(inside, request)
        self._sent = 0
        self._expected: int | None = 0
        self._digest = hashlib.sha256() if request.digest else None

    def begin(self) -> Told:
        """See `Operation`."""
        request = self._request
        path = self._inside.absolute(request.path)
        length = "-" if request.length is None else str(request.length)
        self._call = self._calls.start(request.path, "read", path, str(request.offset + 1), length)
        status = self._first_status()
        if not matches(request.if_match, status):
            raise FileError(FileProblem.CHANGED, f"{request.path!r} has changed")
        size: int | None = status.st_size
        if not size and self._wait_until(lambda call: bool(call.output)):
            size = None  # the system does not know, as in /proc
        if size is not None and request.offset > size:
            raise FileError(
                FileProblem.RANGE, f"{request.path!r} has {size} bytes, none at {request.offset}"
            )
        self._expected = None if size is None else size - request.offset
        if self._expected is not None and request.length is not None:
            self._expected = min(self._expected, request.length)
        entry = entry_of(request.path, status)
        entry.size = size
        return telling(entry)

    def produce(self) -> bytes:
        """See `Operation`."""
        left = PIECE_BYTES if self._expected is None else self._expected - self._sent
        if left <= 0:
            return b""
        self._wait_until(lambda call: bool(call.output))
        output = self._running().output
        data = bytes(output[: min(left, PIECE_BYTES)])
        del output[: len(data)]
        if not data and self._expected is not None:
            raise FileError(
                FileProblem.CHANGED, f"{self._request.path!r} has shrunk while it was read"
            )
        self._sent += len(data)
        if self._digest is not None:
            self._digest.update(data)
        return data

    def finish(self) -> Told:
        """See `Operation`."""
        if self._expected is None or self._request.length is not None:
            self._drain()
        else:
            # A file that has grown has more to give: nobody waits for that.
            self._wait_until(lambda call: bool(call.output) or len(call.told("status ")) > 1)
        etag = etag_of(self._running().statuses()[-1])
        told: dict[str, object] = {"sent": self._sent, "etag": etag}
        if self._digest is not None:
            told["sha256"] = self._digest.hexdigest()
        return told

    def _drain(self) -> None:
        def ended(call: Call) -> bool:
            call.output.clear()
            return len(call.told("status ")) > 1

        self._wait_until(ended)


class List(_Streaming):
    """Gives one line of JSON for each entry, a directory before what is in it."""

    _count = 0

    def begin(self) -> Told:
        """See `Operation`."""
        request = self._request
        path = self._inside.absolute(request.path)
        self._call = self._calls.start(request.path, "list", path, str(request.depth))
        return telling(entry_of(request.path, self._first_status()))

    def produce(self) -> bytes:
        """See `Operation`."""
        if not self._wait_until(lambda call: call.output.count(b"\0") >= _FIELDS):
            return b""
        output = self._running().output
        *complete, rest = bytes(output).split(b"\0")
        whole = len(complete) // _FIELDS * _FIELDS
        output[:] = b"\0".join((*complete[whole:], rest))
        lines = bytearray()
        for start in range(0, whole, _FIELDS):
            lines += _encoder.encode(_entry(*complete[start : start + _FIELDS])) + b"\n"
            self._count += 1
        return bytes(lines)

    def finish(self) -> Told:
        """See `Operation`."""
        if not self._running().told("listed"):
            raise FileError(
                FileProblem.FAILED, f"{self._request.path!r}: the listing was cut short"
            )
        return {"entries": self._count}


def _entry(status: bytes, closed: bytes, link: bytes, path: bytes) -> Entry:
    """Return what is told of an entry, from the fields that the script gave."""
    name = os.fsdecode(path.removeprefix(b"./"))
    try:
        entry = entry_of(name, status_of(status.decode("ascii", "replace")))
    except (ValueError, IndexError) as error:
        raise FileError(FileProblem.FAILED, f"{name!r}: stat gave nothing sensible") from error
    if entry.path != name:
        base = name.rpartition("/")[2]
        entry.name_base64 = base64.b64encode(os.fsencode(base)).decode()
    if link:
        # What readlink gave, its newline and a dot that protects newlines of the target's own.
        entry.target = printable(os.fsdecode(link.removesuffix(b".").removesuffix(b"\n")))
    if closed:
        entry.error = FileProblem.FORBIDDEN.value
    return entry
