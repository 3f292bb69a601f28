from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from api import pages
from api.pages import import_map_hashes, load_pages

UUID = "550e8400-e29b-41d4-a716-446655440000"


def test_hidden_files_and_links_out_are_left_out(static_root: Path) -> None:
    loaded = load_pages(static_root)
    assert loaded.paths == {
        "index.html",
        "app.mjs",
        "desktop.html",
        "style.css",
        "vendor/x/LICENSE",
    }


def test_too_much(static_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_TOTAL_BYTES", 10)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        load_pages(static_root)


def digest_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_only_import_maps_are_hashed() -> None:
    html = (
        "<script>alert(1)</script><script type=module>x</script>"
        '<SCRIPT TYPE="ImportMap" id=m>\r\n{"a": "&amp;<b>"}\r</SCRIPT>'
        "<!-- <script type=importmap>no</script> -->"
        "<script type=importmap></script>"
    )
    assert import_map_hashes(html) == (digest_of('\n{"a": "&amp;<b>"}\n'), digest_of(""))
