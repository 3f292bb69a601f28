"""Profiles: what a session is made of, and how much of it one owner may have.

In the configuration file::

    [profiles.small]
    max_ttl_seconds = 3600
    max_sessions = 2
    allowed_groups = ["students"]
    command = ["bash", "-l"]
    environment = { LANG = "C.UTF-8" }
    directory = "/work"
    ports = [8080, "3000-3999", "/run/user/1000/vnc.sock"]
    vnc = "/run/user/1000/vnc.sock"
    runtime = "bubblewrap"
    root = "/srv/images/debian"
    limits = { memory = "512M", processes = 100, cpus = 1.5 }
    mounts = [{ source = "/srv/course", target = "/course" }]
    network = "none"
    keep_home = true
    idle_timeout_seconds = 1800
    desktop = { command = ["firefox"], geometry = "1280x800" }

docs/reference/profiles.md explains every key.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from auth.policy import Limits
from relay.endpoint import SocketTarget
from relay.socket_rules import SocketRules
from runtimes.base import DesktopSpec, Mount, Network, ResourceLimits
from runtimes.desktop.launch import desktop_socket

DEFAULT_PROFILE = "default"
DEFAULT_VNC_PORT = 5900

_DAY_SECONDS = 24 * 3600
_HOUR_SECONDS = 3600
_MAX_TTL_SECONDS = 366 * _DAY_SECONDS
_MAX_SESSIONS = 1_000_000
_MAX_TEXT = 4096
_MAX_ITEMS = 256
_MAX_PROCESSES = 1_000_000
_MAX_CPUS = 1024
_MIN_PIXELS = 64
_MAX_PIXELS = 16384
_MIN_MEMORY = 32 * 1024 * 1024
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of session.

    `max_sessions` bounds the live sessions of one owner under this profile.  `allowed_groups`
    None lets everybody use it.  `command` empty means the user's login shell; `environment` is
    added to that of the runtime; `directory` None means the runtime's home.  `ports` are the ports
    and Unix sockets of the sandbox that clients may be connected to, None any.  `vnc` is where the
    desktop is served if a client does not say and there is no `desktop`, which is started for the
    first who wants to see it.

    `runtime` empty means the server's default one.  `image`, `root`, `mounts`, `network` and
    `keep_home` are as in `SandboxSpec`; `resources` are its limits, the ``limits`` of the
    configuration.  A session without input or output for `idle_timeout_seconds` is ended.
    """

    name: str
    max_ttl_seconds: int = _DAY_SECONDS
    default_ttl_seconds: int = _HOUR_SECONDS
    max_sessions: int = 64
    allowed_groups: frozenset[str] | None = None
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    directory: str | None = None
    ports: SocketRules | None = None
    vnc: SocketTarget = field(default_factory=lambda: SocketTarget(DEFAULT_VNC_PORT))
    runtime: str = ""
    image: str | None = None
    root: str | None = None
    resources: ResourceLimits = field(default_factory=ResourceLimits)
    mounts: tuple[Mount, ...] = ()
    network: Network | None = None
    keep_home: bool = False
    idle_timeout_seconds: int | None = None
    desktop: DesktopSpec | None = None

    def vnc_of(self, session_id: str) -> SocketTarget:
        """Return where the desktop of a session is served."""
        return self.vnc if self.desktop is None else desktop_socket(session_id)

    def ports_of(self, session_id: str) -> SocketRules | None:
        """Return what clients of a session may be connected to, its `desktop` included; None: any."""
        path = desktop_socket(session_id).path
        if self.ports is None or self.desktop is None or path is None:
            return self.ports
        return SocketRules(self.ports.ranges, self.ports.paths | {path})

    @property
    def limits(self) -> Limits:
        """What the policy needs to know."""
        return Limits(
            profile=self.name,
            max_ttl_seconds=self.max_ttl_seconds,
            default_ttl_seconds=self.default_ttl_seconds,
            max_sessions=self.max_sessions,
            allowed_groups=self.allowed_groups,
        )


