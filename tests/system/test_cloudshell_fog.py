"""The cloudshell-fog terminal on the wire, as an independent client sees it."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from websockets.exceptions import ConnectionClosed

from tests.testing.fog_client import SECONDS, FogClient, open_fog, refusal
from tests.testing.server_process import ServerProcess, pids_with, wait_until_none

PROMPT = rb"[$#] "
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture
def terminal(created: dict[str, Any]) -> Iterator[FogClient]:
    """The session's terminal, at its prompt."""
    attach = created["attach"]
    with open_fog(attach["ws_url"], attach["token"]) as client:
        client.expect(PROMPT)
        yield client


# ---------------------------------------------------------------- the reference's example


def test_the_answer_to_create(server: ServerProcess, created: dict[str, Any]) -> None:
    assert set(created) == {"session_id", "attach", "placement"}
    assert UUID.fullmatch(created["session_id"])
    attach = created["attach"]
    assert set(attach) == {"ws_url", "token", "expires_at"}
    assert attach["ws_url"] == f"ws://{server.host}/v1/sessions/{created['session_id']}/pty"
    assert TIME.fullmatch(attach["expires_at"])
    placement = created["placement"]
    assert set(placement) == {"region", "node_id", "tier", "reasons"}
    assert placement["reasons"] == ["fog-preferred", "healthy", "capacity-ok"]
    claims = jwt.decode(attach["token"], options={"verify_signature": False})
    assert claims["session_id"] == created["session_id"]
    assert 900 <= claims["exp"] - claims["iat"] <= 901


def test_a_session_to_the_letter(server: ServerProcess, created: dict[str, Any]) -> None:
    with server.client() as client:
        shown = client.get(f"/v1/sessions/{created['session_id']}").json()
        assert shown["session_id"] == created["session_id"]
        assert shown["status"] == "running"
        assert shown["placement"] == created["placement"]
        assert TIME.fullmatch(shown["created_at"])
        assert TIME.fullmatch(shown["expires_at"])
        assert shown["image_ref"] == ""
        assert client.delete(f"/v1/sessions/{created['session_id']}").json() == {"terminated": True}
        after = client.get(f"/v1/sessions/{created['session_id']}").json()
        assert after["status"] == "terminated"


def test_typing_resizing_and_the_end(terminal: FogClient) -> None:
    terminal.type(b"echo $((6*7))\r")
    terminal.expect(rb"42\r\n")
    terminal.resize(220, 50)
    terminal.type(b"stty size\r")
    terminal.expect(rb"50 220\r\n")
    terminal.type(b"exit 0\r")
    while (frame := terminal.receive())["type"] == "stdout":
        pass
    assert frame == {"type": "exit", "code": 0}
    with pytest.raises(ConnectionClosed) as closed:
        terminal.websocket.recv(timeout=SECONDS)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "exited")


@pytest.mark.parametrize(("script", "code"), [(b"exit 7", 7), (b"kill -9 $$", 137)])
def test_the_real_exit_status(terminal: FogClient, script: bytes, code: int) -> None:
    terminal.type(script + b"\r")
    assert terminal.wait_exit() == code


def test_characters_are_never_split(terminal: FogClient) -> None:
    """Each frame is UTF-8 by itself, whatever the sizes the terminal reads in."""
    unit = "aé€😀ü–𝄞"
    terminal.type(
        f"i=0; while [ $i -lt 15 ]; do x=$x${{x}}{unit}; i=$((i+1)); done; "
        "echo beg''in; echo $x; echo en''d\r".encode()
    )
    expected = ""
    for _ in range(15):
        expected = expected + expected + unit
    terminal.expect(rb"begin\r\n")
    text = ""
    while "end\r\n" not in text:
        frame = terminal.receive()
        assert frame["type"] == "stdout"
        data = base64.b64decode(frame["data_b64"])
        assert len(data) <= 16 * 1024
        text += data.decode("utf-8", errors="strict")
    # What came with the first frame is part of it.
    assert terminal.output.decode().partition("begin\r\n")[2].startswith(expected + "\r\nend")
    assert terminal.frames > 20


