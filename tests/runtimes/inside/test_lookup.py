from __future__ import annotations

from pathlib import Path

import pytest

from runtimes.inside.lookup import Unusable, find_command, find_directory


def test_commands_are_found_as_a_shell_finds_them(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "a-script"
    script.write_text("#!/bin/sh\n")
    here = str(tmp_path)
    with pytest.raises(Unusable, match="a-script is not executable: permission denied"):
        find_command("a-script", "bin", here)
    script.chmod(0o755)
    assert find_command("a-script", "/usr/bin:bin", here) == str(script)
    assert find_command("bin/a-script", "", here) == str(script)
    assert find_command("./a-script", "", str(tmp_path / "bin")) == f"{tmp_path}/bin/./a-script"
    assert find_command("sh", "/no/such:/bin", here) == "/bin/sh"
    with pytest.raises(Unusable, match=r"\./a-script: no such file, seen from"):
        find_command("./a-script", "/bin", here)
    with pytest.raises(Unusable, match="bin: command not found"):
        find_command("bin", here, here)  # a directory is no command
    with pytest.raises(Unusable, match="empty"):
        find_command("", "/bin", here)


def test_directories_begin_at_the_home(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "file").touch()
    home = str(tmp_path)
    assert find_directory(None, home) == home
    assert find_directory("inner", home) == f"{home}/inner"
    assert find_directory("/tmp", home) == "/tmp"
    for wanted, problem in (
        ("none", "none does not exist"),
        ("file", "file is not a directory"),
        ("a\0b", "NUL"),
    ):
        with pytest.raises(Unusable, match=problem):
            find_directory(wanted, home)
