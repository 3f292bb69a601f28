"""What does file operations inside a sandbox: one script, one verb for each step.

It uses a POSIX shell and the programs that busybox, coreutils and findutils all have.  What it has to
tell comes on the error output in lines that begin with the record separator; what programs complain of
comes there too, in English, and is read by `runtimes.exec_inside.files.calls`.  Paths are absolute.
"""

from __future__ import annotations

FILES = r"""
export LC_ALL=C
format='%f %i %s %Y %Z %y|%z'
tell() { printf '\036%s\n' "$*" >&2; }
fail() { tell "error $1"; exit 1; }
show() { line=$(stat -c "$format" "$1") || exit 1; tell "status $line"; }
follow() { line=$(stat -L -c "$format" "$1") || exit 1; tell "status $line"; }
exists() { [ -e "$1" ] || [ -L "$1" ]; }
date_to() {
  [ "$2" = - ] && return
  touch -d "@$2.$3" "$1" 2>/dev/null || touch -d "@$2" "$1" || exit 1
}
parent_of() {
  parent=${1%/*}
  stat -L -c %f "${parent:-/}" >/dev/null || exit 1
  [ -d "${parent:-/}" ] || fail not_a_directory
}
make_parents() {
  above=$1
  while [ -n "$above" ]; do
    [ -e "$above" ] && [ ! -d "$above" ] && fail not_a_directory
    above=${above%/*}
  done
  mkdir -p "${1:-/}" || exit 1
}
rename() {
  [ -d "$2" ] && [ ! -L "$2" ] && [ ! -d "$1" ] && fail is_a_directory
  mv -f -T "$1" "$2" && return
  exit 1
}
verb=$1
shift
case $verb in
stat) follow "$1" ;;
lstat) show "$1" ;;
read)
  stat -L -c %f "$1" >/dev/null || exit 1
  [ -d "$1" ] && fail is_a_directory
  [ -f "$1" ] || fail invalid
  [ -r "$1" ] || fail forbidden
  exec 3<"$1"
  follow /proc/self/fd/3
  from_start() { if [ "$1" = 1 ]; then cat; else tail -c "+$1"; fi; }
  if [ "$3" = - ]; then from_start "$2" <&3
  else from_start "$2" <&3 2>/dev/null | head -c "$3"
  fi
  follow /proc/self/fd/3 ;;
draft)
  parent_of "$1"
  target=$1
  if [ -L "$1" ]; then target=$(readlink -f "$1") || fail not_found; parent_of "$target"; fi
  if exists "$target"; then show "$target"; umask 077
  else tell nothing; [ "$3" = fresh ] || umask 077
  fi
  [ -d "$target" ] && fail is_a_directory
  draft=${target%/*}/$2
  touch "$draft" || exit 1
  printf '%s\0%s\0' "$target" "$draft"
  tell "room $(df -P -k "${target%/*}/" 2>/dev/null | tail -n 1)" ;;
append) exec cat >>"$1" ;;
truncate)
  truncate -s "$2" "$1" 2>/dev/null && exit
  head -c "$2" "$1" >"$1.cut" && mv -f "$1.cut" "$1" || exit 1 ;;
publish)
  [ "$(stat -c %s "$1")" = "$7" ] || fail no_space
  [ "$3" = - ] || chmod "$3" "$1" || exit 1
  date_to "$1" "$4" "$5"
  if [ "$6" = 1 ]; then rename "$1" "$2"
  else
    exists "$2" && fail exists
    ln "$1" "$2" || exit 1
    rm -f "$1"
  fi
  show "$2" ;;
discard) rm -f "$1" ;;
parents) make_parents "$1" ;;
mkdir)
  if [ "$2" = 1 ]; then make_parents "$1"
  else parent_of "$1"; mkdir "$1" || exit 1
  fi
  [ "$3" = - ] || chmod "$3" "$1" || exit 1
  date_to "$1" "$4" "$5"
  follow "$1" ;;
move)
  stat -c %f "$1" >/dev/null || exit 1
  parent_of "$2"
  if [ "$3" = 0 ]; then
    exists "$2" && fail exists
    if [ ! -d "$1" ] && [ ! -L "$1" ]; then
      ln "$1" "$2" || exit 1
      rm -f "$1"
      show "$2"
      exit
    fi
  fi
  rename "$1" "$2"
  show "$2" ;;
remove)
  own=$(stat -c %d:%i "$1") || exit 1
  show "$1"
  if [ -d "$1" ] && [ ! -L "$1" ]; then
    above=$3
    while :; do
      [ "$(stat -L -c %d:%i "${above:-/}" 2>/dev/null)" = "$own" ] && fail forbidden
      [ -n "$above" ] || break
      above=${above%/*}
    done
    if [ "$2" = 1 ]; then exec rm -rf "$1"; else exec rmdir "$1"; fi
  fi
  exec rm -f "$1" ;;
list)
  stat -L -c %f "$1" >/dev/null || exit 1
  [ -d "$1" ] || fail not_a_directory
  cd "$1" 2>/dev/null || fail forbidden
  [ -r . ] || fail forbidden
  follow .
  find . -mindepth 1 -maxdepth "$2" -exec sh -c '
    format=$1 depth=$2
    shift 2
    for path do
      line=$(stat -c "$format" "$path" 2>/dev/null) || continue
      link= closed=
      [ -L "$path" ] && link=$(readlink "$path"; printf .)
      if [ -d "$path" ] && [ ! -L "$path" ] && [ "$depth" != 1 ]; then
        { [ -r "$path" ] && [ -x "$path" ]; } || closed=1
      fi
      printf "%s\0%s\0%s\0%s\0" "$line" "$closed" "$link" "$path"
    done' sh "$format" "$2" {} + 2>/dev/null
  tell listed ;;
esac
"""
