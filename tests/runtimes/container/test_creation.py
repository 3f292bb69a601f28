"""From a specification to the request that creates its container."""

from __future__ import annotations

from typing import Any

import pytest

from runtimes.base import Mount, Network, ResourceLimits, SandboxError, SandboxSpec
from runtimes.container.creation import (
    LEAST_MEMORY,
    Defaults,
    check_warnings,
    container_name,
    creation,
    home_volume,
)

DEFAULTS = Defaults(image="image:1", server="here")


def create(spec: SandboxSpec, keep: str | None = None) -> Any:
    return creation(spec, DEFAULTS, keep)


def test_the_default_is_shut_in() -> None:
    body = create(SandboxSpec("id", environment={"A": "b", "TRUNKLINE_SESSION": "forged"}))
    host = body["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert not host["Privileged"]
    assert body["Labels"] == {"trunkline.session": "id", "trunkline.server": "here"}
    assert body["Env"] == ["A=b", "TRUNKLINE_SESSION=id"]
    assert body["Image"] == "image:1"
    assert not {"Memory", "PidsLimit", "NanoCpus"} & set(host)


def test_limits_network_image_and_mounts() -> None:
    spec = SandboxSpec(
        "id",
        image="other",
        limits=ResourceLimits(memory_bytes=2**27, processes=9, cpus=0.25),
        network=Network.FULL,
        mounts=(Mount("/data", "/mnt", read_only=False),),
    )
    body = create(spec, "/home/user")
    host = body["HostConfig"]
    assert body["Image"] == "other"
    assert host["NetworkMode"] == "bridge"
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (2**27, 2**27, 9)
    assert host["NanoCpus"] == 250_000_000
    bind, volume = host["Mounts"]
    assert (bind["Source"], bind["Target"], bind["ReadOnly"]) == ("/data", "/mnt", False)
    assert (volume["Source"], volume["Target"]) == (home_volume(spec, "here"), "/home/user")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SandboxSpec(""), "session id"),
        (SandboxSpec("a\0"), "session id"),
        (SandboxSpec("a", environment={"A=": "x"}), "no name of an environment variable"),
        (SandboxSpec("a", environment={"A": "x\0"}), "no name of an environment variable"),
        (SandboxSpec("a", mounts=(Mount("data", "/x"),)), "not absolute"),
        (SandboxSpec("a", limits=ResourceLimits(memory_bytes=LEAST_MEMORY - 1)), "at least"),
    ],
)
def test_what_cannot_be(spec: SandboxSpec, message: str) -> None:
    with pytest.raises(SandboxError, match=message):
        create(spec)


def test_no_image() -> None:
    with pytest.raises(SandboxError, match="set `image` in the profile"):
        creation(SandboxSpec("a"), Defaults(image=None, server="s"), None)


def test_names() -> None:
    assert container_name(SandboxSpec("a/b c"), "n") == "trunkline-a-b-c-n"
    assert home_volume(SandboxSpec("a"), "one") != home_volume(SandboxSpec("a"), "two")


def test_a_limit_that_is_not_enforced_is_an_error() -> None:
    check_warnings(None)
    check_warnings(["Memory limited without swap."])
    with pytest.raises(SandboxError, match="PIDs limit discarded"):
        check_warnings(["x", "Your kernel does not support it. PIDs limit discarded."])
