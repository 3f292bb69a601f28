"""Signals to processes in a sandbox, by a process of ours inside (`runtimes.exec_inside.scripts`).

One keeper serves all processes of one user: without capabilities nobody else may signal them.
Orders are answered one after another.  What the keeper's user may signal he may also kill, the
keeper itself included: it is started again when it is needed again.
"""

from __future__ import annotations

from collections.abc import Callable
from signal import Signals

import trio

from relay.carrier import Buffer
from relay.endpoint import Channel
from runtimes.exec_inside.process import Exec, ExecHost, ExecSpec
from runtimes.exec_inside.scripts import keeper

ANSWER_SECONDS = 10.0
"""How long an order may take; a container with thousands of processes is slow to look through."""

_MAX_LINE_BYTES = 4096
_ATTEMPTS = 2


class KeeperLost(Exception):
    """The keeper is gone, or cannot be had; the message says why."""


class Keeper:
    """Starts its process with the first order.

    `directory` is looked at when the process starts (`open`).  `script` makes the command of the
    process from it.
    """

    def __init__(
        self,
        host: ExecHost,
        user: str,
        directory: str,
        script: Callable[[str], tuple[str, ...]] = keeper,
    ) -> None:
        self._script = script
        self._host = host
        self._user = user
        self._directory = directory
        self._lock = trio.Lock()
        self._exec: Exec | None = None
        self._heard = bytearray()
        self._complaint = bytearray()

    async def open(self) -> str:
        """Start the process; return what it says of the directory (``ready``: it is there).

        Raises:
          KeeperLost: there can be none; the sandbox has no ``/bin/sh``, say.
          ExecError: it was refused.
        """
        async with self._lock:
            return await self._open()

    async def signal(self, number: Signals, pid: int) -> None:
        """Send a signal to the group of `pid`, or the foreground group of its terminal.

        Raises:
          KeeperLost, ExecError: it could not be sent.
        """
        await self._order(f"signal {number.value} {pid}")

    async def drain(self, pid: int) -> None:
        """Read away what waits in the input of the terminal of `pid`, until that is closed.

        Raises:
          KeeperLost, ExecError: it could not be done.
        """
        await self._order(f"drain 0 {pid}")

    async def sweep(self, number: int, pid: int) -> int:
        """Signal (0: only count) all that live in the session of `pid`; return how many there are.

        Raises:
          KeeperLost, ExecError: it could not be done.
        """
        answer = await self._order(f"sweep {number} {pid}")
        if not answer.isdecimal():
            raise KeeperLost(f"it answered {answer[:100]!r}")
        return int(answer)

    async def _order(self, order: str) -> str:
        """Give an order and return the answer.

        Cancellation: the order may have been carried out; the keeper is given up, so that no later
        order gets its answer.
        """
        async with self._lock:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    with trio.fail_after(ANSWER_SECONDS):
                        if self._exec is None:
                            await self._open()
                        return await self._ask(order)
                except trio.TooSlowError:
                    raise KeeperLost("the sandbox does not react; is it paused?") from None
                except KeeperLost:
                    if attempt == _ATTEMPTS:
                        raise
        raise AssertionError("unreachable")

    async def _open(self) -> str:
        spec = ExecSpec(self._script(self._directory), {}, user=self._user, ends_input=False)
        self._exec = await self._host.start(spec)
        self._heard.clear()
        self._complaint.clear()
        return await self._ask(None)

    async def _ask(self, order: str | None) -> str:
        running = self._exec
        if running is None:
            raise KeeperLost("it is gone")
        answered = False
        try:
            if order is not None:
                await running.send(f"{order}\n".encode())
            answer = await self._hear(running)
            answered = True
        except trio.BrokenResourceError as error:
            raise KeeperLost(str(error)) from error
        finally:
            if not answered:
                self._exec = None
                await running.aclose()
        return answer

    async def _hear(self, running: Exec) -> str:
        """Wait for one line."""
        while True:
            line, newline, rest = self._heard.partition(b"\n")
            if newline:
                self._heard = rest
                return line.decode("ascii", "replace")
            if len(self._heard) > _MAX_LINE_BYTES:
                raise KeeperLost("what it says is no answer")
            pieces = await running.receive()
            for channel, piece in pieces:
                self._note(channel, piece)
            if not pieces:
                said = (self._complaint + self._heard).decode("utf-8", "replace").strip()
                raise KeeperLost(said or "its process has ended")

    def _note(self, channel: Channel, piece: Buffer) -> None:
        if channel is Channel.OUTPUT:
            self._heard += piece
        else:
            self._complaint += piece[: _MAX_LINE_BYTES - len(self._complaint)]

    async def aclose(self) -> None:
        """End the process, if there is one."""
        running, self._exec = self._exec, None
        if running is not None:
            await running.aclose()
