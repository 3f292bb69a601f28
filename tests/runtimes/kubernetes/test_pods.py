"""What is asked of a cluster, and what is made of its answers."""

from __future__ import annotations

from typing import Any

import pytest

from runtimes.base import Mount, Network, ResourceLimits, SandboxError, SandboxSpec
from runtimes.kubernetes.pods import (
    Defaults,
    Readiness,
    deletion_grace,
    label_value,
    manifest,
    pod_name,
    readiness,
)

DEFAULTS = Defaults(image="debian", server="one")


def container(spec: SandboxSpec, defaults: Defaults = DEFAULTS) -> dict[str, Any]:
    made = manifest(spec, defaults, "name", 2.0)
    found: dict[str, Any] = made["spec"]["containers"][0]
    return found


def test_a_pod_is_shut_in_and_labelled() -> None:
    made = manifest(SandboxSpec("s-1"), DEFAULTS, "name", 2.0)
    labels = {"trunkline.dev/session": "s-1", "trunkline.dev/server": "one"}
    assert made["metadata"]["labels"] == labels
    assert made["metadata"]["annotations"] == {"trunkline.dev/session": "s-1"}
    assert made["spec"]["automountServiceAccountToken"] is False
    assert made["spec"]["restartPolicy"] == "Never"
    security = made["spec"]["containers"][0]["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["allowPrivilegeEscalation"] is False


def test_what_a_profile_says() -> None:
    limits = ResourceLimits(memory_bytes=64 << 20, cpus=0.5)
    spec = SandboxSpec("s", image="alpine", environment={"A": "$(B) $"}, limits=limits)
    made = container(spec)
    assert made["image"] == "alpine"
    assert made["resources"] == {"limits": {"memory": "67108864", "cpu": "500m"}}
    assert {"name": "A", "value": "$$(B) $$"} in made["env"]
    assert {"name": "TRUNKLINE_SESSION", "value": "s"} in made["env"]


def test_a_template_is_added_to() -> None:
    template = {
        "metadata": {"labels": {"team": "x", "trunkline.dev/session": "forged"}},
        "spec": {
            "nodeSelector": {"a": "b"},
            "restartPolicy": "Always",
            "containers": [
                {
                    "name": "main",
                    "image": "from-template",
                    "env": [{"name": "A", "value": "old"}, {"name": "B", "value": "kept"}],
                    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
                    "securityContext": {"runAsUser": 1000},
                },
                {"name": "sidecar", "image": "other"},
            ],
        },
    }
    spec = SandboxSpec("s", environment={"A": "new"}, limits=ResourceLimits(cpus=2))
    made = manifest(spec, Defaults(None, "one", template), "name", 2.0)
    assert made["metadata"]["labels"]["team"] == "x"
    assert made["metadata"]["labels"]["trunkline.dev/session"] == "s"
    assert made["spec"]["nodeSelector"] == {"a": "b"}
    assert made["spec"]["restartPolicy"] == "Never"
    main, sidecar = made["spec"]["containers"]
    assert sidecar == {"name": "sidecar", "image": "other"}
    assert (main["name"], main["image"]) == ("main", "from-template")
    assert [item["name"] for item in main["env"]] == ["B", "A", "TRUNKLINE_SESSION"]
    limits = {"memory": "1Gi", "cpu": "2000m"}
    assert main["resources"] == {"requests": {"cpu": "1"}, "limits": limits}
    assert main["securityContext"]["runAsUser"] == 1000
    assert main["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert template["spec"]["containers"][0]["image"] == "from-template"  # type: ignore[index]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (SandboxSpec(""), "session id"),
        (SandboxSpec("s", environment={"a b": "c"}), "a b"),
        (SandboxSpec("s", limits=ResourceLimits(processes=5)), "podPidsLimit"),
        (SandboxSpec("s", mounts=(Mount("/a", "/b"),)), "volumes"),
        (SandboxSpec("s", keep_home=True), "PersistentVolumeClaim"),
        (SandboxSpec("s", network=Network.NONE), "NetworkPolicy"),
    ],
)
def test_what_cannot_be_is_refused(spec: SandboxSpec, words: str) -> None:
    with pytest.raises(SandboxError, match=words):
        manifest(spec, DEFAULTS, "name", 2.0)


def test_no_image() -> None:
    with pytest.raises(SandboxError, match="set `image`"):
        manifest(SandboxSpec("s"), Defaults(None, "one"), "name", 2.0)


def test_names_and_labels() -> None:
    assert pod_name(SandboxSpec("A_b/c" * 20), "1f").startswith("trunkline-a-b-ca-b-c")
    assert len(pod_name(SandboxSpec("x" * 200), "1f")) <= 63
    assert pod_name(SandboxSpec("///"), "1f") == "trunkline-session-1f"
    assert label_value("fine-1") == "fine-1"
    assert len(label_value("not/fine")) == 40
    assert deletion_grace(0.2) == 1
    assert deletion_grace(2.5) == 3


def waiting(reason: str) -> dict[str, Any]:
    state = {"state": {"waiting": {"reason": reason, "message": "m"}}}
    return {"status": {"phase": "Pending", "containerStatuses": [state]}}


@pytest.mark.parametrize(
    ("pod", "found"),
    [
        ({}, Readiness()),
        ({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, Readiness(ready=True)),
        (waiting("ContainerCreating"), Readiness(reason="ContainerCreating: m")),
        (waiting("ImagePullBackOff"), Readiness(failed=True, reason="ImagePullBackOff: m")),
        (
            {
                "status": {
                    "conditions": [
                        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                    ]
                }
            },
            Readiness(reason="Unschedulable"),
        ),
        (
            {"status": {"phase": "Failed", "reason": "Evicted", "message": "disk"}},
            Readiness(failed=True, final=True, reason="Evicted: disk"),
        ),
        (
            {
                "status": {
                    "phase": "Failed",
                    "containerStatuses": [
                        {"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
                    ],
                }
            },
            Readiness(failed=True, final=True, reason="OOMKilled (exit code 137)"),
        ),
        (
            {"metadata": {"deletionTimestamp": "now"}},
            Readiness(failed=True, final=True, reason="somebody deletes it"),
        ),
    ],
)
def test_how_far_a_pod_is(pod: dict[str, Any], found: Readiness) -> None:
    assert readiness(pod) == found
