"""Connects an attachment with the user's own terminal or pipes, until either ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import trio

from relay.client import TrunkState, TrunkStatus
from relay.client_attachment import ClientAttachment
from relay.endpoint import Channel, ExitStatus, TerminalSize
from relay.grant import Mode
from relay.inbox import Missed, ScreenOutput
from relay.replay_filter import ReplayFilter
from trunkline.cli.terminal import (
    Descriptor,
    ModeTracker,
    RawTerminal,
    fresh_screen,
    standard_streams,
    terminal_size,
)

DETACH_KEY = b"\x1d"
"""Ctrl-]"""
SIGNAL_EXIT_BASE = 128
"""Added to the number of the signal that ended a process, as shells do."""


class Detached(Exception):
    """The user pressed the detach key."""


class Interrupted(Exception):
    """The user, or the system, wants this program to end, whatever becomes of the command."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


def exit_code(status: ExitStatus) -> int:
    """Return `status` as a shell would show it in ``$?``."""
    if status.code is not None:
        return status.code
    try:
        return SIGNAL_EXIT_BASE + signal.Signals[f"SIG{status.signal}"].value
    except KeyError:
        return 255


@dataclass(slots=True)
class Notices:
    """Tells the user of trouble with the connection, once per change, on standard error."""

    write: Callable[[str], None]
    troubled: bool = False

    def __call__(self, status: TrunkStatus) -> None:
        """Take note of a change."""
        if status.state is TrunkState.WAITING and not self.troubled:
            self.troubled = True
            self.write(f"connection lost ({status.reason}); reconnecting")
        elif status.state is TrunkState.CONNECTED and self.troubled:
            self.troubled = False
            self.write("connected again")


async def run_terminal(
    attachment: ClientAttachment, *, interactive: bool, tell: Callable[[str], None]
) -> ExitStatus:
    """Let the user work in a terminal stream.

    `tell` tells the user something on standard error.  Returns the exit status of its process.

    Raises:
      Detached: the user pressed Ctrl-].
      Interrupted: SIGTERM came, or SIGHUP because the terminal is gone.
      AttachmentClosed and the like: the attachment is over.
    """
    with standard_streams() as (stdin, stdout, _stderr), RawTerminal(stdin):
        modes = ModeTracker()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_leave_on_signal)
                if interactive:
                    nursery.start_soon(_type, attachment, stdin)
                    nursery.start_soon(_follow_size, attachment, stdout)
                await _show(attachment, stdout, modes, tell)
                nursery.cancel_scope.cancel()
            return await attachment.wait()
        finally:
            undo = modes.reset()
            if undo and stdout.is_terminal:
                with trio.move_on_after(1, shield=True), suppress(BrokenPipeError):
                    await stdout.write_all(undo)


async def _show(
    attachment: ClientAttachment,
    stdout: Descriptor,
    modes: ModeTracker,
    tell: Callable[[str], None],
) -> None:
    questions = ReplayFilter()
    replaying = True
    while (item := await attachment.receive()) is not None:
        if isinstance(item, Missed):
            if not item.screen:
                note = b"\r\n[trunkline: %d bytes missed]\r\n" % (item.to - item.start)
                await stdout.write_all(note)
            continue
        data = item.data
        if isinstance(item, ScreenOutput):
            size = terminal_size(stdout)
            if size is not None and attachment.options.mode is Mode.VIEW:
                _compare_sizes(item.size, size, tell)
            data = modes.reset() + fresh_screen(size) + data
        elif item.replay:
            data = questions.feed(data)
        elif replaying:
            replaying = False
            data = questions.flush() + data
        modes.feed(data)
        await stdout.write_all(data)


def _compare_sizes(theirs: TerminalSize, ours: TerminalSize, tell: Callable[[str], None]) -> None:
    """Tell a viewer whose terminal is too small; who is in control has the other's size follow."""
    if theirs.columns > ours.columns or theirs.rows > ours.rows:
        tell(
            f"this is drawn for {theirs.columns}x{theirs.rows}, and your terminal has"
            f" {ours.columns}x{ours.rows}: make it larger to see everything in its place"
        )


async def _type(attachment: ClientAttachment, stdin: Descriptor) -> None:
    is_viewer = attachment.options.mode is Mode.VIEW
    while data := await stdin.read():
        before, detach, _ = data.partition(DETACH_KEY)
        wants_to_leave = bool(detach) and stdin.is_terminal
        if not is_viewer:
            try:
                await attachment.send(before if wants_to_leave else data)
            except trio.BrokenResourceError:
                is_viewer = True  # the process has ended; what it still has to say is being shown
        if wants_to_leave:
            raise Detached


async def _leave_on_signal() -> None:
    """End by an exception where the signal alone would leave the terminal as it is."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            raise Interrupted(signal.Signals(number))


async def _follow_size(attachment: ClientAttachment, stdout: Descriptor) -> None:
    with trio.open_signal_receiver(signal.SIGWINCH) as changes:
        async for _ in changes:
            size = terminal_size(stdout)
            if size is not None:
                attachment.resize(size)


async def run_piped(attachment: ClientAttachment, tell: Callable[[str], None]) -> ExitStatus:
    """Connect an exec stream with standard input, output and error.

    `tell` tells the user something on standard error.

    SIGINT and SIGTERM are passed on to the process; a second SIGINT kills it.

    Raises:
      Interrupted: a third signal came, or a second one while there was no connection.
      BrokenPipeError: nobody reads our output any more; the process was sent SIGPIPE.
      AttachmentClosed and the like: the attachment is over.
    """
    with standard_streams() as (stdin, stdout, stderr):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_feed, attachment, stdin)
            nursery.start_soon(_pass_signals_on, attachment, tell)
            async with trio.open_nursery() as outputs:
                outputs.start_soon(_copy, attachment, Channel.OUTPUT, stdout)
                outputs.start_soon(_copy, attachment, Channel.ERROR, stderr)
            status = await attachment.wait()
            nursery.cancel_scope.cancel()
        return status


async def _feed(attachment: ClientAttachment, stdin: Descriptor) -> None:
    try:
        while data := await stdin.read():
            await attachment.send(data)
    except trio.BrokenResourceError:
        return  # the process wants no more; its exit status tells the rest
    attachment.send_eof()


async def _copy(attachment: ClientAttachment, channel: Channel, target: Descriptor) -> None:
    try:
        while (item := await attachment.receive(channel)) is not None:
            if isinstance(item, Missed):
                continue  # only where the stream was started with drop_oldest
            await target.write_all(item.data)
    except BrokenPipeError:
        attachment.send_signal("PIPE")
        raise


async def _pass_signals_on(attachment: ClientAttachment, tell: Callable[[str], None]) -> None:
    """Pass signals on to the process; one who goes on sending them wants to get away.

    Raises:
      Interrupted: a third signal came, or a second one while there was no connection.
    """
    count = 0
    interrupted = False
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for received in signals:
            number = signal.Signals(received)
            count += 1
            is_bound = attachment.statistics().bound
            if count > 2 or (count > 1 and not is_bound):
                raise Interrupted(number)
            if not is_bound:
                tell(f"{number.name} is passed on after reconnecting; once more gives up")
            if number is signal.SIGINT and interrupted:
                attachment.send_signal("KILL")
            else:
                attachment.send_signal(number.name.removeprefix("SIG"))
            interrupted = interrupted or number is signal.SIGINT
