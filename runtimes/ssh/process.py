"""Processes on the remote machine, for `runtimes.exec_inside`."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, TerminalSize
from runtimes.exec_inside.process import Exec, ExecHost, ExecSpec
from runtimes.signals import signal_number
from runtimes.ssh.channel import RemoteChannel
from runtimes.ssh.connections import Connections
from runtimes.ssh.errors import SshError
from runtimes.ssh.scripts import command_line, environment_words

START_SECONDS = 30.0
"""How long the server may take to start a process; it is not broken off half-way."""
STATUS_SECONDS = 10.0
"""How long the exit status may come after the end of the output."""

_PIECE_BYTES = 64 * 1024
_SIGNALLED = 128
_DEFAULT_TERM = "dumb"


class SshExec(Exec):
    """A process; owns `channel`."""

    def __init__(self, channel: RemoteChannel) -> None:
        self.channel = channel

    async def receive(self) -> Sequence[tuple[Channel, Buffer]]:
        """As `Exec.receive`."""
        await trio.lowlevel.checkpoint()
        while True:
            pieces = [
                (channel, piece)
                for channel in (Channel.OUTPUT, Channel.ERROR)
                if (piece := self.channel.take(channel, _PIECE_BYTES))
            ]
            if pieces or self.channel.output_ended:
                break
            await self.channel.wait_for_news()
        if not pieces and self.channel.loss is not None:
            raise trio.BrokenResourceError(self.channel.loss)
        return pieces

    async def send(self, data: Buffer) -> None:
        """As `Exec.send`."""
        await self.channel.send(data)

    async def send_eof(self) -> None:
        """As `Exec.send_eof`."""
        await trio.lowlevel.checkpoint()
        self.channel.send_eof()

    async def exit_code(self) -> int | None:
        """As `Exec.exit_code`: it comes soon after the end of the output, if not before."""
        with trio.move_on_after(STATUS_SECONDS):
            await self.channel.wait_exited()
        status = self.channel.status
        if status is None:
            raise SshError(self.channel.loss or "the SSH server does not say how it ended")
        if status.code is not None:
            return status.code
        try:
            return _SIGNALLED + signal_number(status.signal or "")
        except ValueError:
            return _SIGNALLED

    async def resize(self, size: TerminalSize) -> None:
        """As `Exec.resize`."""
        await trio.lowlevel.checkpoint()
        self.channel.resize(size)

    async def aclose(self) -> None:
        """As `Exec.aclose`."""
        self.channel.discard()
        self.channel.abort()
        await trio.lowlevel.checkpoint()


class SshExecHost(ExecHost):
    """Runs processes by the account's login shell; `user` of a specification means nothing here."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def start(self, spec: ExecSpec) -> SshExec:
        """As `ExecHost.start`.  Not broken off when cancelled: it would have no owner."""
        line = command_line(spec.command, environment_words(spec.environment))
        size = TerminalSize() if spec.terminal else None
        term = spec.environment.get("TERM", _DEFAULT_TERM)
        try:
            with trio.fail_after(START_SECONDS) as scope:
                scope.shield = True
                return SshExec(await self._connections.open_process(line, size, term))
        except trio.TooSlowError:
            raise SshError(f"the SSH server did not answer within {START_SECONDS:.0f} s") from None
