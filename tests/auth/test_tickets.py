from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from auth.authenticator import Authenticator
from auth.keys import Keyring, generate_key
from auth.principal import Principal
from auth.tickets import (
    AUDIENCE,
    MAX_TTL_SECONDS,
    MAX_USES,
    TicketError,
    TicketOffice,
    TicketProblem,
)
from relay.endpoint import Kind
from relay.grant import Grant, Mode
from relay.socket_rules import SocketRules
from tests.testing.wall_clock import WallClock

GRANT = Grant("s1", "me", frozenset({Kind.PTY, Kind.EXEC}))
NARROW = Grant("s1", "me", frozenset({Kind.VNC}), Mode.VIEW, "désk/1", 3)
PORTS = Grant(
    "s1",
    "me",
    frozenset({Kind.TCP}),
    ports=SocketRules.parse([8080, "3000-3999", "/run/vnc.sock"]),
)
NO_PORTS = Grant("s1", "me", frozenset({Kind.TCP}), ports=SocketRules())


@pytest.fixture
def office(keyring: Keyring, clock: WallClock, entropy: Callable[[int], bytes]) -> TicketOffice:
    return TicketOffice(keyring, clock=clock, entropy=entropy)


def refuse(
    office: TicketOffice, token: str, problem: TicketProblem, session: str = "s1", epoch: int = 0
) -> None:
    before = office.statistics()
    with pytest.raises(TicketError) as caught:
        office.redeem(token, session_id=session, epoch=epoch)
    assert caught.value.problem is problem
    assert token not in str(caught.value)
    after = office.statistics()
    assert after.refused[problem] == before.refused[problem] + 1
    assert after.redeemed == before.redeemed


@pytest.mark.parametrize("uses", [None, 1, 5])
@pytest.mark.parametrize("grant", [GRANT, NARROW, PORTS, NO_PORTS])
def test_the_grant_comes_back(
    office: TicketOffice, clock: WallClock, grant: Grant, uses: int | None
) -> None:
    ticket = office.issue(grant, ttl_seconds=900, uses=uses)
    assert ticket.expires_at == clock.now + timedelta(seconds=900)
    assert ticket.token not in repr(ticket)
    assert office.inspect(ticket.token) == grant
    assert office.redeem(ticket.token, session_id="s1", epoch=grant.epoch) == grant


def test_the_claims_of_the_seed_api(office: TicketOffice, clock: WallClock) -> None:
    token = office.issue(GRANT, ttl_seconds=900, uses=1).token
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["iss"] == "trunkline"
    assert claims["aud"] == AUDIENCE == "cloudshell-pty"
    assert (claims["sub"], claims["session_id"]) == ("me", "s1")
    assert claims["exp"] - claims["iat"] == 900
    assert (claims["kinds"], claims["mode"], claims["tag"]) == (["exec", "pty"], "control", None)
    assert (claims["uses"], claims["epoch"]) == (1, 0)
    assert len(claims["jti"]) == 32


def test_one_use_is_one_use_and_looking_is_none(office: TicketOffice) -> None:
    token = office.issue(GRANT, ttl_seconds=60, uses=1).token
    for _ in range(3):
        office.inspect(token)
    office.redeem(token, session_id="s1", epoch=0)
    refuse(office, token, TicketProblem.USED)
    assert office.inspect(token) == GRANT
    assert office.statistics().outstanding.entries == 0


def test_unlimited_is_until_it_expires(office: TicketOffice, clock: WallClock) -> None:
    token = office.issue(GRANT, ttl_seconds=60, uses=None).token
    for _ in range(100):
        office.redeem(token, session_id="s1", epoch=0)
    assert office.statistics().outstanding.entries == 0
    clock.advance(60)
    refuse(office, token, TicketProblem.EXPIRED)
    with pytest.raises(TicketError, match="has expired; ask for a new one"):
        office.inspect(token)


def test_a_refused_ticket_loses_no_use(office: TicketOffice) -> None:
    token = office.issue(GRANT, ttl_seconds=60, uses=1).token
    refuse(office, token, TicketProblem.WRONG_SESSION, session="s2")
    refuse(office, token, TicketProblem.REVOKED, epoch=1)
    assert office.redeem(token, session_id="s1", epoch=0) == GRANT


def test_the_order_of_the_checks(office: TicketOffice, clock: WallClock) -> None:
    token = office.issue(GRANT, ttl_seconds=60, uses=1).token
    office.redeem(token, session_id="s1", epoch=0)
    refuse(office, token, TicketProblem.WRONG_SESSION, session="s2", epoch=1)
    refuse(office, token, TicketProblem.REVOKED, epoch=1)
    refuse(office, token, TicketProblem.USED)
    clock.advance(61)
    refuse(office, token, TicketProblem.EXPIRED, session="s2", epoch=1)
    refuse(office, token[:-5], TicketProblem.INVALID)


