"""The browser's half of Trunkline: static files only, served by the proxy."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def static_root() -> Path:
    """Return the directory with `index.html`; its files are served under ``/static/``.

    Raises:
      FileNotFoundError: the package was installed without its pages.
    """
    root = Path(str(files("web"))) / "static"
    if not (root / "index.html").is_file():
        raise FileNotFoundError(f"{root / 'index.html'}: the web pages were not installed")
    return root
