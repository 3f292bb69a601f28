from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from trunkline.sdk.discovery import Server, find_server, leave_note, remove_note, server_file
from trunkline.sdk.errors import ServerNotFound

HERE = "http://127.0.0.1:8080"


def test_nothing_tells_where(own_state: Path) -> None:
    with pytest.raises(ServerNotFound, match=r"'trunkline serve', or set TRUNKLINE_URL"):
        find_server()


def test_the_note(own_state: Path) -> None:
    path = leave_note(HERE, "secret")
    assert path == server_file() == own_state / "trunkline" / "server.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert find_server() == Server(HERE, "secret")
    assert "secret" not in repr(find_server())
    remove_note()
    assert not path.exists()
    remove_note()


def test_somebody_elses_note_stays(own_state: Path) -> None:
    path = leave_note(HERE, "secret")
    other = path.read_text().replace(f'"pid":{os.getpid()}', '"pid":1')
    path.write_text(other)
    remove_note()
    assert path.exists()
    path.write_text("rubbish")
    remove_note()
    assert path.exists()


def test_the_home_directory_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert server_file() == tmp_path / ".local" / "state" / "trunkline" / "server.json"


def test_what_counts_before_what(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_note(HERE, "noted")
    monkeypatch.setenv("TRUNKLINE_TOKEN", "environment")
    assert find_server() == Server(HERE, "environment")
    monkeypatch.setenv("TRUNKLINE_URL", "https://there.example/")
    assert find_server() == Server("https://there.example", "environment")
    assert find_server("http://given:1", "given") == Server("http://given:1", "given")
    assert find_server(token="given") == Server("https://there.example", "given")


def test_a_credential_is_shown_to_its_own_server_only(
    own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_note(HERE, "noted")
    monkeypatch.setenv("TRUNKLINE_URL", "http://elsewhere:8080")
    with pytest.raises(ServerNotFound, match=r"no credential for http://elsewhere:8080"):
        find_server()
    monkeypatch.setenv("TRUNKLINE_URL", HERE + "/")
    assert find_server() == Server(HERE, "noted")
    server_file().unlink()
    with pytest.raises(ServerNotFound, match=r"set TRUNKLINE_TOKEN to reach"):
        find_server()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o602])
def test_a_note_that_others_can_touch_is_not_trusted(own_state: Path, mode: int) -> None:
    leave_note(HERE, "secret").chmod(mode)
    with pytest.raises(ServerNotFound, match="not trusted"):
        find_server()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"url": "x"}', '{"token": "x"}'])
def test_a_broken_note(own_state: Path, content: str) -> None:
    leave_note(HERE, "secret").write_text(content)
    with pytest.raises(ServerNotFound, match="cannot be read"):
        find_server()


@pytest.mark.parametrize(
    "url",
    [
        "here",
        "ftp://x",
        "http://",
        "http://[::1",
        "http://x:99999",
        "http://x:y",
        "http://x/?a=b",
        "http://x/#a",
        "http://x y/",
        "http://x\n",
        "http://ü",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ServerNotFound, match="is not the address of a server"):
        find_server(url, "token")


@pytest.mark.parametrize("token", ["a b", "a\n", "ü", "\x00"])
def test_what_is_no_credential(token: str) -> None:
    with pytest.raises(ServerNotFound, match="no credential") as caught:
        find_server(HERE, token)
    assert token not in str(caught.value).replace("a b", "")