def test_epochs(office: TicketOffice) -> None:
    token = office.issue(NARROW, ttl_seconds=60, uses=None).token
    refuse(office, token, TicketProblem.REVOKED, epoch=4)
    assert office.redeem(token, session_id="s1", epoch=3) == NARROW
    # An epoch that the session has not reached was never issued for it.
    refuse(office, token, TicketProblem.INVALID, epoch=2)


def test_after_a_restart_only_unlimited_tickets_are_good(
    office: TicketOffice, keyring: Keyring, clock: WallClock
) -> None:
    limited = office.issue(GRANT, ttl_seconds=60, uses=5).token
    unlimited = office.issue(GRANT, ttl_seconds=60, uses=None).token
    restarted = TicketOffice(keyring, clock=clock)
    with pytest.raises(TicketError, match="before the server restarted") as caught:
        restarted.redeem(limited, session_id="s1", epoch=0)
    assert caught.value.problem is TicketProblem.USED
    assert restarted.redeem(unlimited, session_id="s1", epoch=0) == GRANT


def test_a_console_token_is_no_ticket_nor_the_other_way_round(
    office: TicketOffice, keyring: Keyring, clock: WallClock
) -> None:
    authenticator = Authenticator("trunk_x", keyring, clock=clock)
    console = authenticator.exchange_login_code(
        authenticator.issue_login_code(Principal("me"))
    ).token
    refuse(office, console, TicketProblem.INVALID)
    ticket = office.issue(GRANT, ttl_seconds=60, uses=None).token
    with pytest.raises(Exception, match="unknown credential"):
        authenticator.authenticate(f"Bearer {ticket}")


@pytest.mark.parametrize(
    ("ttl", "uses", "message"),
    [
        (0, 1, "ttl_seconds"),
        (-1, 1, "ttl_seconds"),
        (MAX_TTL_SECONDS + 1, 1, "ttl_seconds"),
        (1, 0, "uses"),
        (1, -1, "uses"),
        (1, MAX_USES + 1, "uses"),
    ],
)
def test_limits_of_a_ticket(office: TicketOffice, ttl: int, uses: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}: must be in 1"):
        office.issue(GRANT, ttl_seconds=ttl, uses=uses)
    assert office.statistics().issued == 0


def test_a_ticket_for_nothing_or_too_long_is_not_made(office: TicketOffice) -> None:
    with pytest.raises(ValueError, match=r"^kinds"):
        office.issue(Grant("s1", "me", frozenset()), ttl_seconds=1, uses=1)
    with pytest.raises(ValueError, match="longer than 4096"):
        office.issue(Grant("s1", "me" * 4000, frozenset({Kind.PTY})), ttl_seconds=1, uses=1)
    assert office.statistics().outstanding.entries == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"kinds": ["pty", "teleport"]},
        {"kinds": "pty"},
        {"kinds": [["pty"]]},
        {"mode": "god"},
        {"tag": 7},
        {"uses": "1"},
        {"uses": True},
        {"epoch": None},
        {"epoch": 0.0},
        {"session_id": None},
        {"boot": None},
    ],
)
def test_claims_of_another_version_are_invalid(
    office: TicketOffice, keyring: Keyring, changes: dict[str, Any]
) -> None:
    token = office.issue(GRANT, ttl_seconds=60, uses=1).token
    claims = jwt.decode(token, options={"verify_signature": False}) | changes
    key = keyring.signing_key
    changed = jwt.encode(
        {name: value for name, value in claims.items() if value is not None or name == "tag"},
        key.secret,
        "HS256",
        headers={"kid": key.kid, "typ": "trunk-ticket+jwt"},
    )
    refuse(office, changed, TicketProblem.INVALID)
    with pytest.raises(TicketError):
        office.inspect(changed)


async def test_of_concurrent_redeems_as_many_win_as_there_are_uses(office: TicketOffice) -> None:
    for uses in (1, 3):
        token = office.issue(GRANT, ttl_seconds=60, uses=uses).token
        won: list[Grant] = []
        lost: list[TicketProblem] = []

        async def redeem(
            token: str = token, won: list[Grant] = won, lost: list[TicketProblem] = lost
        ) -> None:
            await trio.lowlevel.checkpoint()
            try:
                won.append(office.redeem(token, session_id="s1", epoch=0))
            except TicketError as exc:
                lost.append(exc.problem)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(redeem)
        assert len(won) == uses
        assert lost == [TicketProblem.USED] * (20 - uses)


