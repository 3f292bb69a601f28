"""What runs inside a sandbox besides the user's own: three small scripts, and how they report.

They use nothing but a POSIX shell's built-in commands and ``/proc``, so any image with ``/bin/sh``
will do (busybox, dash, bash).  What they say comes from inside the sandbox: it is bounded by who
reads it, and trusted for nothing but what concerns the sandbox itself.

MAIN is the sandbox's first process.  It does nothing but reap orphans, so that no init program is
needed, and the sandbox lives until it is removed.

LAUNCH runs a command.  Who starts it tells the process id as the *host* sees it, if at all, and
gives a different error for each thing that a user can get wrong.  So this script looks for itself, reports
one line (on the error output, or the terminal), and becomes the command: the process keeps its id,
which is also that of its group and session, because container runtimes start every process in a session of its own.

KEEPER waits for orders, since there is no call for signals to such a process, and starting one
more process for each would take 100 ms and more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay.endpoint import StartError, TerminalSize

SHELL = "/bin/sh"

MAIN = "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait; done"

LAUNCH = r"""
say() { printf '\036trunkline %s\n' "$*" >&2; }
directory=$1 rows=$2 columns=$3
shift 3
[ "$rows" = 0 ] || stty rows "$rows" cols "$columns" 2>/dev/null
[ -e "$directory" ] || { say no-directory; exit 126; }
[ -d "$directory" ] || { say not-a-directory; exit 126; }
cd "$directory" 2>/dev/null || { say closed-directory; exit 126; }
if [ $# = 0 ]; then
  own=$(id -u 2>/dev/null)
  found=
  if [ -r /etc/passwd ]; then
    while IFS=: read -r name secret user group about home shell; do
      [ "$user" = "$own" ] && found=$shell
    done </etc/passwd
  fi
  case $found in */nologin|*/false) found= ;; esac
  [ -x "$found" ] || found=/bin/sh
  set -- "$found"
  case $rows:${found##*/} in
    0:*) ;;
    *:ash|*:bash|*:dash|*:fish|*:ksh|*:mksh|*:sh|*:zsh) set -- "$found" -l ;;
  esac
  unset own found name secret user group about home shell
fi
case $1 in
  */*) [ -e "$1" ] || { say no-command; exit 127; }
       [ -f "$1" ] && [ -x "$1" ] || { say closed-command; exit 126; } ;;
  *) command -v "$1" >/dev/null 2>&1 || { say no-command; exit 127; } ;;
esac
say pid $$
unset directory rows columns
exec "$@"
"""

KEEPER = r"""
directory=$1
if [ ! -e "$directory" ]; then printf 'no-directory\n'; exit 1
elif [ ! -d "$directory" ]; then printf 'not-a-directory\n'; exit 1
fi
printf 'ready\n'
fields() { line=; { read -r line <"/proc/$1/stat"; } 2>/dev/null; line=${line##*) }; }
while read -r order signal target; do
  count=0
  case $order in
    signal)
      fields "$target"
      set -- $line
      group=$target
      [ "${6:-0}" -gt 0 ] && group=$6
      kill "-$signal" "-$group" 2>/dev/null && count=1 ;;
    drain)
      cat <"/proc/$target/fd/0" >/dev/null 2>&1 & ;;
    sweep)
      for path in /proc/[0-9]*; do
        process=${path##*/}
        fields "$process"
        set -- $line
        [ "${4:-}" = "$target" ] || continue
        case $1 in Z|X) continue ;; esac
        count=$((count + 1))
        [ "$signal" = 0 ] && continue
        kill "-$signal" "$process" 2>/dev/null
        [ "$signal" = 9 ] || kill -18 "$process" 2>/dev/null
      done ;;
  esac
  printf '%s\n' "$count"
