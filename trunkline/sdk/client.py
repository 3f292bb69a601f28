"""The Python SDK: find a server, make sessions, attach to their streams.

    async with trunkline.open_client() as client:
        session = await client.create_session()
        async with session.connect() as connection:
            process = await connection.exec(["sha256sum"])
            await process.send(b"hello")
            process.send_eof()
            while (output := await process.receive()) is not None:
                ...
            status = await process.wait()

A connection makes itself again when it is cut, and everything attached over it goes on at the exact
byte.
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

import trio

from relay.attachment_stream import AttachmentStream
from relay.carrier import Carrier
from relay.client import Trunk, TrunkStatistics, TrunkStatus, open_trunk
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.endpoint import Channel, ExitStatus, Kind, Overflow, TerminalSize
from relay.errors import DialFailed
from relay.grant import Mode
from relay.inbox import Output
from relay.protocol.messages import Replay, Start
from relay.protocol.reasons import CloseReason
from relay.websocket import WebSocketCarrier
from trunkline.sdk.api import Api, SessionInfo, StreamInfo, root_of
from trunkline.sdk.discovery import Server, find_server
from trunkline.sdk.errors import ApiError, ServerUnreachable
from trunkline.sdk.files import Files
from trunkline.sdk.websocket import HandshakeError, HandshakeRefused, open_websocket
from trunkline.version import SOFTWARE

SUBPROTOCOL = "trunk.1"
DEFAULT_TAG = "main"
"""The tag of the terminal that the browser's page and `trunkline attach` open."""
STREAMS = frozenset({Kind.PTY, Kind.EXEC, Kind.TCP, Kind.VNC})


class Client:
    """One server, as one user.  Made by `open_client`."""

    def __init__(self, api: Api) -> None:
        self.api = api

    @property
    def server(self) -> Server:
        """The server this client talks to."""
        return self.api.server

    async def create_session(self, profile: str = "default", ttl_seconds: int = 0) -> Session:
        """Make a session; `ttl_seconds` 0 means the profile's default.

        Raises:
          ApiError: the server refuses, and why.
          ServerUnreachable: it does not answer; a session may or may not have been made.

        Cancellation: the same.
        """
        return self.session(await self.api.create_session(profile, ttl_seconds))

    async def sessions(self) -> list[SessionInfo]:
        """Return what sessions there are, newest first."""
        return await self.api.sessions()

    def session(self, session_id: str) -> Session:
        """Return a handle for a session that exists; nothing is asked of the server yet."""
        return Session(self, session_id)


_TicketWish = tuple[frozenset[Kind], Mode, str | None, Sequence[int | str] | None]


