"""The command line of bwrap for a sandbox; see docs/topics/runtimes.md for what it amounts to.

Where the server is root, the processes inside are, to the kernel, root without any capability: what
belongs to root can be read by them, and is written to where nothing else forbids it.  So only a
list of what is harmless is taken from ``/etc``, and what ``/proc`` shows of the machine is read-only
or covered, as container engines do it.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtimes.base import Network, SandboxError, SandboxSpec

USER = "user"
UID = 1000
GID = 1000
HOME = "/home/user"

# On the root, which nobody can write to: what is imported from there must stay as it is.
_OURS = "/.trunkline"
_INSIDE = Path(__file__).resolve().parent.parent / "inside"

# `-c` rather than a file: nothing has to be found by a path relative to another.
_INIT = f"import sys; sys.path.insert(0, {_OURS!r}); from runtimes.inside.init import main; main()"
_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3", "/bin/python3")

_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
# What is in these directories of a root is not taken from it.
_REPLACED = frozenset({"dev", "home", "lost+found", "proc", "run", "sys", "tmp"})

_TMPFS = (
    ("/tmp", "1777", 6),  # noqa: S108 - the sandbox's own
    ("/dev/shm", "1777", 2),  # noqa: S108
    ("/run", "0755", 1),
)

_ETC = (
    *("X11", "alternatives", "bash.bashrc", "bash_completion.d", "ca-certificates"),
    *("ca-certificates.conf", "chromium", "chromium.d", "debian_version", "fonts", "gitconfig"),
    *("host.conf", "inputrc", "java-17-openjdk", "java-21-openjdk", "ld.so.cache", "ld.so.conf"),
    *("ld.so.conf.d", "locale.alias", "localtime", "magic", "magic.mime", "mime.types"),
    *("nanorc", "nsswitch.conf", "os-release", "perl", "pki", "profile", "profile.d"),
    *("protocols", "python3", "python3.11", "python3.12", "python3.13", "rpc", "services", "skel"),
    *("ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone", "tmux.conf", "vim", "xdg", "zsh"),
)
_ETC_WITH_NETWORK = ("resolv.conf",)

_READ_ONLY_PROC = ("bus", "driver", "dynamic_debug", "fs", "irq", "mtrr", "sys", "sysrq-trigger")
_COVERED_PROC = (
    *("acpi", "asound", "interrupts", "kallsyms", "kcore", "keys", "kmsg", "kpagecgroup"),
    *("kpagecount", "kpageflags", "latency_stats", "sched_debug", "scsi", "slabinfo"),
    *("timer_list", "timer_stats", "vmallocinfo"),
)


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What bwrap inherits: the init's socket, where it tells the pid, and what holds it back."""

    control: int
    info: int
    block: int


def bwrap_command(
    executable: str, spec: SandboxSpec, home: Path, etc: Mapping[str, Path], fds: Descriptors
) -> list[str]:
    """Return the command that makes the sandbox of `spec` and runs the init in it.

    `home` is the directory that becomes the home, `etc` the files that are put in ``/etc``, by name.

    Raises:
      SandboxError: it could not work, and why.
    """
    root = Path(spec.root or "/")
    return [
        executable,
        # Namespaces of its own, one user without capabilities in them, and no further ones.
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        *("--uid", str(UID), "--gid", str(GID)),
        *("--cap-drop", "ALL"),
        *(["--share-net"] if spec.network is Network.FULL else []),
        *("--hostname", "sandbox"),
        # It ends with the server; it has no terminal of the server's; its init is the first process.
        "--die-with-parent",
        "--new-session",
        "--as-pid-1",
        "--clearenv",
        *_system(root, whole=spec.root is not None),
        *_etc(root, etc, spec),
        *_kernel(),
        *_in_memory(spec.limits.memory_bytes),
        *("--perms", "0700", "--dir", f"/run/user/{UID}"),
        *("--ro-bind", str(_INSIDE), f"{_OURS}/runtimes/inside"),
        *("--bind", str(home), HOME),
        *_mounts(spec),
        *_python_mount(root, whole=spec.root is not None),
        *("--remount-ro", "/"),
        *("--chdir", "/"),
        *("--info-fd", str(fds.info)),
        *("--block-fd", str(fds.block)),
        "--",
        _python(root, whole=spec.root is not None),
        *("-I", "-S", "-B", "-c", _INIT),
        str(fds.control),
        HOME,
    ]


