from __future__ import annotations

import tomllib
from typing import Any

import pytest

from relay.endpoint import SocketTarget
from relay.socket_rules import SocketRules
from runtimes.base import DesktopSpec, Mount, Network, ResourceLimits
from sessions.profiles import Profile, ProfileError, profiles_from_mapping


def load(text: str) -> dict[str, Profile]:
    return profiles_from_mapping(tomllib.loads(text).get("profiles", {}))


def test_default_exists_out_of_the_box() -> None:
    (profile,) = profiles_from_mapping({}).values()
    assert profile == Profile("default")
    assert profile.max_ttl_seconds == 24 * 3600
    assert profile.default_ttl_seconds == 3600
    assert profile.max_sessions == 64
    assert profile.allowed_groups is None
    assert profile.command == ()
    assert profile.ports is None
    assert profile.vnc == SocketTarget(5900)


def test_everything_can_be_set() -> None:
    profiles = load(
        """
        [profiles.small]
        max_ttl_seconds = 600
        default_ttl_seconds = 60
        max_sessions = 2
        allowed_groups = ["students", "staff"]
        command = ["bash", "-l"]
        environment = { LANG = "C.UTF-8", EMPTY = "" }
        directory = "/work"
        ports = [8080, "3000-3999", "/run/vnc.sock"]
        vnc = "/run/vnc.sock"
        """
    )
    assert set(profiles) == {"default", "small"}
    assert profiles["small"] == Profile(
        "small",
        600,
        60,
        2,
        frozenset({"students", "staff"}),
        ("bash", "-l"),
        {"LANG": "C.UTF-8", "EMPTY": ""},
        "/work",
        SocketRules.parse(["/run/vnc.sock", "3000-3999", 8080]),
        SocketTarget(path="/run/vnc.sock"),
    )
    limits = profiles["small"].limits
    assert (limits.profile, limits.max_ttl_seconds, limits.max_sessions) == ("small", 600, 2)
    assert (limits.default_ttl_seconds, limits.allowed_groups) == (
        60,
        frozenset({"students", "staff"}),
    )


def test_what_a_sandbox_is_made_of() -> None:
    profile = load(
        """
        [profiles.box]
        runtime = "bubblewrap"
        image = "debian:stable"
        root = "/srv/root"
        limits = { memory = "512M", processes = 100, cpus = 1.5 }
        mounts = [
            { source = "/srv/a", target = "/a" },
            { source = "/srv/b", target = "/b", read_only = false },
        ]
        network = "full"
        keep_home = true
        idle_timeout_seconds = 1800
        """
    )["box"]
    assert (profile.runtime, profile.image, profile.root) == (
        "bubblewrap",
        "debian:stable",
        "/srv/root",
    )
    assert profile.resources == ResourceLimits(512 * 1024 * 1024, 100, 1.5)
    assert profile.mounts == (
        Mount("/srv/a", "/a"),
        Mount("/srv/b", "/b", read_only=False),
    )
    assert (profile.network, profile.keep_home) == (Network.FULL, True)
    assert profile.idle_timeout_seconds == 1800
    plain = load("")["default"]
    assert (plain.runtime, plain.resources, plain.network) == ("", ResourceLimits(), None)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64M", 1 << 26), ("1G", 1 << 30), ("33554432", 1 << 25), ("40000K", 40960000)],
)
def test_sizes(text: str, size: int) -> None:
    assert load(f'[profiles.x]\nlimits = {{ memory = "{text}" }}')["x"].resources == ResourceLimits(
        memory_bytes=size
    )


def test_the_default_ttl_follows_a_short_maximum() -> None:
    assert load("[profiles.x]\nmax_ttl_seconds = 60")["x"].default_ttl_seconds == 60
    assert load("[profiles.x]\nmax_ttl_seconds = 7200")["x"].default_ttl_seconds == 3600


def test_default_can_be_changed() -> None:
    assert load("[profiles.default]\nmax_sessions = 3")["default"] == Profile(
        "default", max_sessions=3
    )


