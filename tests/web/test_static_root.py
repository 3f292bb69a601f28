"""The package holds everything that the page asks for, and asks for nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from web import static_root

ROOT = static_root()
OURS = sorted(
    path
    for path in ROOT.rglob("*")
    if path.is_file() and "vendor" not in path.relative_to(ROOT).parts
)


PAGES = sorted(ROOT.glob("*.html"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_refers_to_files_that_are_there(page: Path) -> None:
    html = page.read_text()
    found = re.findall(r'"/static/([^"]+)"', html)
    assert len(found) >= {"index.html": 8, "desktop.html": 5}[page.name]
    for path in found:
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_import_map_covers_every_bare_import(page: Path) -> None:
    html = page.read_text()
    (text,) = re.findall(r'<script type="importmap">(.*?)</script>', html)
    known = json.loads(text)["imports"].keys()
    waiting = [ROOT / path for path in re.findall(r'"/static/([^"]+\.js)"', html)]
    waiting = [path for path in waiting if path in OURS]
    assert waiting
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in re.findall(r'^(?:import|export)\b[^;]*?from "([^"]+)"', path.read_text(), re.M):
            if name.startswith("."):
                target = (path.parent / name).resolve()
                assert target.is_file(), f"{path.name} imports {name}"
                waiting.append(target)
            else:
                assert name in known, f"{path.name} imports {name}"
    assert len(seen) > 1


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_the_page_works_offline_and_under_its_policy(path: Path) -> None:
    text = path.read_text()
    allowed = "http://www.w3.org/2000/svg", "https://msgpack.org", "http://…/#code=…"
    for url in re.findall(r"https?://[^\s\"'`<>)$]+", text):
        assert url.rstrip(",.").startswith(allowed), f"{path.name} names {url}"
    assert not re.search(r"\beval\(|new Function|\.innerHTML|document\.write", text)
    assert not re.search(r"<script(?![^>]*(importmap|src=))|\son\w+=", text)


def test_a_package_without_its_pages_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("web.files", lambda _: tmp_path)
    with pytest.raises(FileNotFoundError, match="web pages were not installed"):
        static_root()
