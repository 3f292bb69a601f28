"""What a start request comes to: command, environment, directory, and clear refusals."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import trio

from relay.endpoint import Channel, ExitStatus, Kind, StartError, StartRequest
from runtimes.base import Sandbox, SandboxError, SandboxSpec
from runtimes.local import LocalRuntime
from runtimes.local.dispositions import hand_down_default_signals
from runtimes.local.launch import Account, Launch, prepare
from tests.testing.processes import children, descriptors

SPEC = SandboxSpec("launch")
SERVER: Mapping[str, str] = {"HOME": "/tmp", "SHELL": "/bin/bash", "PATH": "/usr/bin:/bin"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    with trio.fail_after(30):
        async with LocalRuntime(grace=0.2, linger=0.2).open_sandbox(SPEC) as sandbox:
            yield sandbox


def prepared(
    request: StartRequest, server: Mapping[str, str] = SERVER, spec: SandboxSpec = SPEC
) -> Launch:
    return prepare(request, spec, server)


def test_the_servers_secrets_and_surroundings_stay_with_the_server() -> None:
    server = {
        **SERVER,
        "TRUNKLINE_TOKEN": "secret",
        "TRUNKLINE_SESSION": "of the server",
        "TERM": "linux",
        "TMUX": "/tmp/tmux",
        "NOTIFY_SOCKET": "/run/notify",
        "COLUMNS": "40",
        "BASH_FUNC_f%%": "() { :; }",
        "LANG": "C.UTF-8",
    }
    environment = prepared(StartRequest(Kind.EXEC, ("true",)), server).environment
    assert environment == {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "LOGNAME": environment["USER"],
        "PATH": "/usr/bin:/bin",
        "PWD": "/tmp",
        "SHELL": "/bin/bash",
        "TRUNKLINE_SESSION": "launch",
        "USER": environment["USER"],
    }


def test_a_terminal_names_itself() -> None:
    environment = prepared(StartRequest(Kind.PTY, ("true",))).environment
    assert environment["TERM"] == "xterm-256color"
    assert environment["COLORTERM"] == "truecolor"


@pytest.mark.parametrize("name", ["", "A=B", "A-B", "1A", "Ä", "A\0"])
def test_names_of_variables(name: str) -> None:
    with pytest.raises(StartError, match="environment variable"):
        prepared(StartRequest(Kind.EXEC, ("true",), environment={name: "x"}))


def test_nul_characters() -> None:
    for request in (
        StartRequest(Kind.EXEC, ("echo", "a\0b")),
        StartRequest(Kind.EXEC, ("true",), environment={"A": "\0"}),
        StartRequest(Kind.EXEC, ("true",), directory="/tmp\0"),
    ):
        with pytest.raises(StartError, match="NUL"):
            prepared(request)


@pytest.mark.parametrize(
    ("kind", "shell", "expected"),
    [
        (Kind.PTY, "/bin/bash", ("/bin/bash", "-l")),
        (Kind.PTY, "/bin/sh", ("/bin/sh", "-l")),
        (Kind.PTY, "/usr/bin/env", ("/usr/bin/env",)),  # no shell we know: no option we know
        (Kind.EXEC, "/bin/bash", ("/bin/bash",)),
    ],
)
def test_the_login_shell(kind: Kind, shell: str, expected: tuple[str, ...]) -> None:
    assert prepared(StartRequest(kind), {**SERVER, "SHELL": shell}).arguments == expected


def test_the_account_comes_from_the_user_database(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account.current({})
    assert account.shell.startswith("/")
    assert account.home.startswith("/")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert Account.current({}) == Account(name="4000000000", home="/", shell="/bin/sh")
    assert Account.current({"HOME": "/no/such/home"}).home == "/"


def test_directories(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    spec = SandboxSpec("s", directory=str(tmp_path))
    request = StartRequest(Kind.EXEC, ("true",), directory="inner")
    launched = prepared(request, spec=spec)
    assert launched.directory == launched.environment["PWD"] == str(tmp_path / "inner")
    (tmp_path / "inner").chmod(0)
    if os.getuid():  # the superuser may enter anything
        with pytest.raises(StartError, match="permission denied"):
            prepared(request, spec=spec)


async def test_what_the_system_refuses(sandbox: Sandbox, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    requests = {
        "No such file": StartRequest(Kind.EXEC, (str(script),)),
        "Argument list too long": StartRequest(Kind.PTY, ("echo", "x" * 10_000_000)),
        "surrogates": StartRequest(Kind.EXEC, ("echo", "\ud800")),
    }
    before = children(), descriptors()
    for reason, request in requests.items():
        with pytest.raises(StartError, match=f"can't be started: .*{reason}"):
            await sandbox.start(request)
    assert (children(), descriptors()) == before


@pytest.mark.parametrize(
    ("kind", "scarce"),
    [
        (Kind.EXEC, "pipe"),
        (Kind.EXEC, "pidfd_open"),
        (Kind.EXEC, "epoll"),
        (Kind.PTY, "openpty"),
        (Kind.PTY, "pidfd_open"),
        (Kind.PTY, "epoll"),
    ],
)
async def test_out_of_descriptors(
    sandbox: Sandbox, kind: Kind, scarce: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> object:
        raise OSError(24, "Too many open files")

    before = children(), descriptors()
    with monkeypatch.context() as patch:
        module = "runtimes.local.channels.select.epoll" if scarce == "epoll" else f"os.{scarce}"
        patch.setattr(module, fail)
        with pytest.raises(StartError, match="Too many open files"):
            await sandbox.start(StartRequest(kind, ("sleep", "1000")))
    assert (children(), descriptors()) == before
    assert sandbox.statistics().endpoints_started == 0


async def test_a_system_without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def attempt() -> None:
        async with LocalRuntime().open_sandbox(SPEC):
            pytest.fail("it opened")

    def fail(_: int) -> int:
        raise OSError(38, "Function not implemented")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", fail)
        with pytest.raises(SandboxError, match=r"Linux 5\.3"):
            await attempt()
    with monkeypatch.context() as patch:
        patch.delattr(os, "pidfd_open")
        with pytest.raises(SandboxError, match="needs Linux"):
            await attempt()


@pytest.mark.parametrize(
    "spec",
    [
        SandboxSpec(""),
        SandboxSpec("a\0b"),
        SandboxSpec("s", environment={"not a name": "x"}),
        SandboxSpec("s", directory="/dev/null"),
    ],
)
async def test_bad_sandboxes(spec: SandboxSpec) -> None:
    async def attempt() -> None:
        async with LocalRuntime().open_sandbox(spec):
            pytest.fail("it opened")

    with pytest.raises(SandboxError):
        await attempt()


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "PIPE"])
@pytest.mark.parametrize("kind", [Kind.EXEC, Kind.PTY])
async def test_signals_the_server_ignores_reach_its_children(
    sandbox: Sandbox, kind: Kind, name: str
) -> None:
    number = signal.Signals[f"SIG{name}"]
    before = signal.signal(number, signal.SIG_IGN)
    try:
        command = ("sh", "-c", f"kill -{name} $$; echo survived")
        endpoint = await sandbox.start(StartRequest(kind, command))
        assert await endpoint.wait() == ExitStatus(signal=name)
        os.kill(os.getpid(), number)  # still as good as ignored
        await trio.lowlevel.checkpoint()
    finally:
        signal.signal(number, before)


async def test_outside_the_main_thread_dispositions_stay_as_they_are() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        await trio.to_thread.run_sync(hand_down_default_signals)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_command_keeps_the_name_it_was_called_by(sandbox: Sandbox) -> None:
    endpoint = await sandbox.start(StartRequest(Kind.EXEC, ("sh", "-c", "echo $0")))
    assert await endpoint.receive(Channel.OUTPUT, 100) == b"sh\n"
