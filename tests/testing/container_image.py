"""A small image for containers, made of programs of this machine; no registry is asked."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

HOME = "/home/user"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"
GROUP = "root:x:0:\nuser:x:1000:\n"

_LIBRARY = re.compile(r"(/\S+) \(0x")


def static_busybox() -> str | None:
    """Return the path of a busybox that needs no libraries, None if there is none."""
    found = shutil.which("busybox")
    if found is None:
        return None
    return None if _libraries(found) else found


def _libraries(program: str) -> list[str]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return _LIBRARY.findall(listed.stdout)


def image_tar(programs: Mapping[str, str]) -> bytes:
    """Return a root file system: busybox, a home, and programs of this machine.

    `programs` maps names in ``/bin`` to paths here; they go before the applets of busybox.
    """
    busybox = static_busybox()
    assert busybox is not None
    applets = subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in (
            *((directory, 0o755) for directory in ("bin", "etc", "home", "root", "lib64")),
            *((("home/user"), 0o755), ("tmp", 0o1777)),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            if name == "home/user":
                entry.uid = entry.gid = 1000
            tar.addfile(entry)
        _add(tar, "bin/busybox", Path(busybox).read_bytes(), 0o755)
        for applet in applets:
            if applet != "busybox" and applet not in programs:
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        _add(tar, "etc/passwd", PASSWD.encode(), 0o644)
        _add(tar, "etc/group", GROUP.encode(), 0o644)
        libraries = {path for program in programs.values() for path in _libraries(program)}
        for name, program in programs.items():
            _add(tar, f"bin/{name}", Path(program).read_bytes(), 0o755)
        for path in libraries:
            _add(tar, path.lstrip("/"), Path(path).read_bytes(), 0o755)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
