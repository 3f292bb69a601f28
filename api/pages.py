"""The files of the web pages, read once at start-up.

They are few and small (some 2 MB with the libraries), so they are kept in memory.  A request is
answered from a table of the files that were there: no request can name a file outside of it,
however its path is spelled, and no handler ever waits for a disk.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType

CONTENT_TYPES: Mapping[str, str] = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".ico": "image/vnd.microsoft.icon",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".map": "application/json",
        ".md": "text/plain; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".mp3": "audio/mpeg",
        ".oga": "audio/ogg",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".ttf": "font/ttf",
        ".txt": "text/plain; charset=utf-8",
        ".wasm": "application/wasm",
        ".webmanifest": "application/manifest+json",
        ".woff": "font/woff",
        ".woff2": "font/woff2",
    }
)
OTHER_CONTENT_TYPE = "application/octet-stream"

MAX_TOTAL_BYTES = 64 * 1024 * 1024
"""Bytes of all files together; more than that is a mistake, not a set of web pages."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file.  `script_hashes` are those of an HTML page's inline import maps."""

    content: bytes
    content_type: str
    etag: str
    script_hashes: tuple[str, ...] = ()


class StaticPages:
    """The files under one directory, by their path relative to it (``"vendor/x.mjs"``)."""

    def __init__(self, assets: Mapping[str, Asset]) -> None:
        self._assets = MappingProxyType(dict(assets))

    def find(self, path: str) -> Asset | None:
        """Return the file of exactly this path, if there is one."""
        return self._assets.get(path)

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all files."""
        return frozenset(self._assets)


def load_pages(root: Path) -> StaticPages:
    """Read every file under `root`; hidden ones and links that lead out of it are left out.

    Reads from the disk: call it at start-up.  A `root` that does not exist has no files.

    Raises:
      ValueError: the files are larger than `MAX_TOTAL_BYTES` together.
      OSError: a file cannot be read.
    """
    assets = {}
    total = 0
    inside = root.resolve()
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if not path.is_file() or not path.resolve().is_relative_to(inside):
            continue
        content = path.read_bytes()
        total += len(content)
        if total > MAX_TOTAL_BYTES:
            raise ValueError(f"{root}: more than {MAX_TOTAL_BYTES} bytes of web pages")
        assets[relative.as_posix()] = _asset(path.suffix.lower(), content)
    return StaticPages(assets)


def import_map_hashes(html: str) -> tuple[str, ...]:
    """Return the CSP sources that allow the inline import maps of a page, and nothing else."""
    parser = _ImportMaps()
    parser.feed(html)
    parser.close()
    return tuple(
        "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for text in parser.texts
    )


def _asset(suffix: str, content: bytes) -> Asset:
    return Asset(
        content=content,
        content_type=CONTENT_TYPES.get(suffix, OTHER_CONTENT_TYPE),
        etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        script_hashes=import_map_hashes(content.decode()) if suffix == ".html" else (),
    )


class _ImportMaps(HTMLParser):
    """Collects the text of ``<script type="importmap">`` elements."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.texts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and (dict(attrs).get("type") or "").lower() == "importmap":
            self._inside = True
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            # What the browser hashes has its line ends normalised (HTML §13.2.3.5).
            self.texts[-1] += data.replace("\r\n", "\n").replace("\r", "\n")