done
"""

MAX_REPORT_BYTES = 16 * 1024
"""How much may come before the report; there is more only where something else speaks first."""

_REPORT = re.compile(rb"\x1etrunkline ([a-z-]+) ?([0-9]*)\r?\n")


def launch(directory: str, size: TerminalSize | None, command: tuple[str, ...]) -> tuple[str, ...]:
    """Return what runs `command` in `directory`, on a terminal of `size`; empty: the login shell.

    Raises:
      StartError: an argument cannot be passed.
    """
    for argument in (directory, *command):
        if "\0" in argument:
            raise StartError("an argument of the command, or its directory, contains a NUL")
    rows, columns = (size.rows, size.columns) if size else (0, 0)
    return (SHELL, "-c", LAUNCH, "trunkline", directory, str(rows), str(columns), *command)


def keeper(directory: str) -> tuple[str, ...]:
    """Return what keeps the processes of one user; it reports whether `directory` is there."""
    return (SHELL, "-c", KEEPER, "trunkline", directory)


@dataclass(frozen=True, slots=True)
class Report:
    """What LAUNCH reported; `rest` came after it and belongs to the command."""

    word: str
    pid: int
    rest: bytes


def find_report(data: bytes) -> Report | None:
    """Return the report in `data`, None if it is not there (yet)."""
    found = _REPORT.search(data)
    if found is None:
        return None
    return Report(found[1].decode(), int(found[2] or 0), data[found.end() :])


def refusal(word: str, directory: str, command: str) -> str:
    """Say what the user got wrong."""
    match word:
        case "no-directory":
            return f"the directory {directory} does not exist"
        case "not-a-directory":
            return f"{directory} is not a directory"
        case "closed-directory":
            return f"the directory {directory} may not be entered"
        case "no-command":
            return f"{command}: command not found"
        case "closed-command":
            return f"{command}: may not be run (it is no executable file)"
        case _:
            return f"{command}: it did not start ({word})"


CONNECT = r"""
say() { printf '\036trunkline %s\n' "$*" >&2; }
port=$1 path=$2 host=127.0.0.1
if [ -n "$path" ]; then
  [ -e "$path" ] || { say no-socket; exit 1; }
  [ -S "$path" ] || { say not-a-socket; exit 1; }
elif [ -r /proc/net/tcp ]; then
  wanted=$(printf '%04X' "$port") found=
  for table in /proc/net/tcp6 /proc/net/tcp; do
    [ -r "$table" ] || continue
    while read -r slot address peer state rest; do
      case $address:$state in
        00000000000000000000000001000000:$wanted:0A) found=::1 ;;
        *:$wanted:0A) found=127.0.0.1 ;;
      esac
    done <"$table"
  done
  [ -n "$found" ] || { say refused; exit 1; }
  host=$found
fi
has() { command -v "$1" >/dev/null 2>&1; }
if has socat; then
  if [ -n "$path" ]; then set -- "UNIX-CONNECT:$path"
  elif [ "$host" = ::1 ]; then set -- "TCP6:[::1]:$port,nodelay"
  else set -- "TCP4:$host:$port,nodelay"
  fi
  say pid $$
  exec socat -t 2147483 STDIO "$1" 2>/dev/null
fi
if has python3; then
  say pid $$
  exec python3 -I -S -c "$3" "$host" "$port" "$path" 2>/dev/null
fi
if [ -z "$path" ]; then
  for program in nc "busybox nc"; do
    has ${program%% *} || continue
    case $($program -h 2>&1 || :) in
      *BusyBox*) say pid $$; exec $program "$host" "$port" 2>/dev/null ;;
      *shutdown*) say pid $$; exec $program -N "$host" "$port" 2>/dev/null ;;
    esac
  done
else
  case $(nc -h 2>&1 || :) in
    *shutdown*) say pid $$; exec nc -N -U "$path" 2>/dev/null ;;
  esac
fi
say no-connector
"""

# One direction in a thread of its own; a direction that ends is ended on the other side too.
CONNECT_PYTHON = r"""
import os, socket, sys, threading
host, port, path = sys.argv[1:]
if path:
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
else:
    server = socket.create_connection((host, int(port)))
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

def send():
    try:
        while data := os.read(0, 65536):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)
    except OSError:
        pass

threading.Thread(target=send, daemon=True).start()
while data := server.recv(65536):
    while data:
        data = data[os.write(1, data):]
"""


def connector(port: int | None, path: str | None) -> tuple[str, ...]:
    """Return what connects its input and output to a server on a port or Unix socket."""
    target = ("", path) if path is not None else (str(port), "")
    return (SHELL, "-c", CONNECT, "trunkline", *target, CONNECT_PYTHON)


def no_connection(word: str, target: str) -> str:
    """Say why there is no connection to `target`."""
    match word:
        case "refused":
            return f"{target}: connection refused"
        case "no-socket":
            return f"{target}: no such file or directory"
        case "not-a-socket":
            return f"{target}: is no socket"
        case "no-connector":
            return (
                f"{target}: nothing in the image can connect to it; install socat or python3 in the"
                " image (for ports, the nc of busybox or OpenBSD will do)"
            )
        case _:
            return f"{target}: cannot be connected to ({word})"
