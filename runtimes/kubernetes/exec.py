"""Processes in a pod, each on a WebSocket of its own.

Theory of operation
-------------------
Output is read by whoever wants it, straight off the WebSocket: nobody reads, so the API server blocks,
then the node, then the process.  Input goes through a queue of at most `QUEUE_BYTES`, written by a task
of the host's nursery (`KubeExec.run`), because a frame that was begun must be finished: a sender that is
cancelled must not tear it.  Sizes go through the same queue, so they stay in order with the input.  That
task also sends a ping now and then, so that nothing between us takes a quiet process for a dead one.

**The end of input** is a message in v5.  In v4 there is none, so where it may be needed the process is
started behind a small script of ours (`WRAPPER`): what comes is taken apart by it, lengths and bytes,
and the length 0 is the end.  What the server speaks is found out with the first process, which does not
need it (the keeper).

**The environment** cannot be given either; a shell inside sets what differs from the pod's own.

**The end** comes as a ``v1.Status`` on the error channel, maybe before the last output: all is over only
when the WebSocket is closed.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence

import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, TerminalSize
from relay.wakeup import Wakeup
from relay.websocket import Text, WebSocket
from runtimes.exec_inside.process import Exec, ExecError, ExecHost, ExecSpec
from runtimes.exec_inside.scripts import SHELL
from runtimes.kubernetes.api import KubeApi, ProtocolRefused
from runtimes.kubernetes.channels import (
    MAX_STATUS_BYTES,
    V4,
    V5,
    ChannelError,
    Number,
    Splitter,
    end_of_input_message,
    input_message,
    read_exit_code,
    resize_message,
)

QUEUE_BYTES = 128 * 1024
"""Input that waits to be sent, beyond which a sender waits."""
PING_SECONDS = 30.0
"""How often a process without input is pinged for."""
CLOSE_SECONDS = 1.0
"""How long saying good-bye may take."""

_SLICE_BYTES = 32 * 1024
_TURN_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 14
_OUTPUTS: Mapping[int, Channel] = {
    Number.STDOUT: Channel.OUTPUT,
    Number.STDERR: Channel.ERROR,
}
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

EXPORT = r"""
count=$1
shift
while [ "$count" -gt 0 ]; do
  export "$1"
  shift
  count=$((count - 1))
done
unset count
exec "$@"
"""

# The reader tells its process id first, so that it can be ended when the command has ended.  dd reads
# not one byte too many, which `head -c` may.  Shells report deaths, but none by SIGPIPE.  The cat takes
# what still comes: containerd does not see the end of a process while its input is full.
WRAPPER = r"""
reader='echo $$
while read -r size && [ "$size" -gt 0 ]; do
  dd bs="$size" count=1 iflag=fullblock 2>/dev/null || exit
done'
exec 3<&0
/bin/sh -c "$reader" 3<&- | {
  read -r reader
  setsid "$@" 3<&-
  status=$?
  kill -PIPE "$reader" 2>/dev/null
  cat <&3 >/dev/null 2>&1 3<&- &
  exit "$status"
}
"""

CAN_WRAP = "command -v setsid >/dev/null 2>&1 && command -v dd >/dev/null 2>&1"

NO_WRAPPER = (
    "this API server cannot end the input of a process (it speaks v4.channel.k8s.io only), and the"
    " image lacks setsid or dd, with which we could: use Kubernetes 1.30 or later, or install them"
)


def with_environment(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what runs `command` with `environment` added to that of the pod.

    Raises:
      ExecError: a name is none that a shell can set.
    """
    pairs = [f"{name}={value}" for name, value in environment.items()]
    if not pairs:
        return tuple(command)
    for name in environment:
        if not _SHELL_NAME.fullmatch(name):
            raise ExecError(
                f"the variable {name!r} cannot be set in a pod: its name may have letters, digits and"
                " underscores only"
            )
    return (SHELL, "-c", EXPORT, "trunkline", str(len(pairs)), *pairs, *command)


