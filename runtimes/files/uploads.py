"""The uploads of one session: what came of them so far waits here for the rest."""

from __future__ import annotations

from collections.abc import Callable

from relay.endpoint import FileRequest
from relay.file_problems import FileProblem
from runtimes.files.errors import FileError
from runtimes.files.writing import Announcement, Upload

MAX_UNFINISHED = 64
"""Uploads of a session that wait for more; each holds two descriptors."""
MAX_FINISHED = 64
"""Complete ones that are remembered, for clients that did not get the answer."""
IDLE_SECONDS = 3600.0
"""For so long an unfinished upload that nothing came for is safe from having to make room."""


class Uploads:
    """Finds uploads by name.  `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, Upload] = {}  # the one that was used last is last
        self._used: dict[str, float] = {}

    def find(self, name: str) -> Upload:
        """Return an upload.

        Raises:
          FileError: there is none of this name.
        """
        upload = self._known.get(name)
        if upload is None or upload.failed:
            raise FileError(
                FileProblem.NOT_FOUND, f"there is no upload {name!r} (any more); begin it anew"
            )
        self._touch(upload)
        return upload

    def find_or_add(self, name: str, request: FileRequest) -> tuple[Upload, Upload | None]:
        """Return an upload, and one that had to make room for it and is to be discarded.

        Only a request that tells the size begins one.

        Raises:
          FileError: it does not exist, or there are too many.
        """
        upload = self._known.get(name)
        if (upload is not None and not upload.failed) or request.size is None:
            return self.find(name), None
        evicted = self._make_room()
        upload = Upload(name, Announcement.of(request), request.note)
        self._known[name] = upload
        self._touch(upload)
        return upload, evicted

    def release(self, upload: Upload) -> None:
        """Note that an operation on an upload has ended."""
        upload.is_held = False
        if upload.failed:
            if self._known.get(upload.name) is upload:
                self._drop(upload)
            return
        self._touch(upload)
        finished = [u for u in self._known.values() if u.result is not None]
        for oldest in finished[: len(finished) - MAX_FINISHED]:
            self._drop(oldest)

    def clear(self) -> list[Upload]:
        """Forget all; return them, to be discarded."""
        uploads = list(self._known.values())
        self._known.clear()
        self._used.clear()
        return uploads

    def _touch(self, upload: Upload) -> None:
        if self._known.get(upload.name) is upload:
            self._known[upload.name] = self._known.pop(upload.name)
            self._used[upload.name] = self._clock()

    def _drop(self, upload: Upload) -> None:
        del self._known[upload.name]
        del self._used[upload.name]

    def _make_room(self) -> Upload | None:
        unfinished = [u for u in self._known.values() if u.result is None]
        if len(unfinished) < MAX_UNFINISHED:
            return None
        idle = (upload for upload in unfinished if not upload.is_held)
        oldest = next(idle, None)
        if oldest is None or self._clock() - self._used[oldest.name] < IDLE_SECONDS:
            raise FileError(
                FileProblem.LIMIT,
                f"{MAX_UNFINISHED} uploads of this session are unfinished; finish or delete one",
            )
        self._drop(oldest)
        return oldest
