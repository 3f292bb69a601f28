"""The version, from the installed package's metadata."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("trunkline")
except PackageNotFoundError:  # run from a checkout that was never installed
    VERSION = "0+unknown"

SOFTWARE = f"trunkline/{VERSION}"
"""What both ends tell each other in HELLO."""
