"""`trunkline attach` in a real terminal."""

from __future__ import annotations

import re
import signal
import termios

import pytest
import trio

from tests.testing.cli import SECONDS, TerminalCli, open_terminal_cli, run_cli
from tests.testing.server_process import ServerProcess

PROMPT = rb"[$#] "
DETACH = b"\x1d"


async def at_prompt(terminal: TerminalCli) -> None:
    """Wait for the shell, and for nothing to be under way in it."""
    await terminal.expect(PROMPT)
    await terminal.type(b"echo re''ady\r")
    await terminal.expect(rb"ready\r\n.*?" + PROMPT)


async def test_typing_and_leaving(env: dict[str, str], session_id: str) -> None:
    with open_terminal_cli(env, "attach", session_id) as terminal:
        before = terminal.attributes()
        await at_prompt(terminal)
        assert terminal.attributes() != before  # raw
        await terminal.type(b"echo $((6*7)) $TERM $TRUNKLINE_SESSION\r")
        await terminal.expect(rb"42 xterm-256color " + session_id.encode() + rb"\r\n")
        await terminal.type(b"exit 5\r")
        assert await terminal.wait() == 5
        assert terminal.attributes() == before


async def test_keys_of_all_kinds(env: dict[str, str], session_id: str) -> None:
    """Ctrl-C, Ctrl-D, Ctrl-Z and bytes that are not UTF-8 reach the shell, not the client."""
    with open_terminal_cli(env, "attach", session_id) as terminal:
        await at_prompt(terminal)
        await terminal.type(b"sleep 1000\r")
        await terminal.expect(rb"sleep 1000\r\n")
        await terminal.type(b"\x03")
        await terminal.expect(rb"\^C.*?" + PROMPT)
        await terminal.type(
            b"stty -echo -icanon min 5 time 0; echo g''o; head -c 5 | od -An -tx1\r"
        )
        await terminal.expect(rb"go\r\n")
        await terminal.type(b"\xff\x00\xc3\xa9\x1b")
        await terminal.expect(rb"ff 00 c3 a9 1b")
        await terminal.type(b"stty sane; echo sa''ne\r")
        await terminal.expect(rb"sane\r\n.*?" + PROMPT)
        await terminal.type(b"cat\r")
        await terminal.expect(rb"cat\r\n")
        await terminal.type(b"\x04")
        await at_prompt(terminal)
        await terminal.type(b"\x04")
        assert await terminal.wait() == 0


async def test_its_size_follows(env: dict[str, str], session_id: str) -> None:
    with open_terminal_cli(env, "attach", session_id, columns=91, rows=17) as terminal:
        await at_prompt(terminal)
        await terminal.type(b"stty size\r")
        await terminal.expect(rb"17 91\r\n")
        script = b"trap 'stty size; exit' WINCH; echo re''ady; while :; do sleep 0.05; done"
        await terminal.type(b'exec sh -c "' + script + b'"\r')
        await terminal.expect(rb"ready\r\n")
        terminal.resize(132, 43)
        await terminal.expect(rb"43 132\r\n")
        assert await terminal.wait() == 0


