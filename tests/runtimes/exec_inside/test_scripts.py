"""The scripts that run in containers, run by the shells of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from relay.endpoint import StartError, TerminalSize
from runtimes.exec_inside.scripts import (
    connector,
    find_report,
    keeper,
    launch,
    no_connection,
    refusal,
)

SHELLS = {
    "dash": ["dash"],
    "bash": ["bash", "--posix"],
    "busybox": ["busybox", "sh"],
}


@pytest.fixture(params=sorted(SHELLS))
def shell(request: pytest.FixtureRequest) -> list[str]:
    command = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return command


def run(
    shell: list[str], command: tuple[str, ...], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    assert command[0] == "/bin/sh"
    return subprocess.run(
        [*shell, *command[1:]],
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
        start_new_session=True,
    )


def test_a_command_reports_its_own_pid_and_runs(shell: list[str], tmp_path: Path) -> None:
    command = ("sh", "-c", 'echo "$$|$1"; pwd; echo err >&2; exit 7', "x", "a b'\"$c\n*")
    done = run(shell, launch(str(tmp_path), None, command))
    report = find_report(done.stderr)
    assert report is not None
    assert (report.word, report.rest, done.returncode) == ("pid", b"err\n", 7)
    assert done.stdout.decode() == f"{report.pid}|a b'\"$c\n*\n{tmp_path}\n"


@pytest.mark.parametrize(
    ("directory", "command", "word"),
    [
        ("/no/such", ("true",), "no-directory"),
        ("/dev/null", ("true",), "not-a-directory"),
        ("/", ("no-such-command",), "no-command"),
        ("/", ("/no/such",), "no-command"),
        ("/", ("/etc/passwd",), "closed-command"),
        ("/", ("/etc",), "closed-command"),
    ],
)
def test_what_a_user_gets_wrong(
    shell: list[str], directory: str, command: tuple[str, ...], word: str
) -> None:
    done = run(shell, launch(directory, None, command))
    report = find_report(done.stderr)
    assert report is not None
    assert report.word == word
    assert done.returncode in (126, 127)
    assert (directory if "director" in word else command[0]) in refusal(word, directory, command[0])


def test_without_a_command_it_is_the_login_shell(shell: list[str]) -> None:
    done = run(shell, launch("/", None, ()), b"echo from the shell\n")
    assert done.stdout == b"from the shell\n"


def test_a_nul_cannot_be_passed() -> None:
    with pytest.raises(StartError, match="NUL"):
        launch("/", TerminalSize(), ("echo", "\0"))


def test_reports_are_found_on_a_terminal_too() -> None:
    report = find_report(b"noise\x1etrunkline pid 12\r\nrest")
    assert report is not None
    assert (report.word, report.pid, report.rest) == ("pid", 12, b"rest")
    assert find_report(b"\x1etrunkline pid 12") is None


class Running:
    """A keeper of this machine."""

    def __init__(self, shell: list[str], directory: str = "/") -> None:
        self.process = subprocess.Popen(
            [*shell, *keeper(directory)[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def ask(self, order: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        return self.hear()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.communicate(timeout=30)


def test_a_keeper_signals_groups_and_sweeps_sessions(shell: list[str]) -> None:
    running = Running(shell)
    assert running.hear() == "ready"
    script = "trap '' TERM; (trap '' TERM; echo up; sleep 1000) & wait"
    victim = subprocess.Popen(["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"up\n"
    try:
        assert int(running.ask(f"sweep 0 {victim.pid}")) in (2, 3)
        assert running.ask(f"signal {signal.SIGTERM.value} {victim.pid}") == "1"
        assert victim.poll() is None
        assert int(running.ask(f"sweep {signal.SIGKILL.value} {victim.pid}")) >= 2
        assert victim.wait(30) == -signal.SIGKILL
        while running.ask(f"sweep 0 {victim.pid}") != "0":
            pass
        assert running.ask("nonsense") == "0"
        assert os.getpgid(0)  # this process was not hit
    finally:
        victim.kill()
        victim.wait()
        victim.stdout.close()
        running.end()


@pytest.mark.parametrize(
    ("directory", "word"), [("/no/such", "no-directory"), ("/dev/null", "not-a-directory")]
)
def test_a_keeper_looks_at_its_directory(shell: list[str], directory: str, word: str) -> None:
    running = Running(shell, directory)
    assert running.hear() == word
    running.end()


def test_who_does_not_listen_refuses(shell: list[str], tmp_path: Path) -> None:
    for port, path, word, words in (
        (1, None, "refused", "port 1: connection refused"),
        (None, str(tmp_path / "no"), "no-socket", "no such file"),
        (None, str(tmp_path), "not-a-socket", "is no socket"),
    ):
        report = find_report(run(shell, connector(port, path)).stderr)
        assert report is not None
        assert report.word == word
        assert words in no_connection(word, "port 1")


def test_what_is_missing_is_named() -> None:
    assert "install socat or python3" in no_connection("no-connector", "port 1")
