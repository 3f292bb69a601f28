"""Runs the asynchronous part of a command and turns what goes wrong into words and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import click
import trio

from relay.errors import AttachmentClosed, AttachRefused, InputUncertain
from relay.file_stream import FileFailed
from relay.protocol.reasons import CloseReason, Refusal
from trunkline.cli.attached import SIGNAL_EXIT_BASE, Detached, Interrupted
from trunkline.sdk.errors import ApiError, TrunklineError

_Result = TypeVar("_Result")

FAILED = 1
NOT_STARTED = 127
"""The command cannot be run there; as a shell shows it where there is none."""
LOST = 74
"""The connection could not be kept (EX_IOERR of sysexits.h)."""
BROKEN_PIPE = 141
"""128 and SIGPIPE, as a shell shows it."""

KNOWN = (
    Detached,
    Interrupted,
    BrokenPipeError,
    AttachRefused,
    AttachmentClosed,
    InputUncertain,
    FileFailed,
    TrunklineError,
)
"""Errors that may come together, the one to tell of first."""

ADVICE = {
    Refusal.BUSY: "add --view to watch, or --takeover to take it over",
    Refusal.NOT_FOUND: "'trunkline attach' without --view starts it",
    Refusal.GONE: "attach again",
}


def run(main: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run `main` under Trio; known errors end the program with a message and a code."""
    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        _fail(_first(group))
    except Exception as error:  # noqa: BLE001 - unknown ones are raised again
        _fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to tell of: a known one if there is one."""
    errors = list(_leaves(group))
    for kind in KNOWN:
        for error in errors:
            if isinstance(error, kind):
                return error
    return errors[0] if len(errors) == 1 else group


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


def _fail(error: BaseException) -> NoReturn:
    match error:
        case Detached():
            sys.exit(0)
        case Interrupted(number=number):
            sys.exit(SIGNAL_EXIT_BASE + number)
        case KeyboardInterrupt():
            sys.exit(130)
        case BrokenPipeError():
            sys.exit(BROKEN_PIPE)
        case AttachRefused(code=code):
            advice = ADVICE.get(code)
            _say(f"{error}{'; ' + advice if advice else ''}")
            sys.exit(NOT_STARTED if code is Refusal.START_FAILED else FAILED)
        case AttachmentClosed(reason=CloseReason.CONNECTION_LOST):
            _say(f"gave up: {error}")
            sys.exit(LOST)
        case AttachmentClosed(reason=reason):
            _say(f"closed ({reason}): {error}" if error.args[0] != reason else f"closed: {reason}")
            sys.exit(FAILED)
        case ApiError(status=401):
            _say(f"not let in: {error}")
            sys.exit(FAILED)
        case InputUncertain() | FileFailed() | TrunklineError():
            _say(str(error))
            sys.exit(FAILED)
        case _:
            raise error


def _say(message: str) -> None:
    click.secho(f"trunkline: {message}", err=True)