def wrapped(command: Sequence[str]) -> tuple[str, ...]:
    """Return what runs `command` with an input that can end, where the protocol has no end."""
    return (SHELL, "-c", WRAPPER, "trunkline", *command)


class KubeExec(Exec):
    """A process in a pod.  Owns `websocket`; `run` must be running.

    `framed` says that the process is behind `WRAPPER`.
    """

    def __init__(self, websocket: WebSocket, *, framed: bool) -> None:
        self._websocket = websocket
        self._framed = framed
        self._splitter = Splitter()
        self._pieces: list[tuple[Channel, Buffer]] = []
        self._status = bytearray()
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._work = Wakeup()
        self._room = trio.lowlevel.ParkingLot()
        self._eof = False
        self._broken = False
        self._closed = False
        self._writing = trio.CancelScope()

    async def run(self) -> None:
        """Send what is queued, until this is closed or the connection breaks."""
        try:
            with self._writing:
                await self._write()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # who receives finds out what happened
        finally:
            self._broken = True
            self._drop_queue()

    async def _write(self) -> None:
        while True:
            while self._queue:
                message = self._queue.popleft()
                await self._websocket.send_binary(message)
                self._queued -= len(message)
                self._room.unpark_all()
            with trio.move_on_after(PING_SECONDS) as scope:
                await self._work.wait()
            if scope.cancelled_caught:
                await self._websocket.ping()

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._queued = 0
        self._room.unpark_all()

    def _put(self, message: bytes) -> None:
        self._queue.append(message)
        self._queued += len(message)
        self._work.set()

    def statistics(self) -> int:
        """Return how many bytes of input wait to be sent."""
        return self._queued

    # ---------------------------------------------------------------- Exec

    async def receive(self) -> Sequence[tuple[Channel, Buffer]]:
        """As `Exec.receive`: all that is there, so that many small messages are few pieces."""
        while not self._pieces:
            if not await self._receive_message():
                return ()
        while self._has_more() and await self._receive_message():
            pass
        pieces, self._pieces = self._pieces, []
        return pieces

    def _has_more(self) -> bool:
        """Whether more has come than the header of a frame, so that nobody waits for the rest."""
        waiting = self._websocket.statistics().bytes_buffered > _MAX_HEADER_BYTES
        return waiting and sum(len(piece) for _, piece in self._pieces) < _TURN_BYTES

    async def _receive_message(self) -> bool:
        """Take a message, or a piece of one; False at the end."""
        try:
            event = await self._websocket.receive()
        except trio.BrokenResourceError:
            if self._is_over():
                return False  # how the connection ends does not matter
            raise
        if event is None:
            if not self._is_over():
                raise trio.BrokenResourceError("the API server ended the connection too early")
            return False
        if isinstance(event, Text):
            raise trio.BrokenResourceError("the API server sent text where bytes belong")
        try:
            piece = self._splitter.feed(event.data, final=event.final)
        except ChannelError as error:
            raise trio.BrokenResourceError(str(error)) from error
        if piece is not None:
            self._take(*piece)
        return True

    def _is_over(self) -> bool:
        """Whether the connection may end."""
        return bool(self._status)

    def _take(self, number: int, data: Buffer) -> None:
        if number == Number.ERROR:
            self._status += data[: MAX_STATUS_BYTES - len(self._status)]
        elif number in _OUTPUTS:
            self._pieces.append((_OUTPUTS[number], data))

    async def send(self, data: Buffer) -> None:
        """As `Exec.send`, but whole pieces of it are queued, so more can be sent later."""
        await trio.lowlevel.checkpoint()
        with memoryview(data).cast("B") as view:
            for start in range(0, len(view), _SLICE_BYTES):
                while self._queued >= QUEUE_BYTES and not self._broken and not self._closed:
                    await self._room.park()
                self._refuse_input()
                content = bytes(view[start : start + _SLICE_BYTES])
                prefix = b"%d\n" % len(content) if self._framed else b""
                self._put(input_message(prefix + content))

    def _refuse_input(self) -> None:
        if self._closed or self._eof:
            raise trio.ClosedResourceError
        if self._broken:
            raise trio.BrokenResourceError("the connection to the process is lost")

    async def send_eof(self) -> None:
        """As `Exec.send_eof`."""
        await trio.lowlevel.checkpoint()
        if self._eof:
            return
        self._refuse_input()
        self._eof = True
        if self._framed:
            self._put(input_message(b"0\n"))
        elif self._websocket.subprotocol == V5:
            self._put(end_of_input_message())

    async def exit_code(self) -> int | None:
        """As `Exec.exit_code`: it is told at the end, behind all output."""
        await trio.lowlevel.checkpoint()
        if not self._status:
            if self._broken or self._websocket.peer_close is not None:
                raise ExecError("the connection to the process was lost before its end")
            return None
        try:
            return read_exit_code(bytes(self._status))
        except ChannelError as error:
            raise ExecError(str(error)) from error

    async def resize(self, size: TerminalSize) -> None:
        """As `Exec.resize`."""
        await trio.lowlevel.checkpoint()
        if not self._broken and not self._closed and self._queued < QUEUE_BYTES:
            self._put(resize_message(size))

    async def aclose(self) -> None:
        """As `Exec.aclose`."""
        self._closed = True
        self._writing.cancel()
        self._drop_queue()
        await trio.aclose_forcefully(self._websocket)