class ProfileError(ValueError):
    """The configuration of a profile is wrong; the message begins with the key."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


def profiles_from_mapping(mapping: Mapping[str, Any]) -> dict[str, Profile]:
    """Return the profiles of the ``[profiles]`` table of a configuration, by name.

    ``default`` is built in; a table of that name changes it.  A key that is left out has the
    built-in value; ``default_ttl_seconds`` then is an hour, or the maximum where that is less.

    Raises:
      ProfileError: a key is unknown or a value is wrong; names it as
        ``profiles.<name>.<key>``.
    """
    if not isinstance(mapping, Mapping):
        raise ProfileError("profiles", "must be a table of profiles, like [profiles.small]")
    profiles = {DEFAULT_PROFILE: Profile(DEFAULT_PROFILE)}
    for name, table in mapping.items():
        if _NAME.fullmatch(name) is None:
            raise ProfileError(
                f"profiles.{name}",
                "a name has 1 to 64 letters, digits, '.', '_' or '-', and begins with a letter or "
                "digit",
            )
        profiles[name] = _profile(name, table)
    return profiles


class _BadValueError(Exception):
    """The value is wrong; who knows the key adds it."""


def _profile(name: str, table: object) -> Profile:
    here = f"profiles.{name}"
    if not isinstance(table, Mapping):
        raise ProfileError(here, "must be a table")
    values: dict[str, Any] = {}
    for key, value in table.items():
        parse = _PARSERS.get(key)
        if parse is None:
            raise ProfileError(f"{here}.{key}", f"unknown key; known are {', '.join(_PARSERS)}")
        try:
            values[key] = parse(value)
        except _BadValueError as exc:
            raise ProfileError(f"{here}.{key}", str(exc)) from None
    maximum = values.get("max_ttl_seconds", _DAY_SECONDS)
    default = values.setdefault("default_ttl_seconds", min(_HOUR_SECONDS, maximum))
    if default > maximum:
        raise ProfileError(
            f"{here}.default_ttl_seconds", f"must not be more than max_ttl_seconds ({maximum})"
        )
    if "limits" in values:
        values["resources"] = values.pop("limits")
    profile = Profile(name, **values)
    if "vnc" in values and profile.desktop is not None:
        raise ProfileError(
            f"{here}.vnc", "leave it out: where a `desktop` is served is chosen for each session"
        )
    if "vnc" in values and not (profile.ports is None or profile.ports.allows(profile.vnc)):
        raise ProfileError(f"{here}.vnc", f"{profile.vnc} is not among ports; add it there")
    return profile


def _positive(maximum: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if type(value) is not int or value < 1:
            raise _BadValueError("must be a positive integer")
        if value > maximum:
            raise _BadValueError(f"must not be more than {maximum}")
        return value

    return parse


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _BadValueError("must be a string that is not empty")
    if len(value) > _MAX_TEXT or "\0" in value:
        raise _BadValueError(f"must have at most {_MAX_TEXT} characters, none of them NUL")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _BadValueError("must be a list of strings")
    if len(value) > _MAX_ITEMS:
        raise _BadValueError(f"must have at most {_MAX_ITEMS} items")
    return tuple(_item(f"item {number}", _text, item) for number, item in enumerate(value, 1))


def _groups(value: object) -> frozenset[str]:
    groups = frozenset(_texts(value))
    if not groups:
        raise _BadValueError("must name at least one group; leave the key out to let everybody in")
    return groups


def _environment(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise _BadValueError("must be a table of strings")
    if len(value) > _MAX_ITEMS:
        raise _BadValueError(f"must have at most {_MAX_ITEMS} variables")
    for name in value:
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise _BadValueError(f"{name!r} cannot be the name of a variable")
    return MappingProxyType({name: _item(name, _value, text) for name, text in value.items()})


def _value(value: object) -> str:
    """Unlike other texts, the value of a variable may be empty."""
    return "" if value == "" else _text(value)


def _ports(value: object) -> SocketRules:
    if not isinstance(value, list):
        raise _BadValueError('must be a list like [8080, "3000-3999", "/run/vnc.sock"]')
    try:
        return SocketRules.parse(value)
    except ValueError as exc:
        raise _BadValueError(str(exc)) from None


def _socket(value: object) -> SocketTarget:
    try:
        if isinstance(value, str) and value.startswith("/"):
            return SocketTarget(path=_text(value))
        if type(value) is int:
            return SocketTarget(value)
    except ValueError as exc:
        raise _BadValueError(str(exc)) from None
    raise _BadValueError("must be a port or the absolute path of a Unix socket")


def _path(value: object) -> str:
    text = _text(value)
    if not text.startswith("/"):
        raise _BadValueError("must be an absolute path")
    return text


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _BadValueError("must be true or false")
    return value


def _network(value: object) -> Network:
    try:
        return Network(str(value))
    except ValueError:
        known = ", ".join(f'"{network}"' for network in Network)
        raise _BadValueError(f"must be one of {known}") from None


def _limits(value: object) -> ResourceLimits:
    if not isinstance(value, Mapping):
        raise _BadValueError('must be a table like { memory = "512M", processes = 100 }')
    found: dict[str, Any] = {}
    for key, item in value.items():
        if key not in _LIMITS:
            raise _BadValueError(f"{key}: unknown key; known are {', '.join(_LIMITS)}")
        field_name, parse = _LIMITS[key]
        try:
            found[field_name] = parse(item)
        except _BadValueError as exc:
            raise _BadValueError(f"{key}: {exc}") from None
    return ResourceLimits(**found)


def _desktop(value: object) -> DesktopSpec:
    if not isinstance(value, Mapping):
        raise _BadValueError(
            'must be a table like { command = ["firefox"], geometry = "1280x800" }'
        )
    found: dict[str, Any] = {}
    for key, item in value.items():
        if key not in _DESKTOP:
            raise _BadValueError(f"{key}: unknown key; known are {', '.join(_DESKTOP)}")
        try:
            found |= _DESKTOP[key](item)
        except _BadValueError as exc:
            raise _BadValueError(f"{key}: {exc}") from None
    if found.get("server") and found.get("command"):
        raise _BadValueError("command: leave it out: a `server` of yours starts what is to be seen")
    return DesktopSpec(**found)


def _geometry(value: object) -> dict[str, int]:
    match = re.fullmatch(r"([0-9]{2,5})x([0-9]{2,5})", value) if isinstance(value, str) else None
    if match is None or not all(_MIN_PIXELS <= int(size) <= _MAX_PIXELS for size in match.groups()):
        raise _BadValueError(
            f'must be like "1280x800", each from {_MIN_PIXELS} to {_MAX_PIXELS} pixels'
        )
    return {"width": int(match[1]), "height": int(match[2])}


def _bytes(value: object) -> int:
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)", value) if isinstance(value, str) else None
    if match is not None:
        size = int(match[1]) << _SHIFTS[match[2]]
    elif type(value) is int:
        size = value
    else:
        raise _BadValueError('must be a number of bytes, or a text like "512M" or "2G"')
    if size < _MIN_MEMORY:
        raise _BadValueError(f"must be at least {_MIN_MEMORY >> 20}M: less starts no sandbox")
    return size


def _cpus(value: object) -> float:
    if type(value) not in (int, float) or not 0.01 <= float(str(value)) <= _MAX_CPUS:
        raise _BadValueError(f"must be a number from 0.01 to {_MAX_CPUS}; 0.5 is half of one")
    return float(str(value))


def _mounts(value: object) -> tuple[Mount, ...]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise _BadValueError('must be a list like [{ source = "/srv/data", target = "/data" }]')
    return tuple(_mount(f"item {number}", item) for number, item in enumerate(value, 1))


def _mount(where: str, value: object) -> Mount:
    if not isinstance(value, Mapping):
        raise _BadValueError(f'{where}: must be like {{ source = "/srv/data", target = "/data" }}')
    for key in value:
        if key not in {"source", "target", "read_only"}:
            raise _BadValueError(
                f"{where}: {key}: unknown key; known are source, target, read_only"
            )
    source = _item(f"{where}: source", _path, value.get("source"))
    target = _item(f"{where}: target", _path, value.get("target"))
    if posixpath.normpath(target) == "/":
        raise _BadValueError(f"{where}: target: must not be /; set root instead")
    try:
        return Mount(source, target, _flag(value.get("read_only", True)))
    except _BadValueError as exc:
        raise _BadValueError(f"{where}: read_only: {exc}") from None


_LIMITS: Mapping[str, tuple[str, Callable[[object], object]]] = MappingProxyType(
    {
        "memory": ("memory_bytes", _bytes),
        "processes": ("processes", _positive(_MAX_PROCESSES)),
        "cpus": ("cpus", _cpus),
    }
)


_DESKTOP: Mapping[str, Callable[[object], Mapping[str, Any]]] = MappingProxyType(
    {
        "command": lambda value: {"command": _texts(value)},
        "geometry": _geometry,
        "server": lambda value: {"server": _texts(value)},
    }
)


def _item(where: str, parse: Callable[[object], str], value: object) -> str:
    try:
        return parse(value)
    except _BadValueError as exc:
        raise _BadValueError(f"{where}: {exc}") from None


_PARSERS: Mapping[str, Callable[[object], object]] = MappingProxyType(
    {
        "max_ttl_seconds": _positive(_MAX_TTL_SECONDS),
        "default_ttl_seconds": _positive(_MAX_TTL_SECONDS),
        "max_sessions": _positive(_MAX_SESSIONS),
        "allowed_groups": _groups,
        "command": _texts,
        "environment": _environment,
        "directory": _text,
        "ports": _ports,
        "vnc": _socket,
        "runtime": _text,
        "image": _text,
        "root": _path,
        "limits": _limits,
        "mounts": _mounts,
        "network": _network,
        "keep_home": _flag,
        "idle_timeout_seconds": _positive(_MAX_TTL_SECONDS),
        "desktop": _desktop,
    }
)
"""Every key of a profile and how its value is read."""