def _system(root: Path, *, whole: bool) -> Iterator[str]:
    """What is seen of the root, read-only; all of it, or the system directories alone."""
    names: list[str] = list(_SYSTEM)
    if whole:
        try:
            names = sorted(entry.name for entry in root.iterdir())
        except OSError as error:
            raise SandboxError(
                f"root: {root} can't be used as the root of a sandbox: {error.strerror}"
            ) from error
        names = [name for name in names if name not in _REPLACED]
    for name in names:
        path = root / name
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode):
            yield from ("--symlink", str(path.readlink()), f"/{name}")
        elif stat.S_ISDIR(mode):
            yield from ("--ro-bind", str(path), f"/{name}")


def _etc(root: Path, ours: Mapping[str, Path], spec: SandboxSpec) -> Iterator[str]:
    if spec.root is None:
        names = (*_ETC, *(_ETC_WITH_NETWORK if spec.network is Network.FULL else ()))
        for name in names:
            yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
    for name, path in ours.items():
        # In a root that has an /etc, only what is there already can be covered.
        if spec.root is None or not (root / "etc").is_dir() or (root / "etc" / name).is_file():
            yield from ("--ro-bind", str(path), f"/etc/{name}")


def _kernel() -> Iterator[str]:
    yield from ("--proc", "/proc", "--dev", "/dev")
    for name in _READ_ONLY_PROC:
        if Path("/proc", name).exists():
            yield from ("--ro-bind", f"/proc/{name}", f"/proc/{name}")
    for name in _COVERED_PROC:
        path = Path("/proc", name)
        if path.is_dir():
            yield from ("--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}")
        elif path.exists():
            yield from ("--ro-bind", "/dev/null", f"/proc/{name}")


def _in_memory(memory: int | None) -> Iterator[str]:
    """What can be written to besides the home.

    It counts as memory, and no process that could be killed holds it: so all together is less than
    the sandbox may have.
    """
    for path, mode, sixteenths in _TMPFS:
        size = () if memory is None else ("--size", str(memory * sixteenths // 16))
        yield from (*size, "--perms", mode, "--tmpfs", path)
    yield from ("--remount-ro", "/dev")


def _mounts(spec: SandboxSpec) -> Iterator[str]:
    for mount in spec.mounts:
        if not Path(mount.source).exists():
            raise SandboxError(
                f"mounts: {mount.source} does not exist; make it, or mend the profile"
            )
        yield from ("--ro-bind" if mount.read_only else "--bind", mount.source, mount.target)


def _python(root: Path, *, whole: bool) -> str:
    """Return the Python that runs the init.

    Raises:
      SandboxError: there is none.
    """
    for candidate in _PYTHONS:
        if os.path.lexists(root / candidate[1:]):
            return candidate
    if whole:
        raise SandboxError(
            f"root: {root} has no Python for the first process of a sandbox; install one there"
            f" (python3, 3.9 or later) as {_PYTHONS[0]}"
        )
    return str(_own_python())


def _python_mount(root: Path, *, whole: bool) -> Iterator[str]:
    """Where the system has no Python, lend it the server's."""
    if not whole and not any(os.path.lexists(candidate) for candidate in _PYTHONS):
        yield from ("--ro-bind", sys.base_prefix, sys.base_prefix)


def _own_python() -> Path:
    return Path(sys.executable).resolve()