def test_bytes_that_are_no_characters_pass(terminal: FogClient) -> None:
    terminal.type(rb"printf 'A\377\376\303(\342\202B'; printf 'tail\360\237'; exit" + b"\r")
    terminal.expect(rb"A\xff\xfe\xc3\(\xe2\x82Btail")
    assert terminal.wait_exit() == 0
    assert terminal.output.endswith(b"tail\xf0\x9f")


def test_frames_that_are_none_are_ignored(terminal: FogClient) -> None:
    for junk in (
        "",
        "{",
        "null",
        "[]",
        '{"type":"stdin"}',
        '{"type":"stdin","data_b64":17}',
        '{"type":"stdin","data_b64":"!!!"}',
        '{"type":"resize","cols":0,"rows":0}',
        '{"type":"resize","cols":99999999,"rows":-1}',
        '{"type":"resize","cols":"80","rows":"24"}',
        '{"type":"kill"}',
        "[" * 50_000,
        json.dumps({"type": "stdin", "data_b64": "A" * 1_000_000 + "!"}),
        b"\x00\x01\x02",
        b"",
    ):
        terminal.websocket.send(junk)
    terminal.type(b"stty size; echo st''ill here\r")
    terminal.expect(rb"24 80\r\nstill here\r\n")


def test_a_text_message_over_the_limit(terminal: FogClient) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        terminal.websocket.send("x" * 2_000_000)
        while True:
            terminal.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_the_shell_goes_on_without_its_client(created: dict[str, Any]) -> None:
    """The ticket can be used again for its 15 minutes; the screen is shown again."""
    attach = created["attach"]
    with open_fog(attach["ws_url"], attach["token"]) as first:
        first.expect(PROMPT)
        first.type(b"x=same; echo scr''een\r")
        first.expect(rb"screen\r\n")
        first.websocket.socket.close()
    with open_fog(attach["ws_url"], attach["token"]) as second:
        second.expect(rb"screen\r\n")
        second.type(b"echo $x\r")
        second.expect(rb"same\r\n")
        # The dialect has one client at a time: the next one takes over.
        with open_fog(attach["ws_url"], attach["token"]) as third:
            third.expect(rb"same\r\n")
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    second.receive()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "taken_over")
            third.type(b"exit\r")
            assert third.wait_exit() == 0
    with open_fog(attach["ws_url"], attach["token"]) as fourth:
        fourth.expect(PROMPT)
        assert b"screen" not in fourth.output  # a new shell


def test_a_client_that_does_not_read(created: dict[str, Any]) -> None:
    """It holds the shell back; it loses nothing when it reads on."""
    attach = created["attach"]
    with open_fog(attach["ws_url"], attach["token"], max_queue=1) as client:
        client.expect(PROMPT)
        client.type(b"seq 1 400000; echo fin''ished\r")
        client.expect(rb"\r\n1\r\n2\r\n")
        # The library reads ahead by one message only; the rest waits in the server and the shell.
        assert _is_blocked(created["session_id"])
        client.expect(rb"finished\r\n")
        text = client.output.partition(b"\r\n1\r\n")[2]
        assert text.startswith(b"".join(b"%d\r\n" % n for n in range(2, 400_001)))


