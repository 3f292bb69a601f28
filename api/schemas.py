"""The JSON of the API, in and out, as msgspec structures: the source of the OpenAPI document too.

Requests are checked by `api.fields`, which can name the field that is wrong; the structures of
requests here document what it accepts.
"""

from __future__ import annotations

from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta
from quart_trio.wrappers import TrioResponse

from relay.endpoint import Kind, Overflow
from relay.grant import Mode
from relay.protocol.policies import Policy
from relay.stream import StreamState, StreamStatistics
from sessions.record import SessionRecord, rfc3339
from sessions.state import State, seed_status

JSON = "application/json"

Time = Annotated[str, Meta(description="RFC 3339, UTC", extra_json_schema={"format": "date-time"})]
SessionId = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Status = Literal["pending", "running", "terminated"]
AttachableKind = Literal["pty", "exec", "file", "tcp", "vnc"]


class _Schema(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON object."""


class Health(_Schema, frozen=True, kw_only=True):
    """The server is alive."""

    status: Literal["ok"] = "ok"


class Problem(_Schema, frozen=True, kw_only=True, omit_defaults=True):
    """Problem details (RFC 9457)."""

    type: Annotated[str, Meta(description="URI that identifies the kind of error")]
    title: str
    status: int
    detail: Annotated[str, Meta(description="What is wrong and what to do next")]
    request_id: Annotated[str, Meta(description="Also in X-Request-Id and in the server's log")]
    field: Annotated[str, Meta(description="The culprit, where there is one")] | None = None


class CreateSession(_Schema, frozen=True, kw_only=True):
    """A wish for a session.  Fields that are not known are ignored."""

    profile: Annotated[str, Meta(description="Name of a profile of the server's configuration")]
    ttl_seconds: Annotated[
        int,
        Meta(ge=0, description="Time to live; 0 means the profile's default"),
    ]
    placement_hint: Annotated[str, Meta(description="Preferred region or node id")] | None = None
    image_ref: Annotated[str, Meta(description="OCI image for the runtime")] | None = None


class Attach(_Schema, frozen=True, kw_only=True):
    """A ticket and where it is to be used."""

    ws_url: Annotated[str, Meta(description="WebSocket to attach to")]
    token: Annotated[str, Meta(description="The ticket")]
    expires_at: Time


class Placement(_Schema, frozen=True, kw_only=True):
    """Where a session runs, and why there."""

    region: str
    node_id: str
    tier: str
    reasons: list[str]


class CreatedSession(_Schema, frozen=True, kw_only=True):
    """A new session, running, with a ticket for all of it that lives 15 minutes."""

    session_id: SessionId
    attach: Attach
    placement: Placement


class Session(_Schema, frozen=True, kw_only=True):
    """A session."""

    session_id: SessionId
    status: Status
    placement: Placement
    created_at: Time
    expires_at: Time
    image_ref: Annotated[str, Meta(description="Empty where none was asked for")]
    state: Annotated[State, Meta(description="Like status, in finer steps")]
    reason: Annotated[str, Meta(description="Why it ended or was stopped")] | None
    ended_at: Time | None
    profile: str
    runtime: Annotated[str, Meta(description="What makes the sandbox")]
    isolated: (
        Annotated[
            bool,
            Meta(description="Whether what runs inside is kept from harming what is outside"),
        ]
        | None
    )


class Sessions(_Schema, frozen=True, kw_only=True):
    """Your sessions, the newest first; those that ended stay on record for 24 hours."""

    sessions: list[Session]


class Terminated(_Schema, frozen=True, kw_only=True):
    """The session has ended, and everything that ran in it."""

    terminated: Literal[True] = True


class CreateTicket(_Schema, frozen=True, kw_only=True):
    """A wish for a ticket.  Fields that are not known are ignored."""

    kinds: Annotated[list[AttachableKind], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["pty", "exec"]
    )
    mode: Annotated[Mode, Meta(description="`view` may read only")] = Mode.CONTROL
    tag: (
        Annotated[
            str,
            Meta(pattern="^[A-Za-z0-9._-]{1,64}$", description="Narrows it to this stream"),
        ]
        | None
    ) = None
    ports: (
        Annotated[
            list[int | str],
            Meta(
                max_length=64,
                description="Narrows tcp and vnc to these ports (8080), ranges of ports"
                ' ("3000-3999") and absolute paths of Unix sockets',
            ),
        ]
        | None
    ) = None
    uses: Annotated[int, Meta(ge=1, le=100)] = 1
    ttl_seconds: Annotated[int, Meta(ge=1, le=900)] = 60


Encoding = Literal["utf-8", "base64"]
Text = Annotated[str, Meta(max_length=65536, pattern="^[^\\x00]*$")]


class ExecRequest(_Schema, frozen=True, kw_only=True):
    """A command to run.  Fields that are not known are ignored."""

    command: Annotated[list[Text], Meta(min_length=1, max_length=1024)]
    stdin: Annotated[str, Meta(description="Standard input, as UTF-8")] | None = None
    stdin_base64: Annotated[str, Meta(description="Standard input, any bytes")] | None = None
    environment: dict[Text, Text] = {}
    directory: Annotated[Text, Meta(description="Where to run; else the home")] | None = None
    user: Annotated[Text, Meta(description="Who to run as, where the runtime can")] | None = None
    timeout_seconds: (
        Annotated[
            float,
            Meta(gt=0, le=86400, description="Then it is ended, by force after 5 s more"),
        ]
        | None
    ) = None
    background: Annotated[bool, Meta(description="Return at once; attach by the tag")] = False
    tag: (
        Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$", description="What to call it")] | None
    ) = None
    output_limit: Annotated[
        int, Meta(ge=0, le=8 * 1024 * 1024, description="Bytes returned of each output")
    ] = 1024 * 1024
    overflow: (
        Annotated[
            Overflow,
            Meta(
                description="When nobody reads: hold it back (`block`), or forget its oldest"
                " output (`drop_oldest`, the default in the background)"
            ),
        ]
        | None
    ) = None


class ExecResult(_Schema, frozen=True, kw_only=True):
    """How a command ended and what it wrote."""

    tag: str
    exit_code: Annotated[int, Meta(description="Null if a signal ended it")] | None
    signal: Annotated[str, Meta(description="The signal that ended it, without SIG")] | None
    stdout: str
    stderr: str
    encoding: Annotated[Encoding, Meta(description="Of both; base64 where one is not UTF-8")]
    truncated: Annotated[bool, Meta(description="Whether it wrote more than output_limit")]
    timed_out: bool
    duration_ms: int


class ExecStarted(_Schema, frozen=True, kw_only=True):
    """A command that runs in the background."""

    tag: str
    pid: int | None


class SignalRequest(_Schema, frozen=True, kw_only=True):
    """A signal to send to the process group of a stream."""

    signal: Annotated[str, Meta(pattern="^[A-Z0-9]{1,16}$", description="Without SIG")] = "TERM"


class Signalled(_Schema, frozen=True, kw_only=True):
    """The signal was sent, if anything still runs there."""

    signalled: Literal[True] = True


class ChannelInfo(_Schema, frozen=True, kw_only=True):
    """One output of a stream, in bytes."""

    channel: Annotated[int, Meta(description="1 is standard output, 2 standard error")]
    first_offset: Annotated[int, Meta(description="Of the oldest byte that can be replayed")]
    next_offset: Annotated[int, Meta(description="How much was written in all")]
    dropped: Annotated[int, Meta(description="Forgotten before they left the ring by age")]


class AttachmentInfo(_Schema, frozen=True, kw_only=True):
    """One client of a stream."""

    subject: str
    mode: Mode
    policy: Policy
    connected: bool
    lag: Annotated[int, Meta(description="Bytes of output it has not been sent yet")]
    skipped: Annotated[int, Meta(description="Bytes it was told it missed")]
    input_bytes: Annotated[int, Meta(description="Taken from it")]


class StreamInfo(_Schema, frozen=True, kw_only=True):
    """One stream of a session."""

    tag: str
    kind: Kind
    state: StreamState
    pid: int | None
    command: Annotated[list[str], Meta(description="Empty: the login shell")]
    age_seconds: float
    exit_code: int | None
    signal: str | None
    channels: list[ChannelInfo]
    attachments: list[AttachmentInfo]


class Streams(_Schema, frozen=True, kw_only=True):
    """The streams of a session, those that ended a while ago included."""

    streams: list[StreamInfo]


def stream_of(statistics: StreamStatistics) -> StreamInfo:
    """Return a stream as the API shows it."""
    return StreamInfo(
        tag=statistics.tag,
        kind=statistics.kind,
        state=statistics.state,
        pid=statistics.pid,
        command=list(statistics.command),
        age_seconds=round(statistics.age, 3),
        exit_code=statistics.exit.code if statistics.exit else None,
        signal=statistics.exit.signal if statistics.exit else None,
        channels=[
            ChannelInfo(
                channel=int(channel),
                first_offset=ring.start,
                next_offset=ring.end,
                dropped=ring.dropped,
            )
            for channel, ring in statistics.rings.items()
        ],
        attachments=[
            AttachmentInfo(
                subject=attachment.subject,
                mode=attachment.mode,
                policy=attachment.policy,
                connected=attachment.bound,
                lag=sum(sender.behind for sender in attachment.senders.values()),
                skipped=sum(sender.skipped for sender in attachment.senders.values()),
                input_bytes=attachment.accepted,
            )
            for attachment in statistics.attachments
        ],
    )


class Revoked(_Schema, frozen=True, kw_only=True):
    """Every ticket made so far is refused from now on, and live attachments were closed."""

    revoked: Literal[True] = True


class LoginCode(_Schema, frozen=True, kw_only=True):
    """A code for the fragment of a URL: it logs a browser in once, within 15 minutes."""

    code: str


class Login(_Schema, frozen=True, kw_only=True):
    """A one-use login code."""

    code: str


class ConsoleToken(_Schema, frozen=True, kw_only=True):
    """A bearer credential for the web page."""

    token: str
    expires_at: Time


class WhoAmI(_Schema, frozen=True, kw_only=True):
    """Who the credential belongs to."""

    subject: str


def placement_of(record: SessionRecord) -> Placement:
    """Return where the session of `record` runs."""
    return Placement(
        region=record.placement.region,
        node_id=record.placement.node_id,
        tier=record.placement.tier,
        reasons=list(record.placement.reasons),
    )


def session_of(record: SessionRecord, *, isolated: bool | None) -> Session:
    """Return `record` as the API shows it; `isolated` None means that nobody knows any more."""
    return Session(
        session_id=record.session_id,
        status=cast("Status", seed_status(record.state)),
        placement=placement_of(record),
        created_at=rfc3339(record.created_at),
        expires_at=rfc3339(record.expires_at),
        image_ref=record.image_ref or "",
        state=record.state,
        reason=record.reason,
        ended_at=None if record.ended_at is None else rfc3339(record.ended_at),
        profile=record.profile,
        runtime=record.runtime,
        isolated=isolated,
    )


def respond(body: msgspec.Struct, status: int = 200) -> TrioResponse:
    """Make a response of a structure."""
    return TrioResponse(msgspec.json.encode(body), status, content_type=JSON)
