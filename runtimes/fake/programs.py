"""Little programs: state machines that do what they can and say when they have ended.

They go by the names of the real ones and behave like them as far as they go, so that the same
command line works in every runtime.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from relay.endpoint import Channel, ExitStatus
from runtimes.fake.streams import Streams

# signal(7): default action "ignore", and the job control we don't play.
_HARMLESS = frozenset({"CHLD", "CONT", "URG", "WINCH", "STOP", "TSTP", "TTIN", "TTOU"})

_LINES_PER_PIECE = 1000
_LONGEST_NAME = 100  # that is repeated in a complaint


@dataclass(frozen=True, slots=True)
class Invocation:
    """How a program is called.  `output` is where its standard output goes."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    streams: Streams
    output: Channel = Channel.OUTPUT


class Program(ABC):
    """A running program."""

    wake_at: float | None = None
    """The time (of the Trio clock) at which `advance` has something to do, if it knows one."""

    @abstractmethod
    def advance(self, now: float) -> ExitStatus | None:
        """Do all that can be done now; return how the program ended, once it has."""

    def signal(self, name: str) -> ExitStatus | None:
        """Take a signal; return how the program ended if that ended it."""
        return None if name in _HARMLESS else ExitStatus(signal=name)


class Print(Program):
    """Writes pieces, as fast as there is room, and ends."""

    def __init__(self, call: Invocation, pieces: Iterable[str], code: int = 0) -> None:
        self._streams = call.streams
        self._channel = call.output
        self._pieces = iter(pieces)
        self._pending = b""
        self._code = code

    def advance(self, now: float) -> ExitStatus | None:
        """As `Program.advance`."""
        while room := self._streams.room(self._channel):
            if not self._pending:
                piece = next(self._pieces, None)
                if piece is None:
                    return ExitStatus(code=self._code)
                self._pending = piece.encode(errors="surrogateescape")
            self._streams.write(self._pending[:room], self._channel)
            self._pending = self._pending[room:]
        return None


class Copy(Program):
    """Writes what it reads, until the input ends or `limit` bytes have passed."""

    def __init__(self, call: Invocation, limit: int | None = None) -> None:
        self._streams = call.streams
        self._channel = call.output
        self._left = limit

    def advance(self, now: float) -> ExitStatus | None:
        """As `Program.advance`."""
        streams = self._streams
        while streams.input and self._left != 0:
            count = min(len(streams.input), streams.room(self._channel))
            if self._left is not None:
                count = min(count, self._left)
                self._left -= count
            if not count:
                return None
            streams.write(bytes(streams.input[:count]), self._channel)
            del streams.input[:count]
        return ExitStatus(code=0) if streams.input_ended or self._left == 0 else None


class Sleep(Program):
    """Does nothing for a number of seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def advance(self, now: float) -> ExitStatus | None:
        """As `Program.advance`."""
        if self.wake_at is None:
            self.wake_at = now + self._seconds
        return ExitStatus(code=0) if now >= self.wake_at else None


def complain(call: Invocation, text: str, code: int = 2) -> Program:
    """Return a program that says `text` on standard error and fails."""
    loud = Invocation(call.arguments, call.environment, call.directory, call.streams, Channel.ERROR)
    return Print(loud, [f"{call.arguments[0][:_LONGEST_NAME]}: {text}\n"], code)


def _echo(call: Invocation) -> Program:
    return Print(call, [" ".join(call.arguments[1:]) + "\n"])


def _yes(call: Invocation) -> Program:
    line = " ".join(call.arguments[1:] or ("y",)) + "\n"
    return Print(call, itertools.repeat(line * _LINES_PER_PIECE))


def _seq(call: Invocation) -> Program:
    first, last = (1, *map(int, call.arguments[1:]))[-2:]
    starts = range(first, last + 1, _LINES_PER_PIECE)
    return Print(
        call,
        (
            "".join(f"{n}\n" for n in range(start, min(start + _LINES_PER_PIECE, last + 1)))
            for start in starts
        ),
    )


def _head(call: Invocation) -> Program:
    option, count = call.arguments[1:]
    if option != "-c":
        raise ValueError("only -c is known")
    return Copy(call, int(count))


def _sleep(call: Invocation) -> Program:
    (seconds,) = call.arguments[1:]
    return Sleep(float(seconds))


def _printenv(call: Invocation) -> Program:
    (name,) = call.arguments[1:]
    value = call.environment.get(name)
    return Print(call, [] if value is None else [f"{value}\n"], code=int(value is None))


def _stty(call: Invocation) -> Program:
    size = call.streams.size
    if size is None:
        return complain(call, "standard input is not a terminal", 1)
    match call.arguments[1:]:
        case ("size",):
            return Print(call, [f"{size.rows} {size.columns}\n"])
        case ("raw", "-echo"):
            call.streams.raw = True
        case ("sane",):
            call.streams.raw = False
        case _:
            raise ValueError("size, `raw -echo` and sane are known")
    return Print(call, [])


def _exit(call: Invocation) -> Program:
    (code,) = (*call.arguments[1:], "0")[:1]
    return Print(call, [], int(code) & 0xFF)


PROGRAMS: Mapping[str, Callable[[Invocation], Program]] = {
    "cat": Copy,
    "echo": _echo,
    "exit": _exit,
    "false": lambda call: Print(call, [], 1),
    "head": _head,
    "printenv": _printenv,
    "pwd": lambda call: Print(call, [f"{call.directory}\n"]),
    "seq": _seq,
    "sleep": _sleep,
    "stty": _stty,
    "true": lambda call: Print(call, []),
    "yes": _yes,
}


def run(call: Invocation) -> Program:
    """Return the running program that `call` names; bad arguments make one that complains.

    Raises:
      KeyError: there is no such program.
    """
    make = PROGRAMS[call.arguments[0]]
    try:
        return make(call)
    except ValueError as error:
        return complain(call, f"bad arguments: {error}")
