"""Starting a process in a container, up to the point where it is known to run."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from relay.endpoint import Channel, StartError
from runtimes.container.engine import Engine, Exec, ExecSpec
from runtimes.container.errors import EngineError
from runtimes.container.multiplex import Demultiplexer, MultiplexError
from runtimes.container.scripts import MAX_REPORT_BYTES, Report, find_report

_READ_BYTES = 16 * 1024
_SHOWN = 500
"""Characters of what came instead of a report that are shown."""


@dataclass(slots=True)
class Opened:
    """A process that runs; `early` is output that has come with its report."""

    exec_: Exec
    pid: int
    demultiplexer: Demultiplexer
    early: dict[Channel, bytes]


class NotStarted(Exception):
    """LAUNCH refused; `word` says why (`runtimes.container.scripts.refusal`)."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


async def open_process(engine: Engine, container: str, spec: ExecSpec) -> Opened:
    """Start a process whose command is LAUNCH.

    Raises:
      NotStarted: the script refused.
      StartError: the engine did, or something else came.

    Cancellation: its connection is closed, but it may have been started.
    """
    try:
        running = await engine.start_exec(container, spec)
    except EngineError as error:
        raise StartError(f"the container engine did not start it: {error}") from error
    try:
        opened = await _await_report(running, is_terminal=spec.terminal)
    except BaseException:
        await trio.aclose_forcefully(running.stream)
        raise
    return opened


async def _await_report(running: Exec, *, is_terminal: bool) -> Opened:
    demultiplexer = Demultiplexer()
    output, heard = bytearray(), bytearray()
    data = running.early
    try:
        while True:
            if is_terminal:
                heard += data
            else:
                for channel, piece in demultiplexer.feed(data):
                    if channel is Channel.ERROR:
                        heard += piece
                    else:
                        output += piece
            report = find_report(bytes(heard))
            if report is not None:
                break
            if len(heard) + len(output) > MAX_REPORT_BYTES:
                raise StartError(f"it did not start; instead of it came {_shown(heard or output)}")
            data = bytes(await running.stream.receive_some(_READ_BYTES))
            if not data:
                raise StartError(f"it did not start: {_shown(heard + output)}")
    except (trio.BrokenResourceError, MultiplexError) as error:
        raise StartError(f"it did not start: {error}") from error
    return _judge(running, report, demultiplexer, bytes(output), is_terminal=is_terminal)


def _judge(
    running: Exec, report: Report, demultiplexer: Demultiplexer, output: bytes, *, is_terminal: bool
) -> Opened:
    if report.word != "pid":
        raise NotStarted(report.word)
    early = {Channel.OUTPUT if is_terminal else Channel.ERROR: report.rest}
    if not is_terminal:
        early[Channel.OUTPUT] = output
    return Opened(running, report.pid, demultiplexer, early)


def _shown(data: bytearray) -> str:
    text = data.decode("utf-8", "replace").strip()[:_SHOWN]
    return text or "the engine ended the connection without a word (has the image a /bin/sh?)"