class Session:
    """One session."""

    def __init__(self, client: Client, session_id: str) -> None:
        self.client = client
        self.id = session_id

    async def info(self) -> SessionInfo:
        """Return what the server knows about the session.

        Raises:
          ApiError: there is no such session, or it is somebody else's.
        """
        return await self.client.api.session(self.id)

    async def delete(self) -> None:
        """End the session and everything in it."""
        await self.client.api.delete_session(self.id)

    async def pause(self) -> SessionInfo:
        """Stop everything in the session where it is, until `resume`.  What is attached stays so.

        Raises:
          ApiError: there is no such session, it does not run, or its runtime cannot.
        """
        return await self.client.api.pause_session(self.id)

    async def resume(self) -> SessionInfo:
        """Let everything in the session go on.  Raises: as `pause`."""
        return await self.client.api.resume_session(self.id)

    async def stop(self) -> SessionInfo:
        """End everything in the session but its home, until `start`; what is attached is closed.

        The time to live runs on.

        Raises:
          ApiError: there is no such session, it has ended, or it keeps no home (409 says what to set).

        Cancellation: it may be stopped all the same.
        """
        return await self.client.api.stop_session(self.id)

    async def start(self) -> SessionInfo:
        """Start the session again after `stop`, with the same home; returns once it runs.

        Raises:
          ApiError: there is no such session, it has ended or is paused (409), or it cannot be
            started (503): then it is still stopped.

        Cancellation: it may be started all the same.
        """
        return await self.client.api.start_session(self.id)

    async def streams(self) -> list[StreamInfo]:
        """Return the streams of the session, those that ended a while ago included.

        Raises:
          ApiError: there is no such session, or it does not run.
        """
        return await self.client.api.streams(self.id)

    async def send_signal(self, tag: str, name: str = "TERM") -> None:
        """Send a signal to the process group of a stream, attached to it or not.

        Raises:
          ApiError: there is no such session, stream or signal.
        """
        await self.client.api.send_signal(self.id, tag, name)

    @asynccontextmanager
    async def connect(
        self,
        *,
        mode: Mode = Mode.CONTROL,
        kinds: frozenset[Kind] = STREAMS,
        tag: str | None = None,
        ports: Sequence[int | str] | None = None,
        give_up_after: float | None = 600.0,
        observe: Callable[[TrunkStatus], None] | None = None,
    ) -> AsyncIterator[Connection]:
        """Open a connection that makes itself again when it is cut.

        `mode` VIEW, `kinds`, `tag` and `ports` (like ``[8080, "3000-3999"]``) narrow what the
        connection may do, should its ticket be stolen.
        After `give_up_after` seconds without a link everything attached is closed with
        `connection_lost` (None: never); so it is at once if the very first attempt fails, since
        the server may never have been there.  `observe` is told of every change.
        """
        was_connected = False

        async def dial() -> Carrier:
            nonlocal was_connected
            carrier = await self._dial((kinds, mode, tag, ports), patient=was_connected)
            was_connected = True
            return carrier

        async with open_trunk(
            dial, software=SOFTWARE, give_up_after=give_up_after, observe=observe
        ) as trunk:
            yield Connection(trunk, mode)

    @asynccontextmanager
    async def files(
        self,
        *,
        give_up_after: float | None = 600.0,
        observe: Callable[[TrunkStatus], None] | None = None,
    ) -> AsyncIterator[Files]:
        """Open a connection to the session's files; arguments as of `connect`."""
        async with self.connect(
            kinds=frozenset({Kind.FILE}), give_up_after=give_up_after, observe=observe
        ) as connection:
            yield connection.files

    async def _dial(self, wish: _TicketWish, *, patient: bool) -> Carrier:
        api = self.client.api

        async def get_ticket() -> Sequence[str]:
            ticket = await api.ticket(self.id, *wish)
            return SUBPROTOCOL, f"trunk.ticket.{ticket.token}"

        try:
            websocket, _ = await open_websocket(
                _websocket_url(api.server.url, self.id),
                subprotocols=get_ticket,
                ssl_context=api.ssl_context,
            )
        except ApiError as error:
            raise _dial_failed(error.status, str(error)) from error
        except HandshakeRefused as error:
            raise _dial_failed(error.status, str(error)) from error
        except (ServerUnreachable, HandshakeError) as error:
            raise DialFailed(str(error), permanent=not patient) from error
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            message = f"{api.server.url} does not answer: {root_of(error)}"
            raise DialFailed(message, permanent=not patient) from error
        return WebSocketCarrier(websocket)


def _websocket_url(server_url: str, session_id: str) -> str:
    # Not the ticket's ws_url: that is the server's idea of its address, and we have one that works.
    return f"ws{server_url.removeprefix('http')}/v1/sessions/{session_id}/pty"


