"""Starting a process in a sandbox, up to the point where it is known to run."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from relay.endpoint import Channel, StartError
from runtimes.exec_inside.process import Exec, ExecError, ExecHost, ExecSpec
from runtimes.exec_inside.scripts import MAX_REPORT_BYTES, Report, find_report

MAX_EARLY_BYTES = 4 * 1024 * 1024
"""How much output may overtake the report, which comes on another channel."""

_SHOWN = 500
"""Characters of what came instead of a report that are shown."""


@dataclass(slots=True)
class Opened:
    """A process that runs; `early` is output that has come with its report."""

    exec_: Exec
    pid: int
    early: dict[Channel, bytes]


class NotStarted(Exception):
    """LAUNCH refused; `word` says why (`runtimes.exec_inside.scripts.refusal`)."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


async def open_process(host: ExecHost, spec: ExecSpec) -> Opened:
    """Start a process whose command is LAUNCH.

    Raises:
      NotStarted: the script refused.
      StartError: who runs processes did, or something else came.

    Cancellation: its connection is closed, but it may have been started.
    """
    try:
        running = await host.start(spec)
    except ExecError as error:
        raise StartError(f"it was not started: {error}") from error
    try:
        opened = await _await_report(running, is_terminal=spec.terminal)
    except BaseException:
        await running.aclose()
        raise
    return opened


async def _await_report(running: Exec, *, is_terminal: bool) -> Opened:
    listened = Channel.OUTPUT if is_terminal else Channel.ERROR
    came = {Channel.OUTPUT: bytearray(), Channel.ERROR: bytearray()}
    heard = came[listened]
    try:
        while (report := find_report(bytes(heard))) is None:
            if len(heard) > MAX_REPORT_BYTES or sum(map(len, came.values())) > MAX_EARLY_BYTES:
                what = _shown(heard or came[Channel.OUTPUT])
                raise StartError(f"it did not start; instead of it came {what}")
            pieces = await running.receive()
            if not pieces:
                raise StartError(f"it did not start: {_shown(heard + came[Channel.OUTPUT])}")
            for channel, piece in pieces:
                came[channel] += piece
    except trio.BrokenResourceError as error:
        raise StartError(f"it did not start: {error}") from error
    return _judge(running, report, bytes(came[Channel.OUTPUT]), is_terminal=is_terminal)


def _judge(running: Exec, report: Report, output: bytes, *, is_terminal: bool) -> Opened:
    if report.word != "pid":
        raise NotStarted(report.word)
    if is_terminal:
        return Opened(running, report.pid, {Channel.OUTPUT: report.rest})
    early = {Channel.OUTPUT: output, Channel.ERROR: report.rest}
    return Opened(running, report.pid, early)


def _shown(data: bytearray) -> str:
    text = data.decode("utf-8", "replace").strip()[:_SHOWN]
    return text or "the connection ended without a word (has the image a /bin/sh?)"