class PodHost(ExecHost):
    """Runs processes in one container of a pod, and what serves them in `nursery`.

    `environment` is what processes have without being given it.
    """

    def __init__(
        self,
        api: KubeApi,
        pod: str,
        container: str,
        environment: Mapping[str, str],
        nursery: trio.Nursery,
    ) -> None:
        self._api = api
        self._pod = pod
        self._container = container
        self._environment = environment
        self._nursery = nursery
        self._protocol: str | None = None
        self._can_wrap = False

    async def start(self, spec: ExecSpec) -> KubeExec:
        """As `ExecHost.start`."""
        if spec.user:
            raise ExecError(
                f"Kubernetes runs no process of a pod as another user ({spec.user}) than that of its"
                " container: leave the user out, or set runAsUser in the pod template"
            )
        # Container runtimes set TERM for a terminal (containerd: xterm), whatever the pod says.
        given = {k: v for k, v in self._environment.items() if k != "TERM" or not spec.terminal}
        added = {k: v for k, v in spec.environment.items() if given.get(k) != v}
        command = with_environment(spec.command, added)
        needs_end = spec.ends_input and not spec.terminal
        framed = needs_end and not await self._can_end_input()
        websocket = await self._open(wrapped(command) if framed else command, spec)
        running = KubeExec(websocket, framed=framed)
        self._nursery.start_soon(running.run)
        return running

    async def _can_end_input(self) -> bool:
        """Find out whether the protocol has an end of input; if not, whether we can help."""
        if self._protocol is None or (self._protocol == V4 and not self._can_wrap):
            spec = ExecSpec((SHELL, "-c", CAN_WRAP), {}, ends_input=False)
            running = KubeExec(await self._open(spec.command, spec), framed=False)
            try:
                while await running.receive():
                    pass
                self._can_wrap = await running.exit_code() == 0
            except trio.BrokenResourceError as error:
                raise ExecError(str(error)) from error
            finally:
                await running.aclose()
        if self._protocol == V4 and not self._can_wrap:
            raise ExecError(NO_WRAPPER)
        return self._protocol == V5

    async def _open(self, command: Sequence[str], spec: ExecSpec) -> WebSocket:
        params = [
            ("container", self._container),
            ("stdin", "true"),
            ("stdout", "true"),
            ("stderr", "false" if spec.terminal else "true"),
            ("tty", "true" if spec.terminal else "false"),
            *(("command", argument) for argument in command),
        ]
        # Once known it is asked for alone: how a process was started depends on it.
        offered = (V5, V4) if self._protocol is None else (self._protocol,)
        try:
            websocket = await self._api.open_websocket(self._pod, "exec", params, offered)
        except ProtocolRefused:
            self._protocol = None  # the cluster was changed under us: ask again next time
            raise
        self._protocol = websocket.subprotocol
        return websocket
