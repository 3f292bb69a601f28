from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.api_world import World

INDEX = """<!doctype html>
<title>t</title>
<script type="importmap">
{"imports": {"x": "/static/x.mjs"}}
</script>
<script type="module" src="/static/app.mjs"></script>
"""


@pytest.fixture
def static_root(tmp_path: Path) -> Path:
    root = tmp_path / "static"
    (root / "vendor" / "x").mkdir(parents=True)
    (root / "index.html").write_text(INDEX, encoding="utf-8")
    (root / "desktop.html").write_text("<!doctype html><title>D</title>", encoding="utf-8")
    (root / "app.mjs").write_text("export const a = 1;\n", encoding="utf-8")
    (root / "style.css").write_text("body {}\n", encoding="utf-8")
    (root / "vendor" / "x" / "LICENSE").write_text("MIT\n", encoding="utf-8")
    (root / ".hidden").write_text("secret\n", encoding="utf-8")
    (tmp_path / "outside.txt").write_text("secret\n", encoding="utf-8")
    (root / "leak.txt").symlink_to(tmp_path / "outside.txt")
    return root


@pytest.fixture
def world(static_root: Path) -> World:
    return World(static_root)
