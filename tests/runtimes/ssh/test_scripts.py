from __future__ import annotations

import shutil
import subprocess

import pytest

from relay.endpoint import StartError
from runtimes.ssh.scripts import command_line, environment_words, mark_of

ODD = ("a b", "it's", '"', "$HOME `id` \\ \\n", "new\nline", "", "*", "ü€", "!x", "-n")


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "ksh", "zsh", "fish"])
def test_every_shell_reads_it_alike(shell: str) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    script = 'printf "%s\\0" "$VALUE" "$@"'
    line = command_line(("sh", "-c", script, "name", *ODD), ("VALUE=" + ODD[3],))
    done = subprocess.run([path, "-c", line], capture_output=True, check=True, timeout=20)
    assert done.stdout.decode().split("\0")[:-1] == [ODD[3], *ODD]


def test_variables_that_cannot_be() -> None:
    assert environment_words({"A": "1", "b.c": "x=y"}) == ("A=1", "b.c=x=y")
    for name, value in (("", "x"), ("A=B", "x"), ("-i", "x"), ("A\0", "x"), ("A", "\0")):
        with pytest.raises(StartError, match="variable"):
            environment_words({name: value})


def test_a_mark_is_of_one_session_of_one_server() -> None:
    marks = {mark_of("one", "s"), mark_of("two", "s"), mark_of("one", "s2"), mark_of("on", "es")}
    assert len(marks) == 4
    assert mark_of("one", "s") == mark_of("one", "s")
