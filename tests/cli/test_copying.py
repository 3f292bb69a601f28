"""What `trunkline cp` makes of names: those of its arguments, and those a session tells."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.cli.copying import why_not
from trunkline.cli.cp import Remote, parse_place
from trunkline.cli.progress import Meter, open_meter
from trunkline.sdk.files import FileInfo

ID = "5edb053a-19a2-476e-b620-510834b4f6c6"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{ID}:a/b", Remote(ID, "a/b")),
        (f"{ID.upper()}:/etc", Remote(ID, "/etc")),
        (f"{ID}:", Remote(ID, ".")),
        (f"{ID}:a:b\n", Remote(ID, "a:b\n")),
        (f"./{ID}:a", f"./{ID}:a"),
        (ID, ID),
        ("C:file", "C:file"),
        ("-", "-"),
    ],
)
def test_places(text: str, expected: Remote | str) -> None:
    assert parse_place(text) == expected


def info(path: str, type_: str = "file", **more: Any) -> FileInfo:
    return FileInfo(path=path, type=type_, size=0, mode=0o644, modified=0, etag="e", **more)


@pytest.mark.parametrize("path", ["f", "a/b/c", "...", ".hidden", "a b", "ä"])
def test_names_that_are_copied(path: str) -> None:
    assert why_not(info(path)) is None
    assert why_not(info(path, "directory")) is None


@pytest.mark.parametrize(
    "path", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", "a/.", "a\0b"]
)
def test_names_that_lead_elsewhere_are_not(path: str) -> None:
    assert why_not(info(path)) == "its name leads elsewhere"


def test_what_else_is_not_copied() -> None:
    assert "link" in str(why_not(info("l", "symlink")))
    assert "neither" in str(why_not(info("p", "other")))
    assert "neither" in str(why_not(info("p", "something new")))
    assert "UTF-8" in str(why_not(info("\ufffd", name_base64="/w==")))
    assert "forbidden" in str(why_not(info("d", "directory", error="forbidden")))


def test_a_meter_without_a_terminal_only_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with open_meter(enabled=True) as meter:
        meter.expect(10)
        meter.name("x")
        meter.advance(4)
        meter.advance(-1)
        assert (meter.total, meter.done) == (10, 3)
        meter.notice("hello")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "[trunkline: hello]\n")
    assert isinstance(meter, Meter)