def test_the_table_is_bounded_and_fair(keyring: Keyring, clock: WallClock) -> None:
    office = TicketOffice(keyring, clock=clock, capacity=10)
    mine = office.issue(Grant("s1", "me", frozenset({Kind.PTY})), ttl_seconds=60, uses=1).token
    theirs = [
        office.issue(Grant("s2", "them", frozenset({Kind.PTY})), ttl_seconds=60, uses=1).token
        for _ in range(50)
    ]
    assert office.statistics().outstanding.entries == 10
    assert office.statistics().outstanding.given_up == 41
    office.redeem(mine, session_id="s1", epoch=0)
    refuse(office, theirs[0], TicketProblem.USED, session="s2")
    office.redeem(theirs[-1], session_id="s2", epoch=0)
    clock.advance(61)
    office.issue(GRANT, ttl_seconds=60, uses=1)
    assert office.statistics().outstanding.entries == 1


CLOCK = WallClock()
OFFICE = TicketOffice(Keyring([generate_key()]), clock=CLOCK)
SAMPLES = [
    OFFICE.issue(grant, ttl_seconds=60, uses=uses).token
    for grant in (GRANT, NARROW)
    for uses in (None, 2)
]


@settings(max_examples=500, deadline=None)
@given(
    token=st.sampled_from(SAMPLES),
    position=st.floats(0, 1, exclude_max=True),
    length=st.integers(0, 4),
    replacement=st.text("ABCDEFabcdef012389-_.=", max_size=4),
)
def test_no_altered_ticket_is_ever_accepted(
    token: str, position: float, length: int, replacement: str
) -> None:
    start = int(position * len(token))
    altered = token[:start] + replacement + token[start + length :]
    if altered == token:
        return
    with pytest.raises(TicketError) as inspected:
        OFFICE.inspect(altered)
    with pytest.raises(TicketError) as redeemed:
        OFFICE.redeem(altered, session_id="s1", epoch=0)
    assert inspected.value.problem is redeemed.value.problem is TicketProblem.INVALID


@settings(deadline=None)
@given(st.sampled_from(SAMPLES), st.sampled_from(SAMPLES), st.permutations([0, 1, 2]))
def test_pieces_of_tickets_make_no_ticket(one: str, other: str, order: list[int]) -> None:
    first, second = one.split("."), other.split(".")
    mixed = ".".join([first[order[0]], second[order[1]], first[order[2]]])
    if mixed in SAMPLES:
        return
    with pytest.raises(TicketError):
        OFFICE.inspect(mixed)


class OfficeMachine(RuleBasedStateMachine):
    """Whatever happens in whichever order, a ticket is redeemed at most as often as it says."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.clock = WallClock()
        self.rnd = random.Random(0)
        self.keyring = Keyring([generate_key(clock=self.clock)])
        self.office = self._office()
        self.left: dict[str, float] = {}
        self.expires: dict[str, Any] = {}
        self.epoch = 0

    def _office(self) -> TicketOffice:
        return TicketOffice(self.keyring, clock=self.clock, entropy=self.rnd.randbytes, capacity=5)

    @rule(
        target=tickets,
        uses=st.sampled_from([None, 1, 2, 3]),
        subject=st.sampled_from(["a", "b"]),
        ttl=st.integers(1, 100),
    )
    def issue(self, uses: int | None, subject: str, ttl: int) -> tuple[str, int]:
        grant = Grant("s1", subject, frozenset({Kind.PTY}), epoch=self.epoch)
        ticket = self.office.issue(grant, ttl_seconds=ttl, uses=uses)
        self.left[ticket.token] = float("inf") if uses is None else uses
        self.expires[ticket.token] = ticket.expires_at
        return ticket.token, self.epoch

    @rule(ticket=tickets, session=st.sampled_from(["s1", "s1", "s1", "s2"]))
    def redeem(self, ticket: tuple[str, int], session: str) -> None:
        token, epoch = ticket
        problem = None
        try:
            self.office.redeem(token, session_id=session, epoch=self.epoch)
        except TicketError as exc:
            problem = exc.problem
        if problem is None:
            self.left[token] -= 1
            assert self.left[token] >= 0
        # Each refusal that does not depend on the table is for the right reason.
        if self.clock.now >= self.expires[token]:
            assert problem is TicketProblem.EXPIRED
        elif session != "s1":
            assert problem is TicketProblem.WRONG_SESSION
        elif epoch < self.epoch:
            assert problem is TicketProblem.REVOKED
        elif self.left[token] == float("inf"):
            assert problem is None
        else:
            assert problem in (None, TicketProblem.USED)

    @rule()
    def revoke(self) -> None:
        self.epoch += 1

    @rule()
    def restart(self) -> None:
        self.office = self._office()
        self.left = {
            token: left if left == float("inf") else 0 for token, left in self.left.items()
        }

    @rule(seconds=st.integers(-10, 60))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @invariant()
    def bounded(self) -> None:
        assert self.office.statistics().outstanding.entries <= 5


OfficeMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOffice = OfficeMachine.TestCase
