"""Everything the API stands on, in memory: real tickets and credentials, a fake manager."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from quart import Response
from quart_trio.testing import TrioClient

from api.app import Application, create_app
from api.context import Context
from auth.authenticator import Authenticator
from auth.keys import Keyring, generate_key
from auth.principal import Principal
from auth.tickets import TicketOffice
from runtimes.base import HostedSession, SandboxSpec, SessionHost
from sessions.errors import NotOwner, PolicyDenied, SessionNotFound, UnknownProfile
from sessions.manager import CreateRequest, Manager
from sessions.placement import Placement
from sessions.profiles import Profile
from sessions.record import SessionRecord
from sessions.state import State
from tests.testing.streamless_host import StreamlessHost

CREDENTIAL = "the-owner's-credential-0123456789"
START = datetime(2026, 1, 1, tzinfo=UTC)
MAX_TTL = 7200
DEFAULT_TTL = 3600


class NamedHost(StreamlessHost):
    """A host that only has a name."""

    runtime_name = "fake"
    isolated = True

    def open_session(self, spec: SandboxSpec) -> AbstractAsyncContextManager[HostedSession]:
        raise AssertionError("the API opens no sessions itself")


class FakeManager(Manager):
    """Keeps records in a dict; one profile, ``default``.

    `error`, when set, is raised by every method instead.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.records: dict[str, SessionRecord] = {}
        self.requests: list[CreateRequest] = []
        self.error: BaseException | None = None
        self.profiles: dict[str, Profile] = {}
        self._clock = clock

    async def create(self, principal: Principal, request: CreateRequest) -> SessionRecord:
        self._fail()
        self.requests.append(request)
        if request.profile != "default":
            raise UnknownProfile(request.profile)
        if request.ttl_seconds > MAX_TTL:
            raise PolicyDenied(f"ttl_seconds {request.ttl_seconds} is more than {MAX_TTL}")
        now = self._clock()
        record = SessionRecord(
            session_id=str(uuid.uuid4()),
            owner=principal.subject,
            profile=request.profile,
            state=State.RUNNING,
            placement=Placement("local", "local", "fog", ("fog-preferred", "healthy")),
            created_at=now,
            expires_at=now + timedelta(seconds=request.ttl_seconds or DEFAULT_TTL),
            runtime="fake",
            image_ref=request.image_ref,
        )
        self.records[record.session_id] = record
        return record

    async def get(self, principal: Principal, session_id: str) -> SessionRecord:
        self._fail()
        if session_id not in self.records:
            raise SessionNotFound(session_id)
        record = self.records[session_id]
        if record.owner != principal.subject:
            raise NotOwner(session_id)
        return record

    async def list(self, principal: Principal) -> list[SessionRecord]:
        self._fail()
        own = [record for record in self.records.values() if record.owner == principal.subject]
        return own[::-1]

    def profile(self, record: SessionRecord) -> Profile:
        return self.profiles.get(record.profile, Profile(record.profile))

    async def terminate(self, principal: Principal, session_id: str) -> SessionRecord:
        record = await self.get(principal, session_id)
        if not record.ended:
            record = replace(
                record, state=State.TERMINATED, reason="asked to", ended_at=self._clock()
            )
            self.records[session_id] = record
        return record

    async def revoke(self, principal: Principal, session_id: str) -> SessionRecord:
        record = await self.get(principal, session_id)
        self.records[session_id] = replace(record, epoch=record.epoch + 1)
        return self.records[session_id]

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class World:
    """An application and what is behind it.  The clock is `now`, set by the test.

    `real`, where given, is behind the application instead of `manager`.
    """

    static_root: Path
    public_url: str | None = None
    real: Manager | None = None
    host: SessionHost = field(default_factory=NamedHost)
    now: datetime = START
    manager: FakeManager = field(init=False)
    tickets: TicketOffice = field(init=False)
    authenticator: Authenticator = field(init=False)
    app: Application = field(init=False)
    client: TrioClient = field(init=False)

    def __post_init__(self) -> None:
        keyring = Keyring([generate_key(clock=self.clock)])
        self.manager = FakeManager(self.clock)
        self.tickets = TicketOffice(keyring, clock=self.clock)
        self.authenticator = Authenticator(CREDENTIAL, keyring, dev=True, clock=self.clock)
        context = Context(
            manager=self.real or self.manager,
            tickets=self.tickets,
            authenticator=self.authenticator,
            host=self.host,
            version="1.2.3",
            public_url=self.public_url,
        )
        self.app = create_app(context, static_root=self.static_root)
        self.client = self.app.test_client()  # type: ignore[assignment]  # Quart's own type is wider

    def clock(self) -> datetime:
        return self.now

    async def call(
        self,
        method: str,
        path: str,
        *,
        bearer: str | None = CREDENTIAL,
        headers: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> Response:
        """Make a request as the owner, as another bearer, or (None) as nobody."""
        headers = dict(headers or {})
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        return await self.client.open(path, method=method, headers=headers, **kwargs)

    async def create(self, **fields: Any) -> dict[str, Any]:
        """Create a session and return the body of the answer."""
        body = {"profile": "default", "ttl_seconds": 60, **fields}
        response = await self.call("POST", "/v1/sessions", json=body)
        assert response.status_code == 201
        created: dict[str, Any] = await response.get_json()
        return created


async def problem(
    response: Response, status: int, name: str, field: str | None = None
) -> dict[str, Any]:
    """Check that a response is a problem of this status and kind; return its body."""
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = await response.get_json(force=True)
    assert body["type"] == f"urn:trunkline:problem:{name}"
    assert body["status"] == status
    assert body["title"]
    assert len(body["detail"]) > 10
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert body.get("field") == field
    assert set(body) == {"type", "title", "status", "detail", "request_id"} | (
        {"field"} if field else set()
    )
    return body
