"""Builds the optional C part (relay/websocket/unmask.c) where there is a compiler.

Without one, or with TRUNKLINE_PURE_PYTHON set, the package is pure Python and does the same, slower.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("relay/websocket/unmask.c")
TARGET = Path("relay/websocket/_unmask.abi3.so")


class CodecBuildHook(BuildHookInterface):
    """Compiles one file against the limited API of Python 3.11."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the compiled file to a wheel; an editable install finds it in the source tree."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        if os.environ.get("TRUNKLINE_PURE_PYTHON"):
            (root / TARGET).unlink(missing_ok=True)
            return
        if not self._compile(root):
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform}"
        build_data["artifacts"].append(f"/{TARGET}")

    def _compile(self, root: Path) -> bool:
        compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or "gcc"]
        include = sysconfig.get_path("include")
        command = [
            *compiler, "-O3", "-fPIC", "-shared", "-Wall", "-Wextra", f"-I{include}",
            str(root / SOURCE), "-o", str(root / TARGET),
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - the builder's own compiler
        except (OSError, subprocess.CalledProcessError) as error:
            (root / TARGET).unlink(missing_ok=True)
            detail = getattr(error, "stderr", "") or str(error)
            self.app.display_warning(f"building without the C codec: {detail.strip()[:500]}")
            return False
        return True
