"""Calling the script of `runtimes.exec_inside.files.script`, from the threads of file operations.

Each call is a process of its own in the sandbox, with the rights of the sandbox's user: nothing on
the host's side touches the sandbox's file system, so nothing can be led outside by a link, and no
right of this server's can be borrowed.  The price is the time that it takes to start one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from relay.carrier import Buffer
from relay.endpoint import Channel
from relay.file_problems import FileProblem
from runtimes.exec_inside.files.script import FILES
from runtimes.exec_inside.process import Exec, ExecError, ExecHost, ExecSpec
from runtimes.exec_inside.scripts import SHELL
from runtimes.files.errors import FileError, of_os_error

STEP_SECONDS = 60.0
"""How long one step may take without a byte coming or going."""

_MAX_TOLD_BYTES = 64 * 1024
_MAX_OUTPUT_BYTES = 64 * 1024
_TELLS = b"\x1e"

_KNOWN = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EBUSY,
    errno.ETXTBSY,
    errno.ELOOP,
    errno.EXDEV,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENAMETOOLONG,
    errno.EINVAL,
)
_COMPLAINTS = {os.strerror(number).lower(): number for number in _KNOWN}

_Result = TypeVar("_Result")


def status_of(text: str) -> os.stat_result:
    """Return what a line of the script says of a file.

    Raises:
      ValueError: it is no such line.
    """
    numbers, _, changed = text.partition("|")
    mode, inode, size, modified, changed_at, *date = numbers.split()
    nanoseconds = int(modified) * 10**9 + _fraction(" ".join(date))
    changed_ns = int(changed_at) * 10**9 + _fraction(changed)
    fields = (int(mode, 16), int(inode), 0, 1, 0, 0, int(size), 0, int(modified), int(changed_at))
    return os.stat_result(fields, {"st_mtime_ns": nanoseconds, "st_ctime_ns": changed_ns})


def _fraction(date: str) -> int:
    """Return the nanoseconds in ``2026-01-31 12:00:00.123456789 +0000``; 0 if it has none."""
    _, dot, rest = date.partition(".")
    digits = rest.split()[0] if dot and rest.split() else "0"
    return int(digits[:9].ljust(9, "0"))


class Call:
    """A process that runs the script.  Its methods are for one task at a time."""

    def __init__(self, running: Exec, path: str) -> None:
        self.output = bytearray()
        self._exec = running
        self._path = path
        self._told = bytearray()
        self._ended = False

    def _take(self, channel: Channel, piece: Buffer) -> None:
        if channel is Channel.OUTPUT:
            self.output += piece
        else:
            self._told += piece[: _MAX_TOLD_BYTES - len(self._told)]

    def told(self, word: str) -> list[str]:
        """Return the rest of each line that begins with `word`."""
        prefix = _TELLS + word.encode()
        complete = self._told[: self._told.rfind(b"\n") + 1]
        lines = [line for line in complete.splitlines() if line.startswith(prefix)]
        return [line[len(prefix) :].strip().decode("utf-8", "replace") for line in lines]

    def statuses(self) -> list[os.stat_result]:
        """Return what was told of files so far."""
        try:
            return [status_of(line) for line in self.told("status ")]
        except (ValueError, IndexError) as error:
            raise self._failed(f"stat gave nothing sensible: {error}") from error

    async def more(self) -> bool:
        """Wait for something to come; False at the end.  What came is in `output` and `told`."""
        if self._ended:
            return False
        try:
            with trio.fail_after(STEP_SECONDS):
                pieces = await self._exec.receive()
        except (trio.TooSlowError, trio.BrokenResourceError) as error:
            raise self._failed(f"the sandbox does not answer: {error}") from error
        for channel, piece in pieces:
            self._take(channel, piece)
        self._ended = not pieces
        return not self._ended

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Write to its input; what it says meanwhile is read."""
        try:
            with trio.fail_after(STEP_SECONDS):
                await self._exec.send(data)
        except (trio.TooSlowError, trio.BrokenResourceError) as error:
            raise self._failed("the sandbox takes no more") from error

    async def finish(self, limit: int = _MAX_OUTPUT_BYTES) -> None:
        """End its input, wait for its end, close.  Raises: FileError: it failed."""
        try:
            await self._exec.send_eof()
            while await self.more():
                if len(self.output) > limit:
                    raise self._failed("more came than can be")
            await self.check()
        finally:
            await self.aclose()

    async def check(self) -> None:
        """Find out whether it did what it was asked for, once it has ended.  Raises: FileError."""
        for word in self.told("error "):
            raise self._refused(word)
        try:
            code = await self._exec.exit_code()
        except ExecError as error:
            raise self._failed(str(error)) from error
        if code:
            raise self._complaint()

    def _refused(self, word: str) -> FileError:
        try:
            problem = FileProblem(word)
        except ValueError:
            return self._failed(word)
        return FileError(problem, f"{self._path!r}: {problem.value.replace('_', ' ')}")

    def _complaint(self) -> FileError:
        text = self._told.decode("utf-8", "replace").strip()
        for words, number in _COMPLAINTS.items():
            if words in text.lower():
                return of_os_error(OSError(number, os.strerror(number)), self._path)
        if "not found" in text:
            text = f"the image lacks a program: {text}"
        return self._failed(text or "it does not say why")

    def _failed(self, why: str) -> FileError:
        return FileError(FileProblem.FAILED, f"{self._path!r} failed: {why[:500]}")

    async def aclose(self) -> None:
        """Let go of the process."""
        await self._exec.aclose()


class Calls:
    """Calls in one sandbox.  Methods block, and are for threads that Trio has started."""

    def __init__(self, host: ExecHost) -> None:
        self._host = host

    def wait(self, step: Callable[[], Awaitable[_Result]]) -> _Result:
        """Let the event loop do a step, whole: a step that is cut short leaves things half done."""

        async def do() -> _Result:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * STEP_SECONDS):
                return await step()
            raise FileError(FileProblem.FAILED, "the sandbox does not answer")

        return trio.from_thread.run(do)

    def start(self, path: str, verb: str, *arguments: str) -> Call:
        """Start the script; `path` is what messages speak of.  Raises: FileError."""
        for argument in arguments:
            if "\0" in argument or _has_surrogates(argument):
                raise FileError(FileProblem.INVALID, f"{path!r} is no name that can be passed on")
        spec = ExecSpec((SHELL, "-c", FILES, "trunkline", verb, *arguments), {})

        async def start() -> Call:
            try:
                return Call(await self._host.start(spec), path)
            except ExecError as error:
                raise FileError(FileProblem.FAILED, f"{path!r} failed: {error}") from error

        return self.wait(start)

    def do(self, path: str, verb: str, *arguments: str) -> Call:
        """Run the script to its end.  Raises: FileError: it failed."""
        call = self.start(path, verb, *arguments)
        self.wait(call.finish)
        return call


def _has_surrogates(text: str) -> bool:
    return any(0xD800 <= ord(character) <= 0xDFFF for character in text)
