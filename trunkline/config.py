"""The configuration file of `trunkline serve`: TOML, every key checked.

public_url = "https://shell.example.com"
allowed_hosts = ["shell.example.com"]

[node]
region = "eu-west-1"
node_id = "fog-node-1"

[streams]
ring_bytes = 1048576

[profiles.small]
max_ttl_seconds = 3600
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from api.addresses import is_host
from relay.limits import StreamLimits
from sessions.placement import EMBEDDED_NODE, Node, Tier
from sessions.profiles import Profile, ProfileError, profiles_from_mapping
from trunkline.runtime_tables import RuntimesTable


class ConfigError(Exception):
    """The file cannot be used; the message names it and the key."""


_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class _NodeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    region: _Name = EMBEDDED_NODE.region
    node_id: _Name = EMBEDDED_NODE.node_id
    tier: Tier = EMBEDDED_NODE.tier


_LIMITS = StreamLimits()


class _StreamsTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ring_bytes: _Positive = _LIMITS.ring_bytes
    linger_seconds: _Seconds = _LIMITS.linger
    retention_seconds: _Seconds = _LIMITS.retention
    budget_bytes: _Positive = _LIMITS.budget_bytes
    max_streams: _Positive = _LIMITS.max_streams
    max_passages: _Positive = _LIMITS.max_passages
    max_attachments: _Positive = _LIMITS.max_attachments


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    public_url: str | None = None
    allowed_hosts: tuple[_Name, ...] = ()
    allowed_origins: tuple[_Name, ...] = ()
    grace_seconds: _Seconds = 5.0
    spin_microseconds: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    node: _NodeTable = _NodeTable()
    streams: _StreamsTable = _StreamsTable()
    runtimes: RuntimesTable = RuntimesTable()
    profiles: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Config:
    """What the file says, or the defaults.

    `allowed_hosts` are names that clients may call this server by, besides those it is bound to;
    `allowed_origins` are pages of other servers that may use it.  `grace` is what clients get when
    the server stops, in seconds.  `spin_microseconds` is how long the reactor looks out for more
    before it sleeps: 30 halves the delay of an echo, and keeps a processor busier while there is traffic.
    """

    public_url: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    grace: float = 5.0
    spin_microseconds: float = 0.0
    node: Node = EMBEDDED_NODE
    streams: StreamLimits = field(default_factory=StreamLimits)
    runtimes: RuntimesTable = field(default_factory=RuntimesTable)
    profiles: Mapping[str, Profile] = field(default_factory=lambda: profiles_from_mapping({}))


def _is_origin(url: str) -> bool:
    scheme, _, host = url.partition("://")
    return scheme.lower() in {"http", "https"} and is_host(host.removesuffix("/"))


def _check_names(read: _File) -> None:
    """Refuse names and addresses that no request could ever match.

    Raises:
      ValueError: one is malformed; the message begins with the key.
    """
    if read.public_url is not None and not _is_origin(read.public_url):
        raise ValueError(
            f"public_url: {read.public_url!r} must look like https://shell.example.com"
        )
    for host in read.allowed_hosts:
        if not is_host(host):
            raise ValueError(f"allowed_hosts: {host!r} must look like name or name:port")
    for origin in read.allowed_origins:
        if not _is_origin(origin):
            raise ValueError(
                f"allowed_origins: {origin!r} must look like https://name or with :port"
            )


def load_config(path: Path | None) -> Config:
    """Read the file at `path`; None gives the defaults.

    Raises:
      ConfigError: it cannot be read, or something in it is wrong.
    """
    if path is None:
        return Config()
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
        read = msgspec.convert(content, _File)
        _check_names(read)
        profiles = profiles_from_mapping(read.profiles)
        streams = StreamLimits(
            ring_bytes=read.streams.ring_bytes,
            read_bytes=min(_LIMITS.read_bytes, read.streams.ring_bytes),
            linger=read.streams.linger_seconds,
            retention=read.streams.retention_seconds,
            budget_bytes=read.streams.budget_bytes,
            max_streams=read.streams.max_streams,
            max_passages=read.streams.max_passages,
            max_attachments=read.streams.max_attachments,
        )
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (ProfileError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return Config(
        public_url=read.public_url,
        allowed_hosts=read.allowed_hosts,
        allowed_origins=read.allowed_origins,
        grace=read.grace_seconds,
        spin_microseconds=read.spin_microseconds,
        node=Node(node_id=read.node.node_id, region=read.node.region, tier=read.node.tier),
        streams=streams,
        runtimes=read.runtimes,
        profiles=profiles,
    )
