"""A shell in name: one simple command after the other, on a prompt, from a script or from input.

It knows ``;``, quotes, ``>&2``, ``exit``, ``trap '' NAME...`` and ``exec <&-``, and runs the little
programs.
"""

from __future__ import annotations

import shlex
from collections import deque
from dataclasses import replace

from relay.endpoint import Channel, ExitStatus
from runtimes.fake.programs import Invocation, Program, complain, run
from runtimes.fake.streams import BUFFER_BYTES

DEFAULT_PROMPT = "$ "

# Most room that anything the shell itself says at once needs.
_SMALL_TALK = 64

_SURVIVED_AT_THE_PROMPT = frozenset({"INT", "QUIT", "TERM"})


class Shell(Program):
    """Runs `script`; without one, what is typed or piped in."""

    def __init__(self, call: Invocation, script: str | None = None) -> None:
        self._call = call
        self._streams = call.streams
        self._interactive = script is None and call.streams.size is not None
        prompt = call.environment.get("PS1", DEFAULT_PROMPT)
        self._prompt = prompt.encode(errors="surrogateescape")[:_SMALL_TALK]
        self._reads_input = script is None
        self._commands: deque[list[str]] = deque()
        self._child: Program | None = None
        self._prompted = False
        self._ignored: set[str] = set()
        self._last_code = 0
        self._exiting = False
        if script is not None:
            self._parse(script)

    def advance(self, now: float) -> ExitStatus | None:
        """As `Program.advance`."""
        while not self._exiting:
            if self._child is not None:
                status = self._child.advance(now)
                self.wake_at = self._child.wake_at
                if status is None:
                    return None
                self._collect(status)
            elif self._commands:
                self._child = self._run(self._commands.popleft())
            elif not self._reads_input:
                break
            elif not self._read_line():
                return None
        return ExitStatus(code=self._last_code)

    def signal(self, name: str) -> ExitStatus | None:
        """As `Program.signal`.

        The foreground process takes it: on a terminal the program that runs, else all of the group.
        """
        if name in self._ignored:
            return None
        if self._interactive and name != "HUP":
            if self._child is not None:
                status = self._child.signal(name)
                if status is not None:
                    self._collect(status)
                return None
            if name in _SURVIVED_AT_THE_PROMPT:
                self._prompted = False
                return None
        return super().signal(name)

    def _collect(self, status: ExitStatus) -> None:
        self._last_code = 128 if status.code is None else status.code
        self._child = None
        self.wake_at = None
        self._prompted = False
        if self._interactive:
            self._streams.input_ended = False  # ^D ended the program's input, not the shell's

    def _read_line(self) -> bool:
        """Take a line of commands; False when that must wait."""
        streams = self._streams
        if self._interactive and not self._prompted:
            if streams.room() < _SMALL_TALK:
                return False
            streams.write(self._prompt)
            self._prompted = True
        end = streams.input.find(b"\n") + 1
        if not end and (streams.input_ended or len(streams.input) >= BUFFER_BYTES):
            end = len(streams.input)  # the last line, or one that no buffer could ever hold
            self._exiting = not end
            if self._exiting and self._interactive and streams.room() >= _SMALL_TALK:
                streams.write(b"exit\n")
        if not end:
            return self._exiting
        line = bytes(streams.input[:end]).decode(errors="surrogateescape")
        del streams.input[:end]
        self._prompted = False
        self._parse(line)
        return True

    def _parse(self, text: str) -> None:
        for line in text.splitlines():
            words = shlex.shlex(line, posix=True, punctuation_chars=";")
            words.whitespace_split = True
            command: list[str] = []
            try:
                for word in words:
                    if word == ";":
                        self._commands.append(command)
                        command = []
                    else:
                        command.append(word)
            except ValueError as error:
                command = ["syntax-error", str(error)]
            self._commands.append(command)

    def _run(self, words: list[str]) -> Program | None:
        output = self._call.output
        if ">&2" in words:
            words.remove(">&2")
            output = Channel.ERROR
        match words:
            case []:
                return None
            case ["exit", *codes] if not codes or codes[0].isdecimal():
                self._last_code = int(codes[0]) & 0xFF if codes else self._last_code
                self._exiting = True
                return None
            case ["trap", "", *names]:
                self._ignored.update(names)
                return None
            case ["exec", "<&-"]:
                self._streams.input_closed = True
                self._streams.input.clear()
                return None
        call = replace(self._call, arguments=tuple(words), output=output)
        try:
            return run(call)
        except KeyError:
            return complain(call, "command not found", 127)
