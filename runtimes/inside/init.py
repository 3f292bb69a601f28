"""The first process of a sandbox: starts the others, reaps them, and passes their ends out.

Theory of operation.  One thread, one loop over two descriptors: the socket that was inherited from
the server, and a pipe that SIGCHLD writes to.  The server asks (`runtimes.inside.messages`), this
answers; nothing here waits for anything else, so nobody inside can hold it up.

Byte sequences never pass through here: the master of a terminal and the ends of pipes are handed to
the server.  TCP sockets are made here and connected there: a socket belongs to the network in which
it was made.  Only a Unix socket is connected here, since its path is looked up by who connects.

An ended child stays a zombie until the server releases it, so that its pid, which is also the name
of its group and session, is not reused while it is still signalled by that name.

When the socket is closed, the server is gone or wants an end: this ends, and the kernel kills
everything in a process namespace whose first process ends.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from types import FrameType

from runtimes.inside import children
from runtimes.inside.lookup import Unusable, find_command, find_directory
from runtimes.inside.messages import (
    RECEIVE_BYTES,
    Decoder,
    MalformedMessage,
    Message,
    MessageTooLong,
    encode,
)

_DESCRIPTORS = 1024
"""The limit that programs expect; the server's own is higher."""

_SHELLS = ("/bin/bash", "/usr/bin/bash", "/bin/zsh", "/bin/ash", "/bin/sh")


class Init:
    """See the top of this file.  `home` is the directory in which relative paths begin."""

    def __init__(self, connection: socket.socket, home: str) -> None:
        self._connection = connection
        self._home = home
        self._decoder = Decoder()
        self._children: dict[int, bool] = {}  # whether it has ended
        self._actions: dict[str, Callable[[Message], tuple[Message, list[int]] | None]] = {
            "enter": self._enter,
            "start": self._start,
            "socket": self._socket,
            "connect": self._connect,
            "signal": self._signal,
            "strike": self._strike,
            "release": self._release,
        }

    def run(self) -> None:
        """Serve until the server is gone."""
        wakeups, writer = os.pipe()
        os.set_blocking(wakeups, False)
        os.set_blocking(writer, False)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        shells = [shell for shell in _SHELLS if os.access(shell, os.X_OK)]
        self._send({"hello": shells or ["/bin/sh"]})
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(wakeups, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == wakeups:
                        with contextlib.suppress(BlockingIOError):
                            os.read(wakeups, 4096)
                        self._reap()
                    elif not self._receive():
                        return

    def _receive(self) -> bool:
        """Do what the server says; False once it is gone."""
        data = self._connection.recv(RECEIVE_BYTES)
        for message in self._decoder.feed(data):
            self._obey(message)
        return bool(data)

    def _obey(self, message: Message) -> None:
        fds: list[int] = []
        answer: Message = {}
        try:
            done = self._actions[message["do"]](message)
            if done is None:
                return
            answer, fds = done
        except (Unusable, children.CannotStart) as error:
            answer = {"error": str(error)}
        except OSError as error:
            answer = {"error": error.strerror or str(error)}
        except (KeyError, TypeError, ValueError) as error:
            answer = {"error": f"the init does not understand {message.get('do')!r}: {error!r}"}
        if "id" in message:
            self._send({"reply": message["id"], **answer}, fds)

    def _send(self, message: Message, fds: Iterable[int] = ()) -> None:
        """Send a message and close the descriptors that go with it."""
        passed = list(fds)
        try:
            try:
                data = encode({**message, "fds": len(passed)} if passed else message)
            except MessageTooLong:
                data = encode({"reply": message.get("reply"), "error": "the answer is too long"})
            sent = 0
            if passed:
                sent = socket.send_fds(self._connection, [data], passed)
            self._connection.sendall(data[sent:])
        finally:
            for fd in passed:
                os.close(fd)

    def _enter(self, message: Message) -> tuple[Message, list[int]]:
        return {"path": find_directory(message["path"], self._home)}, []

    def _start(self, message: Message) -> tuple[Message, list[int]]:
        command: list[str] = message["command"]
        environment: dict[str, str] = message["environment"]
        directory = find_directory(message["directory"], message["home"])
        environment["PWD"] = directory
        executable = find_command(command[0], environment["PATH"], directory)
        if message["kind"] == "pty":
            columns, rows = message["size"]
            pid, fds = children.start_on_terminal(
                executable, command, environment, directory, columns, rows
            )
        else:
            pid, fds = children.start_on_pipes(executable, command, environment, directory)
        self._children[pid] = False
        return {"pid": pid}, fds

    def _socket(self, message: Message) -> tuple[Message, list[int]]:
        family = socket.AF_INET6 if message["family"] == "ipv6" else socket.AF_INET
        return {}, [socket.socket(family, socket.SOCK_STREAM).detach()]

    def _connect(self, message: Message) -> tuple[Message, list[int]]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            try:
                connection.connect(message["path"])
            except BlockingIOError:
                return {"again": True}, []
            return {}, [connection.detach()]

    def _signal(self, message: Message) -> None:
        pid: int = message["pid"]
        if self._children.get(pid) is False:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, message["number"])

    def _strike(self, message: Message) -> tuple[Message, list[int]]:
        session: int | None = message["pid"]
        numbers: list[int] = message["numbers"]
        if session is None:
            for number in numbers:  # in one step: what forks meanwhile is not missed
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(-1, number)
            return {"count": sum(1 for _ in children.living(None))}, []
        count = 0
        for pid in children.living(session):
            count += 1
            for number in numbers:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        return {"count": count}, []

    def _release(self, message: Message) -> None:
        pid: int = message["pid"]
        if self._children.pop(pid, None) is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # else it is reaped with those of nobody

    def _reap(self) -> None:
        for pid, ended in self._children.items():
            if not ended:
                self._look_after(pid)
        for pid in list(children.zombies_of_nobody(self._children)):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def _look_after(self, pid: int) -> None:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if info is not None:
            self._children[pid] = True
            how = "code" if info.si_code == os.CLD_EXITED else "signal"
            self._send({"exited": pid, how: info.si_status})


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the wake-up descriptor does the rest."""


def main() -> None:
    """Be the init; the arguments are the number of the socket's descriptor, and the home."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    # Ctrl-C of nobody ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    children.forbid_inspection()
    with contextlib.suppress(ConnectionError, MalformedMessage):
        Init(connection, sys.argv[2]).run()
