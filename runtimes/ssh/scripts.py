"""What runs on the remote machine besides the user's own, and how it is asked for.

An SSH server hands one string to the login shell of the account.  `command_line` makes one that any
shell of the Bourne family (and fish) reads in the same way; it replaces the shell by a POSIX shell with
one of the scripts of `runtimes.exec_inside.scripts`.

Everything that a session starts carries a variable, MARK, in its environment, which is inherited, and
which setsid and a double fork do not take away.  STRAYS finds by it what is left.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping

from relay.endpoint import StartError
from runtimes.exec_inside.scripts import SHELL

MARK = "TRUNKLINE_SANDBOX"

KEEPER = r"""
directory=$1
if [ ! -e "$directory" ]; then printf 'no-directory\n'; exit 1
elif [ ! -d "$directory" ]; then printf 'not-a-directory\n'; exit 1
fi
printf 'ready\n'
while read -r order signal target; do
  count=0
  case $order in
    signal)
      line=
      { read -r line <"/proc/$target/stat"; } 2>/dev/null
      set -- ${line##*) }
      group=$target
      [ "${6:-0}" -gt 0 ] && group=$6
      kill "-$signal" "-$group" 2>/dev/null && count=1 ;;
    sweep)
      found=$(grep -l -s -E "\) [^ZX] [0-9]+ [0-9]+ $target " /proc/[0-9]*/stat)
      for path in $found; do
        process=${path#/proc/}
        process=${process%/stat}
        count=$((count + 1))
        [ "$signal" = 0 ] && continue
        kill "-$signal" "$process" 2>/dev/null
        [ "$signal" = 9 ] || kill -18 "$process" 2>/dev/null
      done ;;
  esac
  printf '%s\n' "$count"
done
"""
"""As that of `runtimes.exec_inside.scripts`, but it lets grep look through all processes of the machine:
a shell reads byte by byte, which is too slow where there are many."""

CHECK = r"""
[ -r /proc/self/stat ] || { printf 'no-proc\n'; exit; }
for program in env grep tr stat; do
  command -v "$program" >/dev/null 2>&1 || { printf 'no-program %s\n' "$program"; exit; }
done
printf 'home %s\n' "${HOME:-/}"
"""
"""Tells what is missing, or else the home of the account."""

STRAYS = r"""
signal=$1
shift
count=0
for mark do
  for path in $(grep -l -F -e "$mark" /proc/[0-9]*/environ 2>/dev/null); do
    process=${path#/proc/}
    process=${process%/environ}
    tr '\0' '\n' <"$path" 2>/dev/null | grep -q -x -F -e "$mark" || continue
    line=
    { read -r line <"/proc/$process/stat"; } 2>/dev/null
    line=${line##*) }
    case ${line:-X} in Z*|X*) continue ;; esac
    count=$((count + 1))
    [ "$signal" = 0 ] && continue
    kill "-$signal" "$process" 2>/dev/null
    [ "$signal" = 9 ] || kill -18 "$process" 2>/dev/null
  done
done
printf '%s\n' "$count"
"""
"""Signals (0: only counts) all processes with one of some marks; tells how many there are."""

_NAME = re.compile(r"[A-Za-z_][^=\0]*")


def mark_of(server: str, session_id: str) -> str:
    """Return the value of the variable MARK of all processes of a session of a server."""
    digest = hashlib.sha256(f"{server}\0{session_id}".encode()).hexdigest()
    return digest[:32]


def environment_words(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return ``NAME=value`` for each variable.

    Raises:
      StartError: one of them cannot be passed.
    """
    for name, value in environment.items():
        if not _NAME.fullmatch(name) or "\0" in value:
            raise StartError(f"{name!r} is no name of a variable, or its value holds a NUL")
    return tuple(f"{name}={value}" for name, value in environment.items())


def command_line(words: tuple[str, ...], variables: tuple[str, ...] = ()) -> str:
    """Return what makes a login shell become `words`, with `variables` added to the environment."""
    return "exec " + shlex.join(("env", *variables, *words))


def keeper(directory: str) -> tuple[str, ...]:
    """Return what gives signals to processes; it reports whether `directory` is there."""
    return (SHELL, "-c", KEEPER, "trunkline", directory)


def strays(signal: int, marks: tuple[str, ...]) -> tuple[str, ...]:
    """Return what signals the processes that carry one of `marks`."""
    carried = (f"{MARK}={mark}" for mark in marks)
    return (SHELL, "-c", STRAYS, "trunkline", str(signal), *carried)


def check() -> tuple[str, ...]:
    """Return what tells whether sandboxes are possible there."""
    return (SHELL, "-c", CHECK)