def _is_blocked(session_id: str) -> bool:
    """Wait for seq to sleep, which it does only when its terminal takes no more."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for pid in pids_with("TRUNKLINE_SESSION", session_id):
            try:
                name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(") ")
            except OSError:
                continue
            if name.endswith("(seq") and rest[0] == "S":
                return True
    return False


# ---------------------------------------------------------------- refusals before the upgrade


def test_tickets_that_are_none(created: dict[str, Any]) -> None:
    ws_url, token = created["attach"]["ws_url"], created["attach"]["token"]
    head, _, signature = token.rpartition(".")
    tampered = f"{head}.{signature[:-4]}{'A' * 4 if signature[-4:] != 'AAAA' else 'B' * 4}"
    unsigned = jwt.encode(
        jwt.decode(token, options={"verify_signature": False}), key="", algorithm="none"
    )
    forged = jwt.encode(
        jwt.decode(token, options={"verify_signature": False}), key="0" * 32, algorithm="HS256"
    )
    for bad in (None, "", "garbage", "a.b.c", tampered, unsigned, forged, token + "x", "%00", "é"):
        status, text = refusal(ws_url, bad)
        assert status == 401, bad
        assert text.endswith("\n")
        assert text.strip()
        assert len(text) < 300
    status, text = refusal(ws_url, f"{token}&token={token}")
    assert status == 400


def test_a_ticket_that_has_expired(server: ServerProcess, created: dict[str, Any]) -> None:
    token = server.ticket(created["session_id"], ttl_seconds=1)
    expires = jwt.decode(token, options={"verify_signature": False})["exp"]
    # The one thing here that only time can do.
    time.sleep(max(0.0, expires - time.time()) + 0.05)
    status, text = refusal(created["attach"]["ws_url"], token)
    assert status == 401
    assert "expired" in text


def test_a_ticket_that_was_used(server: ServerProcess, created: dict[str, Any]) -> None:
    ws_url = created["attach"]["ws_url"]
    token = server.ticket(created["session_id"])
    with open_fog(ws_url, token) as client:
        client.expect(PROMPT)
    status, text = refusal(ws_url, token)
    assert status == 401
    assert "used" in text
    twice = server.ticket(created["session_id"], uses=2)
    for _ in range(2):
        with open_fog(ws_url, twice) as client:
            client.expect(PROMPT)
    assert refusal(ws_url, twice)[0] == 401


def test_a_race_for_a_ticket(server: ServerProcess, created: dict[str, Any]) -> None:
    """Of many at the same time, exactly one gets in."""
    ws_url = created["attach"]["ws_url"]
    token = server.ticket(created["session_id"])
    outcomes: list[int] = []
    start = threading.Barrier(8)

    def attach() -> None:
        start.wait(SECONDS)
        try:
            outcomes.append(refusal(ws_url, token)[0])
        except AssertionError:
            outcomes.append(101)

    threads = [threading.Thread(target=attach) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(outcomes) == [101] + [401] * 7


def test_a_ticket_of_another_session(server: ServerProcess, created: dict[str, Any]) -> None:
    other = server.create_session()
    try:
        status, text = refusal(created["attach"]["ws_url"], other["attach"]["token"])
        assert status == 403
        assert "another session" in text
    finally:
        server.delete_session(other["session_id"])
    # Nor does it open anything when its own session has ended.
    assert refusal(created["attach"]["ws_url"], other["attach"]["token"])[0] == 403


def test_sessions_that_are_not_there(server: ServerProcess, created: dict[str, Any]) -> None:
    token = created["attach"]["token"]
    base = f"ws://{server.host}/v1/sessions"
    unknown = "00000000-0000-4000-8000-000000000000"
    assert refusal(f"{base}/{unknown}/pty", token)[0] in (403, 404)
    assert refusal(f"{base}/nonsense/pty", token)[0] in (403, 404)
    assert refusal(f"{base}/{unknown}/nothing", token)[0] == 404
    assert refusal(f"ws://{server.host}/", token)[0] == 404


def test_a_session_that_has_ended(server: ServerProcess) -> None:
    created = server.create_session()
    server.delete_session(created["session_id"])
    status, text = refusal(created["attach"]["ws_url"], created["attach"]["token"])
    assert status == 409
    assert "terminated" in text
    with server.client() as client:
        path = f"/v1/sessions/{created['session_id']}/attach"
        assert client.post(path).status_code == 409


def test_foreign_pages_and_names(server: ServerProcess, created: dict[str, Any]) -> None:
    ws_url, token = created["attach"]["ws_url"], created["attach"]["token"]
    for origin in ("https://evil.example", "null", f"http://{server.host}.evil.example"):
        assert refusal(ws_url, token, origin=origin)[0] == 403
    with open_fog(ws_url, token, origin=f"http://{server.host}") as client:
        client.expect(PROMPT)
    path = f"/v1/sessions/{created['session_id']}/pty"
    for host in (f"evil.example:{server.port}", "evil.example", "127.0.0.1:1", "127.0.0.1"):
        # The connection goes to the server, whatever name the client calls it by.
        with socket.create_connection(("127.0.0.1", server.port), SECONDS) as connection:
            status, text = refusal(f"ws://{host}{path}", token, sock=connection)
        assert status == 421, host
        assert "does not answer to the name" in text


def test_the_ticket_as_a_subprotocol(server: ServerProcess, created: dict[str, Any]) -> None:
    """It is taken, and not sent back."""
    token = server.ticket(created["session_id"])
    with (
        pytest.raises(Exception, match="subprotocol"),
        open_fog(
            created["attach"]["ws_url"],
            None,
            subprotocols=[f"trunk.ticket.{token}"],
        ) as client,
    ):
        assert client.websocket.subprotocol is None
        client.expect(PROMPT)
        raise RuntimeError("it works without a subprotocol")
    status, _ = refusal(
        created["attach"]["ws_url"], server.ticket(created["session_id"]), subprotocols=["chat"]
    )
    assert status == 400


# ---------------------------------------------------------------- ends


def expect_close(client: FogClient, code: int, reason: str) -> float:
    """Read to the end; return how many seconds that took."""
    began = time.monotonic()
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.receive()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)
    return time.monotonic() - began


def test_revocation(server: ServerProcess, created: dict[str, Any], terminal: FogClient) -> None:
    """It closes what is open, within a second, and refuses every ticket made before."""
    ws_url = created["attach"]["ws_url"]
    unused = server.ticket(created["session_id"])
    with server.client() as client:
        answer = client.request("DELETE", f"/v1/sessions/{created['session_id']}/attach")
        assert answer.json() == {"revoked": True}
    assert expect_close(terminal, 1008, "revoked") < 1
    for token in (created["attach"]["token"], unused):
        status, text = refusal(ws_url, token)
        assert status == 401
        assert "revoked" in text
    with open_fog(ws_url, server.ticket(created["session_id"])) as client_again:
        client_again.expect(PROMPT)  # the same shell: it was not ended


def test_termination(server: ServerProcess) -> None:
    created = server.create_session()
    with open_fog(created["attach"]["ws_url"], created["attach"]["token"]) as client:
        client.expect(PROMPT)
        client.type(b"sleep 1000 & nohup sleep 1000 & setsid sleep 1000 & echo star''ted\r")
        client.expect(rb"started\r\n")
        server.delete_session(created["session_id"])
        expect_close(client, 1000, "session_ended")


def test_expiry(server: ServerProcess) -> None:
    """The end of the time to live closes what is open and ends what runs."""
    created = server.create_session(ttl_seconds=2)
    with open_fog(created["attach"]["ws_url"], created["attach"]["token"]) as client:
        client.expect(PROMPT)
        expect_close(client, 1008, "expired")
    assert wait_until_none("TRUNKLINE_SESSION", created["session_id"]) == []
    shown = server.session(created["session_id"])
    assert (shown["status"], shown["state"]) == ("terminated", "expired")
    assert shown["reason"] == "reached the end of its time to live"
    assert refusal(created["attach"]["ws_url"], created["attach"]["token"])[0] == 409


def test_a_view_ticket(server: ServerProcess, created: dict[str, Any], terminal: FogClient) -> None:
    """It reads and cannot type, resize or take over."""
    token = server.ticket(created["session_id"], mode="view")
    with open_fog(created["attach"]["ws_url"], token) as viewer:
        viewer.expect(PROMPT)
        viewer.type(b"echo in''truder\r")
        viewer.resize(10, 10)
        terminal.type(b"stty size; echo wat''ched\r")
        viewer.expect(rb"24 80\r\nwatched\r\n")
        terminal.expect(rb"watched\r\n")
        viewer.type(b"echo in''truder\r")
        terminal.type(b"exit 3\r")
        assert terminal.wait_exit() == 3
        assert viewer.wait_exit() == 3
    assert b"intruder" not in terminal.output


def test_a_ticket_for_one_terminal(server: ServerProcess, created: dict[str, Any]) -> None:
    """Its tag says which."""
    token = server.ticket(created["session_id"], tag="other", kinds=["pty"])
    with open_fog(created["attach"]["ws_url"], token) as client:
        client.expect(PROMPT)
        client.type(b"exit 9\r")
        assert client.wait_exit() == 9
    exec_only = server.ticket(created["session_id"], kinds=["exec"])
    with open_fog(created["attach"]["ws_url"], exec_only) as client:
        expect_close(client, 1008, "forbidden")
