"""From a start request to a running child.

Everything a user can get wrong (no such command, no such directory) is found here, before anything
runs, so that the message can say what was wrong.  All of it touches the file system and may block:
it runs in a worker thread.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from relay.endpoint import Kind, StartError, StartRequest
from runtimes.base import SandboxSpec
from runtimes.inside.lookup import Unusable, find_command, find_directory
from runtimes.local.process import ChildProcess

SESSION_VARIABLE = "TRUNKLINE_SESSION"
"""The variable that every process of a sandbox carries; its value is the session id."""

# What describes the server, not the sandbox: its terminal, its supervisor, its working directory.
_NOT_INHERITED = frozenset(
    {
        *("TERM", "COLORTERM", "COLUMNS", "LINES", "TERM_PROGRAM", "TERM_PROGRAM_VERSION"),
        *("WINDOWID", "TMUX", "TMUX_PANE", "STY"),
        *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
        *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
        *("PWD", "OLDPWD", "SHLVL", "_"),
    }
)
# Our own settings, among them secrets such as TRUNKLINE_TOKEN.
_OWN_PREFIX = "TRUNKLINE_"

_TERMINAL_ENVIRONMENT = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A shell hands down nothing else, so other names would reach a command but not a terminal.
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_LOGIN_OPTION = "-l"
_SHELLS_WITH_LOGIN_OPTION = frozenset(
    {"ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "yash", "zsh"}
)


@dataclass(frozen=True, slots=True)
class Account:
    """Who a process runs as: what a login would take from the user database.

    `uid` and `gid` None mean those of the server itself.
    """

    name: str
    home: str
    shell: str
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def other(cls, name: str) -> Account:
        """Look up a user other than the server's own.

        Raises:
          StartError: there is none, or this server may not start processes as another user.
        """
        if os.geteuid() != 0:
            raise StartError(f"only a server that runs as root can start processes as {name!r}")
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise StartError(f"there is no user {name!r}") from None
        return cls(
            name=name,
            home=entry.pw_dir,
            shell=entry.pw_shell or "/bin/sh",
            uid=entry.pw_uid,
            gid=entry.pw_gid,
        )

    def groups(self) -> list[int] | None:
        """Return the groups to set for a process of another user."""
        return None if self.gid is None else os.getgrouplist(self.name, self.gid)

    @classmethod
    def current(cls, environment: Mapping[str, str]) -> Account:
        """Look the user up; `environment` wins over the user database, as it does in a login."""
        uid = os.getuid()
        try:
            entry = pwd.getpwuid(uid)
            name, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell
        except KeyError:  # a container run with an arbitrary uid
            name, home, shell = str(uid), "/", "/bin/sh"
        home = environment.get("HOME") or home
        return cls(
            name=name,
            home=home if os.access(home, os.X_OK) else "/",
            shell=environment.get("SHELL") or shell or "/bin/sh",
        )


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that is ready to run: `executable` is what `arguments[0]` was found to be."""

    executable: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    account: Account


def prepare(
    request: StartRequest, spec: SandboxSpec, server_environment: Mapping[str, str]
) -> Launch:
    """Work out what exactly `request` means in the sandbox of `spec`.

    Raises:
      StartError: it can't be started, and why.
    """
    account = Account.current(server_environment)
    if request.user is not None and request.user != account.name:
        account = Account.other(request.user)
    environment = environment_for(request, spec, server_environment, account)
    arguments = arguments_for(request, spec, account)
    try:
        directory = find_directory(request.directory, find_directory(spec.directory, account.home))
        executable = find_command(arguments[0], environment["PATH"], directory)
    except Unusable as error:
        raise StartError(str(error)) from error
    environment["PWD"] = directory
    return Launch(executable, arguments, environment, directory, account)


def arguments_for(request: StartRequest, spec: SandboxSpec, account: Account) -> tuple[str, ...]:
    """Return the command to run: that of the request, else the shell.

    Raises:
      StartError: it contains what no command can.
    """
    arguments = request.command or spec.shell or _login_shell(request.kind, account)
    for argument in arguments:
        if "\0" in argument:
            raise StartError("an argument of the command contains a NUL character")
    return tuple(arguments)


def environment_for(
    request: StartRequest,
    spec: SandboxSpec,
    server_environment: Mapping[str, str],
    account: Account,
) -> dict[str, str]:
    """Return the variables that a process starts with; `server_environment` is what it inherits.

    Raises:
      StartError: one that was asked for is impossible.
    """
    environment = {
        "PATH": _DEFAULT_PATH,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell,
    }
    own = frozenset(environment) - {"PATH"} if account.uid is not None else frozenset()
    environment |= {
        name: value
        for name, value in server_environment.items()
        if name not in _NOT_INHERITED
        and name not in own
        and not name.startswith(_OWN_PREFIX)
        and _VARIABLE_NAME.fullmatch(name)
    }
    environment["HOME"] = account.home
    if request.kind is Kind.PTY:
        environment |= _TERMINAL_ENVIRONMENT
    for added in (spec.environment, request.environment):
        for name, value in added.items():
            if not _VARIABLE_NAME.fullmatch(name):
                raise StartError(
                    f"{name!r} can't be the name of an environment variable:"
                    " use letters, digits and underscores, no digit first"
                )
            if "\0" in value:
                raise StartError(f"the environment variable {name} contains a NUL character")
            environment[name] = value
    environment[SESSION_VARIABLE] = spec.session_id
    return environment


def _login_shell(kind: Kind, account: Account) -> tuple[str, ...]:
    name = os.path.basename(account.shell)  # noqa: PTH119 - not a file yet, only a name
    if kind is Kind.PTY and name in _SHELLS_WITH_LOGIN_OPTION:
        return (account.shell, _LOGIN_OPTION)
    return (account.shell,)


def spawn(
    launch: Launch, stdin: int, stdout: int, stderr: int, wrapper: tuple[str, ...] = ()
) -> ChildProcess:
    """Run `launch` as the leader of a new session, with these descriptors.

    `wrapper` is a command that runs the command given to it as further arguments.

    Raises:
      StartError: the system refused.
    """
    if wrapper:
        executable, arguments = wrapper[0], (*wrapper, launch.executable, *launch.arguments[1:])
    else:
        executable, arguments = launch.executable, launch.arguments
    popen = None
    try:
        popen = subprocess.Popen(  # noqa: S603 - running what the user asks for is the job
            arguments,
            executable=executable,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=launch.directory,
            env=launch.environment,
            start_new_session=True,
            user=launch.account.uid,
            group=launch.account.gid,
            extra_groups=launch.account.groups(),
        )
        return ChildProcess(popen)
    except (OSError, ValueError) as error:  # ValueError: text that has no bytes in this locale
        if popen is not None:
            popen.kill()
            popen.wait()
        # The reason alone: which of the paths the system means, it does not say.
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StartError(f"{launch.arguments[0]} can't be started: {reason}") from error
