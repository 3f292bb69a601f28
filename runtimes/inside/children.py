"""Starting processes, finding them, and telling how they ended; from within a sandbox."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Iterator, Mapping, Sequence

# asm-generic/termbits.h; `termios` has no name for it.  Backspace erases a whole UTF-8 character.
_IUTF8 = 0o40000

# Linux gives a pipe 64 KiB.
_OUTPUT_PIPE_BYTES = 256 * 1024

# When the memory of a sandbox is used up, this makes the kernel choose its processes, not the init.
_OOM_SCORE = b"500"

_CANNOT_RUN = 127


class CannotStart(Exception):
    """The system refused; the message says why."""


def start_on_terminal(
    executable: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    directory: str,
    columns: int,
    rows: int,
) -> tuple[int, list[int]]:
    """Run a command on a new terminal; return its pid and the master.

    Raises:
      CannotStart: the system refused.
    """
    try:
        master, slave = os.openpty()
    except OSError as error:
        raise CannotStart(f"no terminal can be opened: {error.strerror}") from error
    try:
        attributes = termios.tcgetattr(slave)
        attributes[0] |= _IUTF8
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        child = _Child(executable, arguments, environment, directory, (slave,) * 3, terminal=True)
        return child.start(), [master]
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)


def start_on_pipes(
    executable: str, arguments: Sequence[str], environment: Mapping[str, str], directory: str
) -> tuple[int, list[int]]:
    """Run a command on three new pipes; return its pid, and our ends in the order 0, 1, 2.

    Raises:
      CannotStart: the system refused.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        mine: list[int] = []
        its: list[int] = []
        try:
            for reads in (True, False, False):  # whether the child reads
                reader, writer = os.pipe()
                ours.callback(os.close, writer if reads else reader)
                theirs.callback(os.close, reader if reads else writer)
                mine.append(writer if reads else reader)
                its.append(reader if reads else writer)
        except OSError as error:
            raise CannotStart(f"no pipe can be opened: {error.strerror}") from error
        with contextlib.suppress(OSError):  # the user's share is used up: 64 KiB will do
            fcntl.fcntl(mine[1], 1031, _OUTPUT_PIPE_BYTES)  # F_SETPIPE_SZ, since Python 3.10
        child = _Child(executable, arguments, environment, directory, tuple(its), terminal=False)
        pid = child.start()
        ours.pop_all()
        return pid, mine


class _Child:
    """A process about to be started, as the leader of a session."""

    def __init__(
        self,
        executable: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: str,
        descriptors: tuple[int, ...],
        *,
        terminal: bool,
    ) -> None:
        self._executable = executable
        self._arguments = list(arguments)
        self._environment = dict(environment)
        self._directory = directory
        self._descriptors = descriptors
        self._terminal = terminal

    def start(self) -> int:
        """Fork, and return the pid once the command has taken over.

        Raises:
          CannotStart: it could not.
        """
        try:
            reader, writer = os.pipe()
        except OSError as error:
            raise CannotStart(f"it can't be started: {error.strerror}") from error
        try:
            pid = os.fork()
        except OSError as error:
            os.close(reader)
            os.close(writer)
            raise CannotStart(f"no further process can be started: {error.strerror}") from error
        if pid == 0:
            self._become(writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as report:
            problem = report.read()  # ends with the exec
        if problem:
            os.waitpid(pid, 0)
            raise CannotStart(problem.decode(errors="replace"))
        return pid

    def _become(self, report: int) -> None:
        """Be the command.  This process has one thread, so Python may run after the fork."""
        try:
            os.setsid()
            if self._terminal:
                fcntl.ioctl(self._descriptors[0], termios.TIOCSCTTY, 0)
            for number, descriptor in enumerate(self._descriptors):
                os.dup2(descriptor, number)
            _default_signals()
            os.umask(0o022)
            allow_inspection()
            with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb") as score:  # noqa: PTH123
                score.write(_OOM_SCORE)
            os.chdir(self._directory)
            os.execve(self._executable, self._arguments, self._environment)  # noqa: S606
        except OSError as error:
            os.write(report, f"{self._arguments[0]} can't be started: {error.strerror}".encode())
        except BaseException as error:  # noqa: BLE001 - nothing may return from here
            os.write(report, f"{self._arguments[0]} can't be started: {error!r}".encode())
        finally:
            os._exit(_CANNOT_RUN)


def _default_signals() -> None:
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


_PR_SET_DUMPABLE = 4


def forbid_inspection() -> None:
    """Keep other processes of this user from reading or changing this one (ptrace, /proc)."""
    _set_dumpable(0)


def allow_inspection() -> None:
    """Undo `forbid_inspection`."""
    _set_dumpable(1)


def _set_dumpable(value: int) -> None:
    try:
        import ctypes
    except ImportError:  # a Python without it: one more wall is missing, not the house
        return
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, value, 0, 0, 0)


def living(session: int | None) -> Iterator[int]:
    """Yield the processes that live, of one session or all, but for this one."""
    own = os.getpid()
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is wanted
        if not name.isdigit() or int(name) == own:
            continue
        fields = _stat(name)
        # state, ppid, pgrp, session, ..., num_threads: proc(5), counted from the state
        if len(fields) <= 17 or (session is not None and int(fields[3]) != session):
            continue
        # A leader thread may be gone while other threads of the process go on.
        if fields[0] not in b"ZX" or int(fields[17]) > 1:
            yield int(name)


def zombies_of_nobody(known: Mapping[int, bool]) -> Iterator[int]:
    """Yield the ended children of this process that it did not start itself."""
    own = os.getpid()
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is wanted
        if name.isdigit() and int(name) not in known:
            fields = _stat(name)
            if len(fields) > 1 and fields[0] == b"Z" and int(fields[1]) == own:
                yield int(name)


def _stat(pid: str) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            stat = file.read()
    except OSError:
        return []
    # The name is in parentheses and may hold anything, parentheses and blanks included.
    return stat[stat.rfind(b")") + 2 :].split()
