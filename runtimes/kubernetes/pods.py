"""From a specification to a pod, and from what a cluster says of it to words.  Pure."""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtimes.base import Network, SandboxError, SandboxSpec
from runtimes.exec_inside.sandbox import SESSION_VARIABLE
from runtimes.exec_inside.scripts import MAIN, SHELL

SESSION_LABEL = "trunkline.dev/session"
"""On a pod, as label and as annotation: the session id; a label may hold a digest of it instead."""
SERVER_LABEL = "trunkline.dev/server"
CONTAINER = "sandbox"
"""The container in which processes run, if a template does not have its own first one."""

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9-]+")
_PORTABLE_NAME = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What is used where a specification leaves it open.

    `template` is a pod template (``metadata`` with labels and annotations, and ``spec``), to which
    what a sandbox needs is added.
    """

    image: str | None
    server: str
    template: Mapping[str, Any] = field(default_factory=dict)


def label_value(text: str) -> str:
    """Return `text`, or a digest of it where it cannot be the value of a label."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def pod_name(spec: SandboxSpec, nonce: str) -> str:
    """Return a name that no other pod has (RFC 1123 label)."""
    readable = _NOT_IN_NAMES.sub("-", spec.session_id.lower())[:30].strip("-") or "session"
    return f"trunkline-{readable}-{nonce}"


def container_of(pod: Mapping[str, Any]) -> str:
    """Return the name of the container in which processes run."""
    return str(pod["spec"]["containers"][0]["name"])


def manifest(spec: SandboxSpec, defaults: Defaults, name: str, grace: float) -> dict[str, Any]:
    """Return the pod to be created for `spec`.

    What the specification says goes before the template, and that before our own choices.

    Raises:
      SandboxError: something in it is not possible; says what to do instead.
    """
    _check(spec)
    template = copy.deepcopy(dict(defaults.template))
    metadata, pod_spec = template.get("metadata") or {}, template.get("spec") or {}
    if not isinstance(metadata, dict) or not isinstance(pod_spec, dict):
        raise SandboxError("the pod template's metadata and spec must be mappings")
    containers = pod_spec.pop("containers", None) or [{}]
    if not isinstance(containers, list) or not all(isinstance(c, dict) for c in containers):
        raise SandboxError("the pod template's containers must be a list of mappings")
    labels = {
        SESSION_LABEL: label_value(spec.session_id),
        SERVER_LABEL: label_value(defaults.server),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {**(metadata.get("labels") or {}), **labels},
            "annotations": {
                **(metadata.get("annotations") or {}),
                SESSION_LABEL: spec.session_id,
            },
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": deletion_grace(grace),
            **pod_spec,
            "restartPolicy": "Never",
            "containers": [_container(spec, defaults, containers[0]), *containers[1:]],
        },
    }


def deletion_grace(seconds: float) -> int:
    """Return whole seconds for Kubernetes; 0 would mean not to wait for the node, so at least 1."""
    return max(1, math.ceil(seconds))


def _container(
    spec: SandboxSpec, defaults: Defaults, template: Mapping[str, Any]
) -> dict[str, Any]:
    image = spec.image or template.get("image") or defaults.image
    if not image:
        raise SandboxError(
            "the profile names no image; a pod is made of one: set `image` in the profile,"
            " or in the template"
        )
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
        **(template.get("securityContext") or {}),
    }
    environment = {**spec.environment, SESSION_VARIABLE: spec.session_id}
    kept = [item for item in template.get("env") or () if item.get("name") not in environment]
    own = [{"name": key, "value": _unexpanded(value)} for key, value in environment.items()]
    return {
        "name": CONTAINER,
        **template,
        "image": image,
        "command": [SHELL, "-c", MAIN],
        "args": [],
        "env": [*kept, *own],
        "resources": _resources(spec, template),
        "securityContext": security,
    }


def _unexpanded(value: str) -> str:
    """Keep Kubernetes from replacing ``$(NAME)`` in a value."""
    return value.replace("$", "$$")


def _resources(spec: SandboxSpec, template: Mapping[str, Any]) -> dict[str, Any]:
    resources = dict(template.get("resources") or {})
    limits = dict(resources.get("limits") or {})
    if spec.limits.memory_bytes is not None:
        limits["memory"] = str(spec.limits.memory_bytes)
    if spec.limits.cpus is not None:
        limits["cpu"] = f"{round(spec.limits.cpus * 1000)}m"
    return {**resources, "limits": limits} if limits else resources


def _check(spec: SandboxSpec) -> None:
    if not spec.session_id or "\0" in spec.session_id:
        raise SandboxError(f"the session id {spec.session_id!r} is empty or contains a NUL")
    for name, value in spec.environment.items():
        if not _PORTABLE_NAME.fullmatch(name) or "\0" in value:
            raise SandboxError(f"{name!r} is no name of an environment variable, or holds a NUL")
    if spec.limits.processes is not None:
        raise SandboxError(
            "Kubernetes has no limit of processes for one pod; remove `limits.processes` from the"
            " profile and set podPidsLimit in the kubelets' configuration"
        )
    if spec.mounts:
        raise SandboxError(
            "a pod does not see directories of this machine; use volumes in the pod template"
            " instead of `mounts`"
        )
    if spec.keep_home:
        raise SandboxError(
            "a pod keeps nothing by itself; mount a PersistentVolumeClaim in the pod template"
            " instead of `keep_home`"
        )
    if spec.network is Network.NONE:
        raise SandboxError(
            'a pod cannot be without a network; instead of `network = "none"` write a'
            f" NetworkPolicy for pods with the label {SERVER_LABEL}"
        )


@dataclass(frozen=True, slots=True)
class Readiness:
    """How far a pod is; `reason` says what it waits for, or why it has failed.

    `failed` means that it is in a state from which pods seldom recover, `final` that it never will.
    """

    ready: bool = False
    failed: bool = False
    final: bool = False
    reason: str = ""


_HOPELESS = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
        "CrashLoopBackOff",
    }
)
"""Reasons to wait for a container that seldom go away by themselves; `ErrImagePull` leads to
`ImagePullBackOff`, and both tell the same."""


def readiness(pod: Mapping[str, Any]) -> Readiness:
    """Return how far a pod is, as its status says."""
    status = pod.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    containers = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return Readiness(failed=True, final=True, reason="somebody deletes it")
    if status.get("phase") in {"Failed", "Succeeded"}:
        return Readiness(failed=True, final=True, reason=_why_ended(status, containers))
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            return Readiness(failed=True, reason=_told(waiting))
    if (conditions.get("Ready") or {}).get("status") == "True":
        return Readiness(ready=True)
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return Readiness(reason=_told(scheduled))
    for container in containers:
        if waiting := (container.get("state") or {}).get("waiting"):
            return Readiness(reason=_told(waiting))
    return Readiness(reason=_told(conditions.get("Ready") or {}) or str(status.get("phase") or ""))


def _why_ended(status: Mapping[str, Any], containers: list[Mapping[str, Any]]) -> str:
    if told := _told(status):
        return told
    for container in containers:
        if ended := (container.get("state") or {}).get("terminated"):
            return f"{_told(ended) or 'it ended'} (exit code {ended.get('exitCode')})"
    return f"it is {status.get('phase')}"


def _told(item: Mapping[str, Any]) -> str:
    return ": ".join(str(part) for key in ("reason", "message") if (part := item.get(key)))
