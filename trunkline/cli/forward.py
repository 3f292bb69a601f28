"""`trunkline forward` and `trunkline proxy`: ports of a session on this machine."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial

import click
import trio

from relay.attachment_stream import AttachmentStream
from relay.endpoint import Kind
from relay.errors import AttachRefused, RelayError
from relay.splice import splice
from trunkline.cli.attached import Notices
from trunkline.cli.running import run
from trunkline.cli.terminal import Descriptor, standard_streams
from trunkline.sdk.client import Connection, open_client
from trunkline.sdk.errors import TrunklineError

CLOSE_SECONDS = 60.0
"""How long a connection that was closed here is kept, for what it sent before to arrive."""
LOOPBACK = "127.0.0.1"

_FORWARD = re.compile(r"(?:([0-9]{1,5}):)?([0-9]{1,5})")


# With this a closed socket sends RST.
_NO_LINGER = struct.pack("ii", 1, 0)


class CannotListen(TrunklineError):
    """A port of this machine cannot be had."""


class ConnectionBroke(TrunklineError):
    """The connection to the port broke."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A port here (0: a free one) and the port of the session that it leads to."""

    local: int
    remote: int


class ForwardingType(click.ParamType[Forwarding]):
    """``[LOCAL:]PORT``."""

    name = "[LOCAL:]PORT"

    def convert(
        self, value: str | Forwarding, param: click.Parameter | None, ctx: click.Context | None
    ) -> Forwarding:
        """Read what was typed."""
        if isinstance(value, Forwarding):
            return value
        match = _FORWARD.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is neither a port (8080) nor two (9000:8080)", param, ctx)
        remote = int(match[2])
        local = int(match[1]) if match[1] else remote
        if not (0 <= local <= 0xFFFF and 1 <= remote <= 0xFFFF):
            self.fail(f"{value!r}: ports go up to 65535", param, ctx)
        return Forwarding(local, remote)


def _notice(message: str) -> None:
    click.echo(f"[trunkline: {message}]", err=True)


@click.command()
@click.argument("session_id", metavar="ID")
@click.argument("forwardings", nargs=-1, required=True, type=ForwardingType())
@click.option("--bind", default=LOOPBACK, show_default=True, help="The address to listen on here.")
def forward(session_id: str, forwardings: tuple[Forwarding, ...], bind: str) -> None:
    """Make ports of session ID available on this machine, until Ctrl-C.

    PORT leads to the same port in the session, LOCAL:PORT another one does, and with 0:PORT one that
    is free.  A connection to the server that is cut makes itself again, and connections that are
    open go on where they were.
    """

    async def main() -> None:
        async with AsyncExitStack() as stack:
            listeners = [await _listen(f.local, bind) for f in forwardings]
            for listener in listeners:
                stack.push_async_callback(listener.aclose)
            client = await stack.enter_async_context(open_client())
            connection = await stack.enter_async_context(
                client.session(session_id).connect(
                    kinds=frozenset({Kind.TCP}),
                    ports=[f.remote for f in forwardings],
                    observe=Notices(_notice),
                )
            )
            await connection.wait_connected()
            for forwarding, listener in zip(forwardings, listeners, strict=True):
                host, port = listener.socket.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                click.echo(f"{shown}:{port} -> port {forwarding.remote}")
            sys.stdout.flush()
            await _until_interrupted(partial(_serve, connection, forwardings, listeners))

    run(main)


async def _listen(port: int, bind: str) -> trio.SocketListener:
    try:
        return (await trio.open_tcp_listeners(port, host=bind))[0]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} of this machine is in use; 0:PORT takes a free one"
        else:
            message = f"cannot listen on {bind} port {port}: {error.strerror or error}"
        raise CannotListen(message) from None


async def _until_interrupted(serve: Callable[[], Awaitable[None]]) -> None:
    """Run `serve` to its end, or until SIGINT, SIGTERM or SIGHUP: the ordinary end of a forwarding.

    OpenSSH sends SIGHUP to the command that it connects through when it is done.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        numbers.append(signal.SIGHUP)
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            with trio.open_signal_receiver(*numbers) as signals:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        await serve()
        nursery.cancel_scope.cancel()


async def _serve(
    connection: Connection,
    forwardings: tuple[Forwarding, ...],
    listeners: list[trio.SocketListener],
) -> None:
    async with trio.open_nursery() as nursery:
        for forwarding, listener in zip(forwardings, listeners, strict=True):
            handler = partial(_carry, connection, forwarding.remote)
            nursery.start_soon(trio.serve_listeners, handler, [listener])
        await connection.wait_over()


async def _carry(connection: Connection, port: int, local: trio.SocketStream) -> None:
    """Serve one connection that was made here."""
    in_order = False
    try:
        remote = await connection.open_port(port)
        remote.close_seconds = CLOSE_SECONDS
        in_order = await splice(local, remote)
    except AttachRefused as refusal:
        _notice(str(refusal))
        return
    except RelayError:
        return  # the connection to the server is over; the command ends and tells why
    finally:
        if not in_order:
            # Closing the socket now tells the program at its other end that the connection broke.
            local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        await trio.aclose_forcefully(local)
    await (remote.aclose() if in_order else remote.reset())


@click.command()
@click.argument("session_id", metavar="ID")
@click.argument("port", type=click.IntRange(1, 0xFFFF))
def proxy(session_id: str, port: int) -> None:
    """Connect standard input and output with PORT of session ID.

    For programs that take a command to connect through, like ssh:

        ssh -o ProxyCommand='trunkline proxy ID 22' sandbox
    """

    async def main() -> None:
        async with (
            open_client() as client,
            client.session(session_id).connect(
                kinds=frozenset({Kind.TCP}), ports=[port], observe=Notices(_notice)
            ) as connection,
        ):
            remote = await connection.open_port(port)
            remote.close_seconds = CLOSE_SECONDS
            with standard_streams() as (stdin, stdout, _):
                await _until_interrupted(partial(_connect, remote, stdin, stdout))

    run(main)


async def _connect(remote: AttachmentStream, stdin: Descriptor, stdout: Descriptor) -> None:
    """Copy both ways until both directions have ended.

    Raises:
      ConnectionBroke: not all has come.
      BrokenPipeError: nobody reads our output any more.
      AttachmentClosed and the like: the attachment is over.
    """
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_feed, stdin, remote)
            while data := await remote.receive_some():
                await stdout.write_all(data)
            _end_output(stdout)
            if stdin.is_terminal:
                nursery.cancel_scope.cancel()  # who typed there has nobody to talk to any more
    except* trio.BrokenResourceError as group:
        error = group.exceptions[0]
        raise error.__cause__ or ConnectionBroke(str(error)) from None
    except* BrokenPipeError:
        await remote.reset()
        raise
    await remote.aclose()


async def _feed(stdin: Descriptor, remote: AttachmentStream) -> None:
    try:
        while data := await stdin.read():
            await remote.send_all(data)
        await remote.send_eof()
    except trio.BrokenResourceError:
        pass  # the port takes no more; what it still has to say comes


def _end_output(stdout: Descriptor) -> None:
    """Tell whoever reads our output that it has ended, while our input may go on."""
    with suppress(OSError), socket.socket(fileno=os.dup(stdout.number)) as shared:
        # Standard input may be the same socket, which closing the output would leave open.
        shared.shutdown(socket.SHUT_WR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stdout.number)
    os.close(nowhere)
