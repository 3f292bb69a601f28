"""System calls that the standard library does not have."""

from __future__ import annotations

import ctypes
import errno
import os
import platform

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

RENAME_NOREPLACE = 1

_OPENAT2 = 437  # everywhere but on Alpha
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "loongarch64": 276}
"""Where the C library has no function for it (musl)."""

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    """``struct open_how`` of openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _check(result: int, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """Open `path` from `directory` under the rules of `resolve`; return a descriptor.

    Raises:
      OSError: as openat2(2): ENOSYS (or EPERM, under some seccomp filters) where there is none,
        EAGAIN when a rename somewhere kept the kernel from being sure about a ``..``.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    result = _libc.syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_int(directory),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    return _check(int(result), path)


def rename_noreplace(source: int, name: str, target: int, new_name: str) -> None:
    """Rename unless `new_name` exists in the directory `target`: both in one step.

    Raises:
      OSError: EEXIST; ENOSYS or EINVAL where the system or the file system cannot do it.
    """
    arguments = (
        ctypes.c_int(source),
        ctypes.c_char_p(os.fsencode(name)),
        ctypes.c_int(target),
        ctypes.c_char_p(os.fsencode(new_name)),
        ctypes.c_uint(RENAME_NOREPLACE),
    )
    if hasattr(_libc, "renameat2"):
        result = _libc.renameat2(*arguments)
    elif (number := _RENAMEAT2.get(platform.machine())) is not None:
        result = _libc.syscall(ctypes.c_long(number), *arguments)
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name)
    _check(int(result), new_name)