def _dial_failed(status: int, message: str) -> DialFailed:
    reason = CloseReason.SESSION_ENDED if status in {404, 409, 410} else CloseReason.REVOKED
    permanent = 400 <= status < 500 and status not in {408, 425, 429}
    return DialFailed(message, permanent=permanent, reason=reason if permanent else None)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a process wrote and how it ended."""

    status: ExitStatus
    stdout: bytes
    stderr: bytes


class Connection:
    """Streams of one session.  Made by `Session.connect`."""

    def __init__(self, trunk: Trunk, mode: Mode) -> None:
        self._trunk = trunk
        self._mode = mode

    @property
    def files(self) -> Files:
        """The files of the session, over this connection (which must cover the kind `file`)."""
        return Files(self._trunk)

    async def terminal(
        self,
        tag: str = DEFAULT_TAG,
        *,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        size: TerminalSize | None = None,
        takeover: bool = False,
        restart: bool = False,
        replay: Replay = "all",
    ) -> ClientAttachment:
        """Attach to the terminal `tag`; start it if there is none (and this is no viewer).

        `command` empty means the login shell.  `takeover` takes control from another client.
        `restart` starts anew where the process of that tag has ended.

        `replay` says what comes of the output so far: ``"all"`` of it that the server still has;
        ``"none"``; or ``"screen"``, a `ScreenOutput` that makes a fresh terminal look as this one
        does now (and another after every `Missed`).  Questions to the terminal in output with
        `replay` set were for others: show it through a `ReplayFilter`, or drop what your terminal answers.

        Raises:
          AttachRefused: no, and why.
          AttachmentClosed: the connection is closed or was given up.

        Cancellation: gives the attachment up; a terminal that was started stays.
        """
        start = Start(
            command=list(command),
            environment=dict(environment or {}),
            directory=directory,
            restart=restart,
        )
        return await self._attach(Kind.PTY, tag, start, size=size, takeover=takeover, replay=replay)

    async def exec(
        self,
        command: Sequence[str],
        *,
        tag: str | None = None,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        overflow: Overflow | None = None,
    ) -> ClientAttachment:
        """Run `command` without a terminal: standard output and error apart, input with an end.

        With a `tag` that is in use, attaches to what is running there instead.  While nobody
        reads, the process is held back (`overflow` BLOCK, the default) or its oldest output is
        dropped (DROP_OLDEST).

        Raises and cancellation: as `terminal`.
        """
        start = Start(
            command=list(command),
            environment=dict(environment or {}),
            directory=directory,
            overflow=overflow,
        )
        return await self._attach(Kind.EXEC, tag or f"exec-{secrets.token_hex(4)}", start)

    async def run(
        self, command: Sequence[str], *, stdin: bytes = b"", limit: int = 16 * 1024 * 1024
    ) -> Completed:
        """Run `command` to its end with `stdin` and return what it wrote.

        Raises:
          ValueError: it wrote more than `limit` bytes; it goes on running, held back.
          AttachRefused, AttachmentClosed, InputUncertain: as for any attachment.
        """
        process = await self.exec(command)
        gathered: dict[Channel, bytearray] = {
            Channel.OUTPUT: bytearray(),
            Channel.ERROR: bytearray(),
        }

        async def gather(channel: Channel) -> None:
            while (item := await process.receive(channel)) is not None:
                if isinstance(item, Output):
                    gathered[channel] += item.data
                if sum(map(len, gathered.values())) > limit:
                    raise ValueError(f"{command[0]} wrote more than {limit} bytes")

        async def feed() -> None:
            # It may not want (all of) its input; its exit status tells the rest.
            with suppress(trio.BrokenResourceError):
                await process.send(stdin)
            process.send_eof()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed)
                nursery.start_soon(gather, Channel.ERROR)
                await gather(Channel.OUTPUT)
            status = await process.wait()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # they all tell of the same trouble
        finally:
            self.detach(process)
        return Completed(status, bytes(gathered[Channel.OUTPUT]), bytes(gathered[Channel.ERROR]))

    async def open_port(self, port: int) -> AttachmentStream:
        """Connect to a server on a port of the session.

        The connection outlives cuts, and each of its directions has an end of its own.

        Raises and cancellation: as `terminal`; AttachRefused where nobody listens.
        """
        return await self._connect(Kind.TCP, Start(port=port))

    async def open_vnc(self, where: int | str | None = None) -> AttachmentStream:
        """Connect to the session's desktop, or to one on a port or the path of a Unix socket.

        If the session's profile has a `desktop`, it is started for the first who connects.  With
        mode VIEW what would act on the desktop does not get there.

        Raises and cancellation: as `open_port`.
        """
        port = where if isinstance(where, int) else None
        path = where if isinstance(where, str) else None
        return await self._connect(Kind.VNC, Start(port=port, path=path))

    async def _connect(self, kind: Kind, start: Start) -> AttachmentStream:
        attachment = await self._attach(kind, f"{kind}-{secrets.token_hex(4)}", start)
        return AttachmentStream(attachment, self._trunk.detach)

    async def wait_connected(self) -> None:
        """Wait until there is a link.

        Raises:
          AttachmentClosed: the connection is closed, or was given up.
        """
        await self._trunk.wait_connected()

    async def wait_over(self) -> NoReturn:
        """Wait until the connection is closed or was given up, and raise why.

        Raises:
          AttachmentClosed: always.
        """
        await self._trunk.wait_over()

    def detach(self, attachment: ClientAttachment) -> None:
        """Give an attachment up; what runs goes on.  Input that there is credit for goes first."""
        self._trunk.detach(attachment)

    def retry_now(self) -> None:
        """If the connection is cut: do not wait any longer for the next attempt."""
        self._trunk.retry_now()

    def statistics(self) -> TrunkStatistics:
        """Return a snapshot of the counters."""
        return self._trunk.statistics()

    async def _attach(
        self,
        kind: Kind,
        tag: str,
        start: Start,
        size: TerminalSize | None = None,
        *,
        takeover: bool = False,
        replay: Replay = "all",
    ) -> ClientAttachment:
        # Each connection to a desktop is its client's own, also of one who may only view.
        mode = Mode.CONTROL if kind is Kind.VNC else self._mode
        return await self._trunk.attach(
            AttachOptions(
                attachment=secrets.token_urlsafe(18),
                kind=kind,
                tag=tag,
                mode=mode,
                start=start if mode is Mode.CONTROL else None,
                size=size,
                takeover=takeover,
                replay=replay,
            )
        )


@asynccontextmanager
async def open_client(
    url: str | None = None,
    token: str | None = None,
    *,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Client]:
    """Open a client for the server at `url`, or for the one that `find_server` finds.

    `ssl_context` is for ``https`` with a private certificate authority.

    Raises:
      ServerNotFound: nothing tells where the server is, or the credential for it.
    """
    async with Api(find_server(url, token), ssl_context) as api:
        yield Client(api)
