"""The ``kubernetes`` runtime: sandboxes are pods of a cluster."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
import trio

from runtimes.base import Runtime, SandboxError, SandboxSpec
from runtimes.exec_inside.sandbox import SESSION_VARIABLE
from runtimes.kubernetes.access import load_cluster
from runtimes.kubernetes.api import KubeApi, open_api
from runtimes.kubernetes.errors import KubeError
from runtimes.kubernetes.pods import (
    SERVER_LABEL,
    SESSION_LABEL,
    Defaults,
    container_of,
    deletion_grace,
    label_value,
    manifest,
    pod_name,
    readiness,
)
from runtimes.kubernetes.sandbox import KubeSandbox, open_kube_sandbox

_log = structlog.get_logger()

CREATE_SECONDS = 60.0
"""How long creating may take; it is not broken off half-way, so that nothing is left behind."""
REMOVE_SECONDS = 30.0
"""How long removing may take; what is left is removed as an orphan later."""
HOPELESS_SECONDS = 10.0
"""How long a pod may be in a state from which most do not recover, before that is believed."""

_FIRST_LOOK = 0.05
_LONGEST_LOOK = 1.0


class KubernetesRuntime(Runtime):
    """Makes a pod for each sandbox.  Nothing is read or connected to before the first one.

    `kubeconfig` and `context` say how to reach the cluster (`runtimes.kubernetes.access.load_cluster`),
    `namespace` where pods are made; None means what the configuration says.  `image` is what a pod is
    made of when neither the profile nor `template` names one.  `template` is a pod template
    (``{"metadata": {...}, "spec": {...}}``); its first container becomes the sandbox.  `server` names
    this server on its pods: one that starts with the same name finds what it left behind; no two
    servers in one namespace may share it.  `home` is where processes start and relative paths of files
    begin; None means the image's working directory.  `grace` is how many seconds a process has between
    being asked to end and being killed.  `ready_seconds` is how long a pod may take to be ready:
    pulling the image included.
    """

    def __init__(
        self,
        kubeconfig: Path | None = None,
        *,
        context: str | None = None,
        namespace: str | None = None,
        image: str | None = None,
        template: Mapping[str, Any] | None = None,
        server: str = "default",
        home: str | None = None,
        grace: float = 2.0,
        ready_seconds: float = 120.0,
    ) -> None:
        self._load = partial(load_cluster, kubeconfig, context)
        self._namespace = namespace
        self._defaults = Defaults(image=image, server=server, template=template or {})
        self._home = home
        self._grace = grace
        self._ready_seconds = ready_seconds

    @property
    def name(self) -> str:
        """``"kubernetes"``."""
        return "kubernetes"

    @property
    def isolated(self) -> bool:
        """True: the cluster keeps what is inside from what is outside."""
        return True

    async def prepare(self) -> None:
        """As `Runtime.prepare`: see that the cluster answers; remove what an earlier server left."""
        for session in await self.remove_orphans(()):
            _log.info("pod_of_an_earlier_server_removed", session_id=session)

    @asynccontextmanager
    async def open_sandbox(self, spec: SandboxSpec) -> AsyncIterator[KubeSandbox]:
        """As `Runtime.open_sandbox`."""
        name = pod_name(spec, secrets.token_hex(5))
        pod = manifest(spec, self._defaults, name, self._grace)
        given = {**spec.environment, SESSION_VARIABLE: spec.session_id}
        async with AsyncExitStack() as stack:
            try:
                api = await stack.enter_async_context(open_api(self._load, self._namespace))
                stack.push_async_callback(_remove, api, name, deletion_grace(self._grace))
                await self._create(api, pod)
                await self._wait_until_ready(api, name, container_of(pod))
                sandbox = await stack.enter_async_context(
                    open_kube_sandbox(
                        api,
                        name,
                        container_of(pod),
                        given,
                        spec,
                        spec.directory or self._home,
                        self._grace,
                    )
                )
            except KubeError as error:
                raise SandboxError(str(error)) from error
            yield sandbox

    async def _create(self, api: KubeApi, pod: Mapping[str, Any]) -> None:
        try:
            with trio.fail_after(CREATE_SECONDS) as scope:
                scope.shield = True
                await api.create_pod(pod)
        except trio.TooSlowError:
            raise SandboxError(
                f"the API server at {api} took more than {CREATE_SECONDS:.0f} s to create a pod"
            ) from None
        except KubeError as error:
            raise SandboxError(f"the pod could not be created: {error}") from error

    async def _wait_until_ready(self, api: KubeApi, name: str, container: str) -> None:
        reason, pause = "nothing is known of it yet", _FIRST_LOOK
        hopeless_since: float | None = None
        with trio.move_on_after(self._ready_seconds):
            while True:
                state = readiness(await api.pod(name))
                if state.ready:
                    return
                reason = state.reason or reason
                now = trio.current_time()
                if not state.failed:
                    hopeless_since = None
                elif hopeless_since is None and not state.final:
                    hopeless_since = now
                elif state.final or now - (hopeless_since or now) >= HOPELESS_SECONDS:
                    said = await api.log(name, container)
                    wrote = f"; the last it wrote: {said}" if said else ""
                    raise SandboxError(f"the pod did not start: {reason}{_advice(reason)}{wrote}")
                await trio.sleep(pause)
                pause = min(2 * pause, _LONGEST_LOOK)
        raise SandboxError(
            f"the pod was not ready within {self._ready_seconds:.0f} s: {reason}{_advice(reason)}"
        )

    @property
    def _selector(self) -> str:
        return f"{SERVER_LABEL}={label_value(self._defaults.server)}"

    async def remove_orphans(self, known: Collection[str]) -> tuple[str, ...]:
        """Remove the pods that this server made for sessions other than `known`.

        Return the ids of those sessions.  For the start of a server, which cannot take over what a
        predecessor left.

        Raises:
          SandboxError: the cluster does not answer, or refuses.

        Cancellation: safe; some may have been removed.
        """
        return await self._remove_pods(lambda session: session not in known)

    async def end_lost(self, session_ids: Collection[str]) -> None:
        """As `Runtime.end_lost`; pods that cannot be removed now are orphans."""
        try:
            await self._remove_pods(lambda session: session in session_ids)
        except SandboxError as error:
            _log.warning("pods_left", error=str(error))

    async def _remove_pods(self, chosen: Callable[[str], bool]) -> tuple[str, ...]:
        removed: list[str] = []
        try:
            async with open_api(self._load, self._namespace) as api:
                for pod in await api.pods(self._selector):
                    metadata = pod.get("metadata") or {}
                    session = (metadata.get("annotations") or {}).get(SESSION_LABEL)
                    if session is not None and chosen(session):
                        await api.delete_pod(str(metadata["name"]), deletion_grace(self._grace))
                        removed.append(session)
        except KubeError as error:
            raise SandboxError(str(error)) from error
        return tuple(removed)


def _advice(reason: str) -> str:
    """Return what to do about a reason, where that is known."""
    if "Image" in reason:
        return "; check the image's name, and that the nodes may pull it (imagePullSecrets)"
    if "Unschedulable" in reason:
        return "; ask for less in the profile's limits, or give the cluster more nodes"
    return ""


async def _remove(api: KubeApi, pod: str, grace: int) -> None:
    """Remove a pod, whatever happens; what cannot be removed now is an orphan."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + REMOVE_SECONDS) as scope:
        try:
            await api.delete_pod(pod, grace)
        except KubeError as error:
            status = error.status or HTTPStatus.SERVICE_UNAVAILABLE
            _log.warning("pod_left", pod=pod, status=status, error=str(error))
    if scope.cancelled_caught:
        _log.warning("pod_left", pod=pod, error="the API server does not answer")
