"""The command that serves a desktop inside a sandbox.

It is a script for /bin/sh, because all that has to be there together belongs inside: a directory that
nobody else can read, the X server in it with a display of its own and a secret for who draws on it, a
window manager, and the application.  It ends with the X server, and ends that when it is told to.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from relay.endpoint import Kind, SocketTarget, StartError, StartRequest
from runtimes.base import DesktopSpec

SOCKET_NAME = "vnc.sock"

_NO_SERVER = 127

# Xauthority: any host (0xffff), any display; then the name and the secret, each with its length.
_RECORD = r"\377\377\000\000\000\000\000\022MIT-MAGIC-COOKIE-1\000\020"
_COOKIE_BYTES = 16

# $1 the directory, $2 the geometry, then the application; the Xauthority record, for printf, is in the
# environment, which others cannot see.
# What begins with the server ends with it, and the directory goes too.
_PRELUDE = r"""
mask=$(umask)
umask 077
directory=$1 geometry=$2 record=$TRUNKLINE_DESKTOP_RECORD
shift 2
unset TRUNKLINE_DESKTOP_RECORD
server= others=
is_ours() { [ -O "$directory" ] && [ ! -L "$directory" ]; }
end() {
  trap '' TERM INT HUP
  kill $others $server 2>/dev/null
  [ -z "$server" ] || wait "$server" 2>/dev/null
  if is_ours; then rm -rf "$directory"; fi
}
trap end EXIT
trap 'exit 0' TERM INT HUP
mkdir "$directory" 2>/dev/null
if ! is_ours; then
  echo "$directory cannot be used: it cannot be made, or belongs to somebody else" >&2
  exit 1
fi
chmod 700 "$directory" || exit 1
rm -f "$directory"/*
"""

_TIGERVNC = (
    _PRELUDE
    + r"""
for program in Xtigervnc Xvnc; do
  command -v "$program" >/dev/null && break
  program=
done
if [ -z "$program" ]; then
  echo "Xtigervnc is not installed" >&2
  exit 127
fi
printf "$record" >"$directory/authority" || exit 1
mkfifo "$directory/display" || exit 1
"$program" -displayfd 3 3>"$directory/display" -auth "$directory/authority" -nolisten tcp \
  -geometry "$geometry" -depth 24 -rfbunixpath "$directory/vnc.sock" -rfbport -1 \
  -SecurityTypes None -AlwaysShared -desktop Trunkline </dev/null &
server=$!
umask "$mask"
read -r number <"$directory/display" || { wait "$server"; exit 1; }
export DISPLAY=":$number" XAUTHORITY="$directory/authority"
command -v xsetroot >/dev/null && xsetroot -solid '#3b4252'
manager=
for name in openbox icewm fluxbox jwm twm; do
  if command -v "$name" >/dev/null; then manager=$name; break; fi
done
case $manager in
openbox)
  # A window that is there before it does not get the focus, and it takes its time at first.
  mkfifo "$directory/managed"
  openbox --startup "echo >'$directory/managed'" </dev/null >/dev/null 2>&1 &
  others=$! ;;
?*)
  "$manager" </dev/null >/dev/null 2>&1 &
  others=$! ;;
esac
if [ $# -eq 0 ]; then
  for terminal in xterm x-terminal-emulator; do
    if command -v "$terminal" >/dev/null; then set -- "$terminal"; break; fi
  done
fi
if [ $# -ne 0 ]; then
  (
    [ ! -p "$directory/managed" ] || timeout 5 sh -c 'read -r _ <"$0"' "$directory/managed"
    exec "$@"
  ) </dev/null &
  others="$others $!"
fi
wait "$server"
"""
)

_OWN_SERVER = (
    _PRELUDE
    + r"""
command -v "$1" >/dev/null || { echo "$1 is not installed" >&2; exit 127; }
"$@" </dev/null &
server=$!
wait "$server"
"""
)


def desktop_socket(session_id: str) -> SocketTarget:
    """Return where the desktop of a session is served, if we start it: a Unix socket inside."""
    return SocketTarget(path=f"{desktop_directory(session_id)}/{SOCKET_NAME}")


def desktop_directory(session_id: str) -> str:
    """Return the directory of the desktop's socket, which is seen inside."""
    return f"/tmp/trunkline-desktop-{session_id}"  # noqa: S108 - made by the script, and checked


def desktop_request(desktop: DesktopSpec, session_id: str) -> StartRequest:
    """Return what to start in the sandbox for its desktop."""
    geometry = f"{desktop.width}x{desktop.height}"
    directory = desktop_directory(session_id)
    if desktop.server:
        values = {
            "socket": f"{directory}/{SOCKET_NAME}",
            "geometry": geometry,
            "width": str(desktop.width),
            "height": str(desktop.height),
        }
        script, command = _OWN_SERVER, fill(desktop.server, values)
    else:
        script, command = _TIGERVNC, desktop.command
    cookie = "".join(f"\\{byte:03o}" for byte in secrets.token_bytes(_COOKIE_BYTES))
    return StartRequest(
        Kind.EXEC,
        ("/bin/sh", "-c", script, "trunkline-desktop", directory, geometry, *command),
        environment={"TRUNKLINE_DESKTOP_RECORD": _RECORD + cookie},
    )


def fill(template: tuple[str, ...], values: Mapping[str, str]) -> tuple[str, ...]:
    """Put `values` in place of their names in braces; other braces stay as they are."""
    filled = []
    for item in template:
        for name, value in values.items():
            item = item.replace(f"{{{name}}}", value)
        filled.append(item)
    return tuple(filled)


def failure(code: int | None, words: str, desktop: DesktopSpec) -> StartError:
    """Return what to tell the user when the desktop ended before it was there."""
    said = f": {words}" if words else ""
    if code == _NO_SERVER and not desktop.server:
        return StartError(
            "the desktop needs Xtigervnc, which is not installed in the sandbox; install the"
            " package tigervnc-standalone-server there, or set desktop.server in the profile"
        )
    return StartError(f"the desktop could not be started{said}")
