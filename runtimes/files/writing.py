"""Writing a file: whole, or in parts under the name of an upload."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import NoReturn

from relay.endpoint import FileRequest
from relay.file_problems import FileProblem
from runtimes.files.drafts import Draft, Terms, open_draft
from runtimes.files.entries import entry_of
from runtimes.files.errors import FileError, explained
from runtimes.files.operations import Operation, Site, Told, telling


@dataclass(frozen=True, slots=True)
class Announcement:
    """What was said of a content before it came, and where it shall go."""

    path: str
    terms: Terms
    parents: bool = False
    size: int | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, request: FileRequest) -> Announcement:
        """Return what `request` says."""
        return cls(
            path=request.path,
            terms=Terms(
                path=request.path,
                mode=request.mode,
                modified=request.modified,
                overwrite=request.overwrite,
                if_match=request.if_match,
            ),
            parents=request.parents,
            size=request.size,
            sha256=request.sha256,
        )

    def open_draft(self, site: Site, *, unnamed: bool) -> Draft:
        """Make a draft beside the target.

        Raises:
          FileError: the target cannot be written.
        """
        path = self.path
        if path.endswith(("/", "/.")):
            raise FileError(FileProblem.IS_A_DIRECTORY, f"{path!r} is the name of a directory")
        absolute = site.absolute(path)
        with explained(path):
            if self.parents:
                above = absolute.rstrip("/").rpartition("/")[0]
                site.root.make_directories(above)
            place = site.root.target(absolute)
            try:
                draft = open_draft(place, self.terms, unnamed=unnamed)
            except BaseException:
                place.close()
                raise
        try:
            if self.size is not None:
                draft.check_room(self.size)
        except BaseException:
            draft.discard()
            raise
        return draft

    def publish(self, draft: Draft) -> dict[str, object]:
        """Check what came, let the file appear, and return what is told of it.

        Raises:
          FileError: it is not what was announced, or cannot appear.
        """
        digest = draft.digest.hexdigest()
        if self.size is not None and draft.size != self.size:
            raise FileError(
                FileProblem.MISMATCH,
                f"{self.path!r} was announced with {self.size} bytes, and {draft.size} came",
            )
        if self.sha256 is not None and digest != self.sha256:
            raise FileError(
                FileProblem.MISMATCH,
                f"the SHA-256 of what came for {self.path!r} is {digest}, not {self.sha256}",
            )
        status, created = draft.publish()
        return telling(entry_of(self.path, status)) | {
            "created": created,
            "sha256": digest,
            "offset": draft.size,
            "complete": True,
        }


class Upload:
    """A content that comes in parts.  Belongs to one operation at a time."""

    def __init__(self, name: str, announcement: Announcement, note: str | None) -> None:
        self.name = name
        self.announcement = announcement
        self.note = note
        self.draft: Draft | None = None
        self.result: dict[str, object] | None = None
        """What was told when it was complete."""
        self.failed = False
        """It can never become a file: it is to be forgotten."""
        self.is_held = False
        """An operation has it."""

    @property
    def offset(self) -> int:
        """How many bytes are there."""
        if self.draft is not None:
            return self.draft.size
        return (self.announcement.size or 0) if self.result is not None else 0

    def told(self) -> dict[str, object]:
        """Return what is told of it."""
        told: dict[str, object] = {
            "upload": self.name,
            "path": self.announcement.path,
            "offset": self.offset,
            "size": self.announcement.size,
            "complete": self.result is not None,
        }
        if self.note is not None:
            told["note"] = self.note
        return told | (self.result or {})

    def discard(self) -> None:
        """Free everything; what came so far is gone.  Idempotent."""
        if self.draft is not None:
            self.draft.discard()
            self.draft = None


class _Incoming:
    """What one request brings: how much, and its checksum."""

    def __init__(self, request: FileRequest) -> None:
        self._announced = request.length
        algorithm, _, self._wanted = (request.checksum or "").partition(":")
        self._hash = hashlib.new(algorithm, usedforsecurity=False) if algorithm else None
        self.size = 0

    @property
    def is_checked(self) -> bool:
        """Whether there is a checksum."""
        return self._hash is not None

    def add(self, data: bytes | bytearray) -> None:
        self.size += len(data)
        if self._announced is not None and self.size > self._announced:
            raise FileError(FileProblem.TOO_LARGE, f"more than {self._announced} bytes came")
        if self._hash is not None:
            self._hash.update(data)

    def check(self, path: str) -> None:
        """Raise FileError if it is not what was announced."""
        if self._announced is not None and self.size != self._announced:
            raise FileError(
                FileProblem.MISMATCH,
                f"{self._announced} bytes were announced for {path!r}, and {self.size} came",
            )
        if self._hash is not None and self._hash.hexdigest() != self._wanted:
            raise FileError(
                FileProblem.MISMATCH,
                f"the {self._hash.name} of what came for {path!r} is {self._hash.hexdigest()},"
                f" not {self._wanted}",
            )


class Write(Operation):
    """Writes a whole file."""

    takes_input = True

    def __init__(self, site: Site, request: FileRequest, *, unnamed: bool = True) -> None:
        self._site = site
        self._offset = request.offset
        self._announcement = Announcement.of(request)
        self._incoming = _Incoming(request)
        self._unnamed = unnamed
        self._draft: Draft | None = None

    def begin(self) -> Told:
        """See `Operation`."""
        if self._offset:
            raise FileError(FileProblem.RANGE, "only a named upload can go on", offset=0)
        self._draft = self._announcement.open_draft(self._site, unnamed=self._unnamed)
        return {"offset": 0}

    def consume(self, data: bytes | bytearray) -> None:
        """See `Operation`."""
        draft = self._open_draft()
        _check_size(self._announcement, draft, len(data))
        self._incoming.add(data)
        draft.write(data)

    def finish(self) -> Told:
        """See `Operation`."""
        self._incoming.check(self._announcement.path)
        return self._announcement.publish(self._open_draft())

    def _open_draft(self) -> Draft:
        if self._draft is None:
            raise RuntimeError("the operation has not begun, or was abandoned")
        return self._draft

    def abandon(self) -> None:
        """See `Operation`."""
        if self._draft is not None:
            self._draft.discard()
            self._draft = None


class WritePart(Operation):
    """Adds to an upload; the last part makes it a file.

    What came stays when the request is broken off, unless it has a checksum: then it counts only
    when that was found right.
    """

    takes_input = True

    def __init__(
        self, site: Site, request: FileRequest, upload: Upload, *, unnamed: bool = True
    ) -> None:
        self._site = site
        self._request = request
        self._upload = upload
        self._incoming = _Incoming(request)
        self._unnamed = unnamed
        self._mark: tuple[int, hashlib._Hash] | None = None

    def begin(self) -> Told:
        """See `Operation`."""
        upload, request = self._upload, self._request
        if upload.draft is None and upload.result is None:
            try:
                upload.draft = upload.announcement.open_draft(self._site, unnamed=self._unnamed)
            except FileError:
                upload.failed = True
                raise
        if request.offset != upload.offset:
            raise FileError(
                FileProblem.RANGE,
                f"the upload is at {upload.offset}, not at {request.offset}",
                offset=upload.offset,
            )
        if request.sha256 is not None:
            upload.announcement = replace(upload.announcement, sha256=request.sha256)
        if upload.draft is not None and self._incoming.is_checked:
            self._mark = (upload.draft.size, upload.draft.digest.copy())
        return {"offset": upload.offset}

    def consume(self, data: bytes | bytearray) -> None:
        """See `Operation`."""
        draft = self._upload.draft
        if draft is None:
            raise FileError(FileProblem.TOO_LARGE, "the upload is complete already")
        _check_size(self._upload.announcement, draft, len(data))
        self._incoming.add(data)
        draft.write(data)

    def finish(self) -> Told:
        """See `Operation`."""
        upload = self._upload
        if self._mark is not None:
            self._incoming.check(upload.announcement.path)
            self._mark = None
        draft = upload.draft
        if draft is not None and draft.size == upload.announcement.size:
            try:
                upload.result = upload.announcement.publish(draft)
            except FileError:
                upload.failed = True
                raise
            finally:
                upload.discard()
        return upload.told()

    def abandon(self) -> None:
        """See `Operation`."""
        draft = self._upload.draft
        if self._mark is not None and draft is not None:
            draft.go_back(*self._mark)
        self._mark = None
        if self._upload.failed:
            self._upload.discard()


def _check_size(announcement: Announcement, draft: Draft, more: int) -> None:
    if announcement.size is not None and draft.size + more > announcement.size:
        raise FileError(
            FileProblem.TOO_LARGE,
            f"{announcement.path!r} was announced with {announcement.size} bytes, and more came",
            offset=draft.size,
        )


class StatUpload(Operation):
    """Tells how far an upload is."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    def finish(self) -> Told:
        """See `Operation`."""
        return self._upload.told()


class RemoveUpload(Operation):
    """Gives an upload up; a file that it has become stays."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    def finish(self) -> Told:
        """See `Operation`."""
        told = self._upload.told()
        self._upload.failed = True
        return told

    def abandon(self) -> None:
        """See `Operation`."""
        if self._upload.failed:
            self._upload.discard()


class Refuse(Operation):
    """Fails: for what is found out before there is anything to do."""

    def __init__(self, error: FileError) -> None:
        self._error = error

    def begin(self) -> NoReturn:
        """See `Operation`."""
        raise self._error

    def finish(self) -> NoReturn:
        """Must not be called."""
        raise self._error