async def test_leaving_and_coming_back(env: dict[str, str], session_id: str) -> None:
    """Ctrl-] brings the terminal back as it was; the shell goes on, and its screen is there."""
    with open_terminal_cli(env, "attach", session_id) as terminal:
        before = terminal.attributes()
        await at_prompt(terminal)
        await terminal.type(b"x=sec''ret; echo scr''een\r")
        await terminal.expect(rb"screen\r\n")
        # The alternate screen and the mouse are switched off again, the cursor on.
        await terminal.type(rb"printf '\033[?1049;1000h\033[?25l'; echo d''one" + b"\r")
        await terminal.expect(rb"\x1b\[\?1049;1000h.*done\r\n")
        await terminal.type(b"echo not''sent" + DETACH + b"this is lost")
        assert await terminal.wait() == 0
        assert terminal.attributes() == before
        after = terminal.seen.rpartition(b"done\r\n")[2]
        for mode in (b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?25h"):
            assert mode in after
        assert b"detached; 'trunkline attach " + session_id.encode() in after
    with open_terminal_cli(env, "attach", session_id) as terminal:
        await terminal.expect(rb"screen\r\n")
        await terminal.expect(rb"echo not''sent")
        await terminal.type(b"; echo $x\r")
        await terminal.expect(rb"notsent\r\nsecret\r\n")
        await terminal.type(DETACH)
        assert await terminal.wait() == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
async def test_killed_it_leaves_the_terminal_as_it_was(
    env: dict[str, str], session_id: str, number: signal.Signals, code: int
) -> None:
    with open_terminal_cli(env, "attach", session_id) as terminal:
        before = terminal.attributes()
        await at_prompt(terminal)
        terminal.send_signal(number)
        assert await terminal.wait() == code
        assert terminal.attributes() == before
    with open_terminal_cli(env, "attach", session_id) as terminal:
        await terminal.expect(rb"ready\r\n.*?" + PROMPT)
        await terminal.type(b"exit\r")
        assert await terminal.wait() == 0


async def test_the_terminal_is_closed(env: dict[str, str], session_id: str) -> None:
    """As when a terminal window is closed: the client ends, the shell does not."""
    with open_terminal_cli(env, "attach", session_id) as terminal:
        await at_prompt(terminal)
        await terminal.type(b"x=still''here\r")
        await at_prompt(terminal)
        assert await terminal.hang_up() in (129, -signal.SIGHUP)
    with open_terminal_cli(env, "attach", session_id) as terminal:
        await terminal.expect(rb"ready\r\n.*?" + PROMPT)
        await terminal.type(b"echo $x\r")
        await terminal.expect(rb"stillhere\r\n")
        await terminal.type(DETACH)
        assert await terminal.wait() == 0


async def test_two_terminals(env: dict[str, str], session_id: str) -> None:
    """One controls, one watches; the second cannot type, and is told that it can't control."""
    with open_terminal_cli(env, "attach", session_id) as first:
        await at_prompt(first)
        busy = await run_cli(env, "attach", session_id)
        assert busy.code == 1
        assert "controlled by another client" in busy.errors
        assert "add --view to watch, or --takeover to take it over" in busy.errors
        with open_terminal_cli(env, "attach", session_id, "--view") as viewer:
            await viewer.expect(rb"ready\r\n")
            await viewer.type(b"echo in''truder\r")
            await first.type(b"echo wat''ched\r")
            await viewer.expect(rb"watched\r\n")
            await first.expect(rb"watched\r\n")
            viewer.resize(20, 5)
            await first.type(b"stty size\r")
            await first.expect(rb"24 80\r\n")
            with open_terminal_cli(env, "attach", session_id, "--takeover") as taker:
                assert await first.wait() == 1
                assert b"taken_over" in first.seen
                await taker.expect(rb"24 80\r\n.*?" + PROMPT)
                await taker.type(b"echo mine n''ow\r")
                await viewer.expect(rb"mine now\r\n")
                await taker.type(b"exit 4\r")
                assert await taker.wait() == 4
                assert await viewer.wait() == 4
                assert b"intruder" not in taker.seen + viewer.seen + first.seen


async def test_a_viewer_can_leave(env: dict[str, str], session_id: str) -> None:
    with open_terminal_cli(env, "attach", session_id) as terminal:
        await at_prompt(terminal)
        with open_terminal_cli(env, "attach", session_id, "--view") as viewer:
            await viewer.expect(rb"ready\r\n")
            await viewer.type(b"abc" + DETACH)
            assert await viewer.wait() == 0
            assert viewer.attributes()[3] & termios.ECHO
        await terminal.type(b"exit\r")
        assert await terminal.wait() == 0


async def test_viewing_what_is_not_there(env: dict[str, str], session_id: str) -> None:
    ended = await run_cli(env, "attach", session_id, "--view")
    assert ended.code == 1
    assert "there is no stream 'main'; 'trunkline attach' without --view starts it" in ended.errors


async def test_old_questions_are_not_answered(env: dict[str, str], session_id: str) -> None:
    """What programs asked the terminal before is not asked again when the screen is replayed."""
    with open_terminal_cli(env, "attach", session_id) as terminal:
        await at_prompt(terminal)
        await terminal.type(rb"printf '\033[c\033[6n\033]11;?\007\033[>q'; echo as''ked" + b"\r")
        # A live question gets through.
        await terminal.expect(rb"\x1b\[c\x1b\[6n\x1b\]11;\?\x07\x1b\[>qasked\r\n")
        await terminal.type(DETACH)
        assert await terminal.wait() == 0
    with open_terminal_cli(env, "attach", session_id) as terminal:
        replayed = await terminal.expect(rb"asked\r\n.*?" + PROMPT)
        screen = terminal.seen[: replayed.end()]
        for question in (b"\x1b[c", b"\x1b[6n", b"\x1b]11;?", b"\x1b[>q"):
            assert question not in screen
        # A terminal that answers all the same, and a person who types meanwhile.
        await terminal.type(b"echo per''son\r")
        await terminal.expect(rb"person\r\n.*?" + PROMPT)
        await terminal.type(b"exit\r")
        assert await terminal.wait() == 0


async def test_a_flood_does_not_hold_ctrl_c_back(env: dict[str, str], session_id: str) -> None:
    with open_terminal_cli(env, "attach", session_id) as terminal:
        await at_prompt(terminal)
        await terminal.type(b"yes flood\r")
        await terminal.expect(rb"(flood\r\n){1000}")
        await terminal.type(b"\x03")
        await terminal.expect(PROMPT)
        await terminal.type(b"echo o''ver\r")
        await terminal.expect(rb"over\r\n")
        await terminal.type(b"exit\r")
        assert await terminal.wait() == 0


async def test_a_big_paste(env: dict[str, str], session_id: str) -> None:
    """Much more than a terminal's own buffer arrives whole, while its echo comes back."""
    lines = [b"%05d %s" % (n, b"x" * 60) for n in range(4000)]
    with open_terminal_cli(env, "attach", session_id) as terminal:
        await at_prompt(terminal)
        await terminal.type(b"cat | cksum; echo pas''ted\r")
        await terminal.expect(rb"pas''ted\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.type, b"\r".join(lines) + b"\r\x04")
            match = await terminal.expect(rb"\r\n(\d+ \d+)\r\npasted\r\n")
        assert match[1].split()[1] == b"%d" % sum(len(line) + 1 for line in lines)
        await terminal.type(b"exit\r")
        assert await terminal.wait() == 0


async def test_exec_with_a_terminal(env: dict[str, str], session_id: str) -> None:
    script = "tty; stty size; read x; echo got $x; exit 11"
    with open_terminal_cli(
        env, "exec", session_id, "--tty", "--", "sh", "-c", script, columns=70, rows=11
    ) as terminal:
        before = terminal.attributes()
        await terminal.expect(rb"/dev/pts/\d+\r\n11 70\r\n")
        await terminal.type(b"it\r")
        await terminal.expect(rb"got it\r\n")
        assert await terminal.wait() == 11
        assert terminal.attributes() == before


async def test_exec_without_a_terminal_keeps_it_cooked(
    env: dict[str, str], session_id: str
) -> None:
    """Ctrl-C in the user's terminal is a signal for the client, which passes it on."""
    script = "trap 'echo trapped; exit 12' INT; echo rea''dy; while :; do sleep 0.05; done"
    with open_terminal_cli(env, "exec", session_id, "--", "sh", "-c", script) as terminal:
        await terminal.expect(rb"ready\r\n")
        await terminal.type(b"\x03")
        await terminal.expect(rb"trapped\r\n")
        assert await terminal.wait() == 12


async def test_attach_without_a_terminal(env: dict[str, str], session_id: str) -> None:
    """In a pipe it shows what comes and types what is piped in; Ctrl-] is only a byte there."""
    ended = await run_cli(env, "attach", session_id, stdin=b"echo pi''ped; exit 3\n")
    assert ended.code == 3
    assert b"piped\r\n" in ended.stdout


async def test_the_session_ends(server: ServerProcess, env: dict[str, str]) -> None:
    session = server.create_session()["session_id"]
    with open_terminal_cli(env, "attach", session) as terminal:
        before = terminal.attributes()
        await at_prompt(terminal)
        with trio.fail_after(SECONDS):
            await trio.to_thread.run_sync(server.delete_session, session)
        assert await terminal.wait() == 1
        assert b"session_ended" in terminal.seen
        assert terminal.attributes() == before
    assert re.search(rb"\n[^\r]*trunkline: closed: session_ended", terminal.seen)
