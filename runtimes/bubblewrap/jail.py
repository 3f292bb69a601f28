"""A running bwrap with the init of one sandbox in it: its start and its end."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from contextlib import ExitStack

import structlog
import trio

from runtimes.base import SandboxError
from runtimes.cgroups import CannotEnforce, ControlGroup

_log = structlog.get_logger()

_MOST_COMPLAINTS = 4096
_WAIT_SECONDS = 10.0
_GIVING_UP_SECONDS = 0.2

END_SECONDS = 5.0
"""How long the kernel may take to end everything inside, before what is left is logged."""


class Jail:
    """bwrap, and the first process of the sandbox.  Made by `start_jail`."""

    def __init__(self, popen: subprocess.Popen[bytes], complaints: int) -> None:
        self._popen = popen
        self._complaints = complaints
        self._pidfd = os.pidfd_open(popen.pid)
        self._first = -1
        self._last_words = ""
        self.first_pid = 0
        """The pid of the sandbox's first process, as the server sees it."""

    def found(self, pid: int) -> None:
        """Take note of the first process."""
        self._first = os.pidfd_open(pid)
        self.first_pid = pid

    def complaints(self) -> str:
        """Return what bwrap and the init have written about their troubles."""
        if self._complaints < 0:
            return self._last_words
        return os.pread(self._complaints, _MOST_COMPLAINTS, 0).decode(errors="replace").strip()

    async def end(self) -> None:
        """Kill everything inside and wait until the kernel is done with it.

        Cancellation: it is waited for all the same, at most `END_SECONDS`.
        """
        with trio.move_on_after(END_SECONDS, shield=True) as scope:
            # The kernel kills everything in the namespace of a first process that has ended, and
            # only then lets its parent, bwrap, know.
            if self._first >= 0:
                _kill(self._first)
            else:
                _kill(self._pidfd)
            await trio.lowlevel.wait_readable(self._pidfd)
        if scope.cancelled_caught:
            _log.warning("sandbox_survived_sigkill", pid=self._popen.pid)
            _kill(self._pidfd)
        else:
            self._popen.wait()
        self._last_words = self.complaints()
        for fd in (self._first, self._pidfd, self._complaints):
            if fd >= 0:
                os.close(fd)
        self._complaints = -1

    async def ended(self) -> None:
        """Wait until bwrap has ended.  Cancellation: safe."""
        await trio.lowlevel.wait_readable(self._pidfd)


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return


async def start_jail(
    command: list[str],
    *,
    inherited: tuple[int, ...],
    info: int,
    release: int,
    group: ControlGroup,
) -> Jail:
    """Run bwrap, and put its first process into `group` before that runs anything.

    `inherited` are the descriptors for bwrap; `info` and `release` our ends of the pipes for which
    its options are ``--info-fd`` and ``--block-fd``; `inherited` and `release` are closed here.

    Raises:
      SandboxError: it could not be started, and why; nothing is left behind.

    Cancellation: nothing is left behind.
    """
    with ExitStack() as stack:
        stack.callback(os.close, release)
        complaints = os.memfd_create("complaints")
        try:
            with ExitStack() as theirs:
                for fd in inherited:
                    theirs.callback(os.close, fd)
                # In this thread, which lives as long as the server: what dies with its parent dies
                # with the *thread* that started it (prctl(2), PR_SET_PDEATHSIG).
                popen = subprocess.Popen(  # noqa: S603, ASYNC220 - some milliseconds
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                    pass_fds=inherited,
                    env={},
                    cwd="/",
                )
        except OSError as error:
            os.close(complaints)
            raise SandboxError(f"bwrap can't be started: {error.strerror}") from error
        try:
            jail = Jail(popen, complaints)
        except BaseException:
            popen.kill()
            popen.wait()
            os.close(complaints)
            raise
        try:
            # Some milliseconds, seen through: a first process whose bwrap is killed before the two
            # have spoken would wait for it for ever, and only its pid tells which one it is.
            with trio.fail_after(_WAIT_SECONDS) as scope:
                scope.shield = True
                jail.found(await _child_pid(info))
            await trio.lowlevel.checkpoint_if_cancelled()
            await trio.to_thread.run_sync(group.add, jail.first_pid)
            os.write(release, b"x")
        except BaseException as error:
            try:
                with trio.move_on_after(_GIVING_UP_SECONDS):
                    await jail.ended()  # what gives up by itself says why
            finally:
                await jail.end()
            if isinstance(error, CannotEnforce):
                raise SandboxError(str(error)) from error
            if isinstance(error, (OSError, ValueError, TypeError, KeyError, trio.TooSlowError)):
                reason = jail.complaints() or str(error) or "bwrap does not answer"
                raise SandboxError(f"the sandbox could not be made: {reason}") from error
            raise
        return jail


async def _child_pid(info: int) -> int:
    """Read what bwrap tells about itself."""
    os.set_blocking(info, False)
    text = b""
    while b"}" not in text:
        await trio.lowlevel.wait_readable(info)
        piece = os.read(info, 4096)
        if not piece:
            raise OSError(errno.EPIPE, "bwrap gave up")
        text += piece
    pid = json.loads(text)["child-pid"]
    if not isinstance(pid, int):
        raise TypeError("child-pid")
    return pid
