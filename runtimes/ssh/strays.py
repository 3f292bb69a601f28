"""Ending what is left of sessions on the remote machine, whoever started it and however."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import structlog
import trio

from relay.endpoint import Channel
from runtimes.ssh.connections import Connections
from runtimes.ssh.errors import SshError
from runtimes.ssh.scripts import command_line, strays

_log = structlog.get_logger()

FORCE_SECONDS = 15.0
"""How long killing may take before what is left is given up."""
ANSWER_SECONDS = 15.0

MAX_OUTPUT_BYTES = 64 * 1024

_FIRST_LOOK = 0.01
_LONGEST_LOOK = 0.2
_MARKS_AT_ONCE = 100


async def run_script(connections: Connections, words: tuple[str, ...]) -> str:
    """Run one of our scripts to its end and return what it says.

    Raises:
      SshError: it could not be run, or says too much.

    Cancellation: its channel is closed.
    """
    try:
        with trio.fail_after(ANSWER_SECONDS):
            with trio.fail_after(ANSWER_SECONDS) as scope:
                # Broken off half-way, the channel would have no owner.
                scope.shield = True
                channel = await connections.open_process(command_line(words))
            output = b""
            try:
                channel.send_eof()
                while piece := await channel.receive(Channel.OUTPUT, MAX_OUTPUT_BYTES):
                    output += piece
                    if len(output) > MAX_OUTPUT_BYTES:
                        raise SshError("the login shell says too much")
                complaint = channel.take(Channel.ERROR, MAX_OUTPUT_BYTES)
            finally:
                channel.discard()
                channel.abort()
    except trio.TooSlowError:
        raise SshError("the SSH server does not answer") from None
    except trio.BrokenResourceError as error:
        raise SshError(str(error)) from error
    if not output:
        said = complaint.decode("utf-8", "replace").strip()[:500]
        raise SshError(said or "the login shell ended without a word (does the account have one?)")
    return output.decode("utf-8", "replace").strip()


async def end_politely(connections: Connections, marks: Sequence[str], seconds: float) -> None:
    """Send TERM to every process that carries one of `marks`, and wait up to `seconds`.

    Raises:
      SshError: the machine cannot be reached.

    Cancellation: safe.
    """
    with trio.move_on_after(seconds):
        pause = _FIRST_LOOK
        left = await _strike(connections, signal.SIGTERM, marks)
        while left:
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK)
            left = await _strike(connections, 0, marks)


async def end_by_force(connections: Connections, marks: Sequence[str]) -> None:
    """Kill every process that carries one of `marks`, until none is left.

    Raises:
      SshError: the machine cannot be reached.

    Cancellation: safe; the caller sets the deadline.
    """
    while await _strike(connections, signal.SIGKILL, marks):  # noqa: ASYNC110 - nobody tells us
        await trio.sleep(_FIRST_LOOK)


async def _strike(connections: Connections, number: int, marks: Sequence[str]) -> int:
    count = 0
    for start in range(0, len(marks), _MARKS_AT_ONCE):
        some = tuple(marks[start : start + _MARKS_AT_ONCE])
        answer = await run_script(connections, strays(int(number), some))
        if not answer.isdecimal():
            raise SshError(f"looking for processes gave {answer[:200]!r}")
        count += int(answer)
    return count