@pytest.mark.parametrize("key", ["max_ttl_seconds", "default_ttl_seconds", "max_sessions"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "60", None, []])
def test_numbers_are_positive_integers(key: str, value: object) -> None:
    with pytest.raises(ProfileError) as caught:
        profiles_from_mapping({"small": {key: value}})
    assert str(caught.value) == f"profiles.small.{key}: must be a positive integer"
    assert caught.value.key == f"profiles.small.{key}"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"max_ttl": 1}, r"profiles\.p\.max_ttl: unknown key; known are max_ttl_seconds, "),
        ({"max_ttl_seconds": 10**9}, r"profiles\.p\.max_ttl_seconds: must not be more than"),
        ({"max_sessions": 10**9}, r"profiles\.p\.max_sessions: must not be more than"),
        (
            {"max_ttl_seconds": 5, "default_ttl_seconds": 6},
            r"profiles\.p\.default_ttl_seconds: must not be more than max_ttl_seconds \(5\)",
        ),
        ({"allowed_groups": "all"}, r"profiles\.p\.allowed_groups: must be a list of strings"),
        ({"allowed_groups": []}, r"profiles\.p\.allowed_groups: must name at least one group"),
        ({"allowed_groups": [""]}, r"profiles\.p\.allowed_groups: item 1: must be a string"),
        ({"command": "bash"}, r"profiles\.p\.command: must be a list of strings"),
        ({"command": ["a", 1]}, r"profiles\.p\.command: item 2: must be a string"),
        ({"command": ["a\0"]}, r"profiles\.p\.command: item 1: .*NUL"),
        ({"command": ["a"] * 257}, r"profiles\.p\.command: must have at most 256 items"),
        ({"environment": ["A=B"]}, r"profiles\.p\.environment: must be a table of strings"),
        ({"environment": {"A=": "x"}}, r"profiles\.p\.environment: 'A=' cannot be the name"),
        ({"environment": {"": "x"}}, r"profiles\.p\.environment: '' cannot be the name"),
        ({"environment": {"A": 1}}, r"profiles\.p\.environment: A: must be a string"),
        (
            {"environment": {f"A{n}": "" for n in range(257)}},
            r"profiles\.p\.environment: must have at most 256 variables",
        ),
        ({"directory": ""}, r"profiles\.p\.directory: must be a string that is not empty"),
        ({"directory": "x" * 4097}, r"profiles\.p\.directory: must have at most 4096"),
        ({"ports": 8080}, r"profiles\.p\.ports: must be a list like \[8080, \"3000-3999\""),
        ({"ports": [0]}, r"profiles\.p\.ports: 0: ports go from 1 to 65535"),
        ({"ports": ["all"]}, r"profiles\.p\.ports: 'all' is neither a port"),
        ({"ports": list(range(1, 131, 2))}, r"profiles\.p\.ports: at most 64"),
        ({"vnc": 0}, r"profiles\.p\.vnc: port 0: must be in 1\.\.65535"),
        ({"vnc": "5900"}, r"profiles\.p\.vnc: must be a port or the absolute path"),
        ({"vnc": True}, r"profiles\.p\.vnc: must be a port or the absolute path"),
        (
            {"vnc": 5901, "ports": [5900]},
            r"profiles\.p\.vnc: port 5901 is not among ports; add it there",
        ),
        ({"runtime": ""}, r"profiles\.p\.runtime: must be a string"),
        ({"root": "srv"}, r"profiles\.p\.root: must be an absolute path"),
        ({"keep_home": "yes"}, r"profiles\.p\.keep_home: must be true or false"),
        ({"network": "some"}, r'profiles\.p\.network: must be one of "none", "full"'),
        ({"idle_timeout_seconds": 0}, r"profiles\.p\.idle_timeout_seconds: must be a positive"),
        ({"limits": 5}, r"profiles\.p\.limits: must be a table like"),
        ({"limits": {"ram": 5}}, r"profiles\.p\.limits: ram: unknown key; known are memory, pro"),
        ({"limits": {"memory": "5X"}}, r"profiles\.p\.limits: memory: must be a number of bytes"),
        ({"limits": {"memory": True}}, r"profiles\.p\.limits: memory: must be a number of bytes"),
        ({"limits": {"memory": "1M"}}, r"profiles\.p\.limits: memory: must be at least 32M"),
        ({"limits": {"processes": 0}}, r"profiles\.p\.limits: processes: must be a positive"),
        ({"limits": {"cpus": 0}}, r"profiles\.p\.limits: cpus: must be a number from 0\.01"),
        ({"limits": {"cpus": True}}, r"profiles\.p\.limits: cpus: must be a number"),
        ({"mounts": {}}, r"profiles\.p\.mounts: must be a list like"),
        ({"mounts": ["/a"]}, r"profiles\.p\.mounts: item 1: must be like"),
        (
            {"mounts": [{"source": "/a", "target": "b"}]},
            r"profiles\.p\.mounts: item 1: target: must be an absolute path",
        ),
        (
            {"mounts": [{"source": "/a", "target": "/../"}]},
            r"profiles\.p\.mounts: item 1: target: must not be /; set root",
        ),
        ({"mounts": [{"src": "/a"}]}, r"profiles\.p\.mounts: item 1: src: unknown key"),
        (
            {"mounts": [{"source": "/a", "target": "/b", "read_only": 1}]},
            r"profiles\.p\.mounts: item 1: read_only: must be true or false",
        ),
        ({"desktop": True}, r"profiles\.p\.desktop: must be a table like"),
        (
            {"desktop": {"size": 1}},
            r"profiles\.p\.desktop: size: unknown key; known are command, geo",
        ),
        ({"desktop": {"command": "x"}}, r"profiles\.p\.desktop: command: must be a list"),
        (
            {"desktop": {"geometry": "big"}},
            r'profiles\.p\.desktop: geometry: must be like "1280x800"',
        ),
        ({"desktop": {"geometry": "20x99999"}}, r"profiles\.p\.desktop: geometry: .* 64 to 16384"),
        (
            {"desktop": {"command": ["a"], "server": ["b"]}},
            r"profiles\.p\.desktop: command: leave it out",
        ),
        ({"desktop": {}, "vnc": 5900}, r"profiles\.p\.vnc: leave it out"),
        ("small", r"profiles\.p: must be a table"),
    ],
)
def test_errors_name_the_key(table: Any, message: str) -> None:
    with pytest.raises(ProfileError, match=f"^{message}"):
        profiles_from_mapping({"p": table})


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "é", "a/b"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(ProfileError, match="a name has 1 to 64"):
        profiles_from_mapping({name: {}})


def test_profiles_must_be_a_table() -> None:
    wrong: Any = [1]
    with pytest.raises(ProfileError, match=r"^profiles: must be a table"):
        profiles_from_mapping(wrong)


def test_a_desktop_has_a_place_of_its_own_in_each_session() -> None:
    table = {"desktop": {"command": ["xterm"], "geometry": "640x480"}, "ports": [8080]}
    found = profiles_from_mapping({"p": table})["p"]
    assert found.desktop == DesktopSpec(640, 480, ("xterm",))
    one, other = found.vnc_of("one"), found.vnc_of("other")
    assert one != other
    rules = found.ports_of("one")
    assert rules is not None
    assert rules.allows(one)
    assert rules.allows(SocketTarget(8080))
    assert not rules.allows(other)
    assert found.ports is not None
    assert not found.ports.allows(one)


def test_without_a_desktop_it_is_where_the_profile_says() -> None:
    found = profiles_from_mapping({"p": {"vnc": 5901, "ports": [5901]}, "q": {}})
    assert found["p"].vnc_of("one") == SocketTarget(5901)
    assert found["p"].ports_of("one") == found["p"].ports
    assert found["q"].vnc_of("one") == SocketTarget(5900)
    assert found["q"].ports_of("one") is None
