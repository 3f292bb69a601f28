"""Content on its way to becoming a file of a sandbox.

It lies beside its target under a hidden name and is renamed over it when all is there.  One process
takes it from the first piece to the last; what it has been given counts as there, and how much really
is there is checked before the file appears.  Nothing is synced: a sandbox does not outlive a crash
of its machine.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import threading
from contextlib import suppress

from relay.file_problems import FileProblem
from runtimes.exec_inside.files.calls import Call
from runtimes.exec_inside.files.operations import InnerPlace, metadata
from runtimes.files.drafts import HIDDEN, Draft, Terms, open_draft
from runtimes.files.errors import FileError

_KIB = 1024
_AVAILABLE = 3  # df -P: file system, blocks, used, available

_naming = threading.Lock()
"""Held while it is looked what is at a name and the draft put there; see `runtimes.files.drafts`."""


class InnerDraft(Draft):
    """Made with the place it shall have.  All methods block."""

    def __init__(self, place: InnerPlace, terms: Terms) -> None:
        self._calls = place.calls
        self._terms = terms
        self._append: Call | None = None
        self._discarded = False
        self.size = 0
        self.digest = hashlib.sha256()
        call = self._calls.do(
            terms.path,
            "draft",
            place.name,
            f"{HIDDEN}{secrets.token_hex(12)}",
            "fresh" if terms.mode is None else "own",
        )
        target, self._draft, *_ = bytes(call.output).decode("utf-8", "surrogateescape").split("\0")
        self._target = InnerPlace(self._calls, target)
        self._room = call.told("room ")
        try:
            terms.check(next(iter(call.statuses()), None))
        except FileError:
            self.discard()
            raise

    def check_room(self, size: int) -> None:
        """As `Draft.check_room`, as far as ``df`` tells."""
        fields = self._room[0].split() if self._room else []
        if len(fields) <= _AVAILABLE or not fields[_AVAILABLE].isdecimal():
            return
        if size - self.size > int(fields[_AVAILABLE]) * _KIB:
            raise FileError(
                FileProblem.NO_SPACE, f"{self._terms.path!r} does not fit: the disk has less room"
            )

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As `Draft.write`; that it does not fit may come out only at the end."""
        if self._append is None:
            self._append = self._calls.start(self._terms.path, "append", self._draft)
        append, content = self._append, bytes(data)
        self._calls.wait(lambda: append.send(content))
        self.digest.update(content)
        self.size += len(content)

    def _end_appending(self) -> None:
        append, self._append = self._append, None
        if append is not None:
            self._calls.wait(append.finish)

    def go_back(self, size: int, digest: hashlib._Hash) -> None:
        """As `Draft.go_back`."""
        self._end_appending()
        self._calls.do(self._terms.path, "truncate", self._draft, str(size))
        self.size = size
        self.digest = digest

    def publish(self) -> tuple[os.stat_result, bool]:
        """As `Draft.publish`."""
        terms = self._terms
        self._end_appending()
        with _naming:
            existing = self._target.stat()
            terms.check(existing)
            mode = terms.mode
            if mode is None and existing is not None:
                mode = stat.S_IMODE(existing.st_mode) & 0o777
            octal, seconds, rest = metadata(mode, terms.modified)
            overwrite = "1" if terms.overwrite else "0"
            call = self._calls.do(
                terms.path,
                *("publish", self._draft, self._target.name, octal, seconds, rest),
                *(overwrite, str(self.size)),
            )
        self._discarded = True
        return call.statuses()[-1], existing is None

    def discard(self) -> None:
        """As `Draft.discard`."""
        if self._discarded:
            return
        self._discarded = True
        append, self._append = self._append, None
        if append is not None:
            # To its end: it may only just be starting, and would make the file again.
            with suppress(FileError):
                self._calls.wait(append.finish)
        self._calls.do(self._terms.path, "discard", self._draft)


@open_draft.register
def _(place: InnerPlace, terms: Terms, *, unnamed: bool = True) -> Draft:
    """Open a draft in a sandbox, where every draft has a name, whatever `unnamed` says."""
    del unnamed
    return InnerDraft(place, terms)
