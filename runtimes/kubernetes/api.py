"""A client of the Kubernetes API, as far as sandboxes need it.

Plain calls go through an HTTP client; each process and each forwarded port has a WebSocket of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import trio

from relay.websocket import WebSocket
from relay.websocket.handshake import HandshakeError
from runtimes.kubernetes.access import Cluster
from runtimes.kubernetes.errors import AccessError, Asked, KubeError, KubeUnreachable, explain
from runtimes.kubernetes.websocket import Refused, open_websocket

LOG_LINES = 10
LOG_BYTES = 2048
"""How much of a log is told when a pod does not start."""

REQUEST_SECONDS = 30.0
"""How long one call may take."""

_ATTEMPTS = 5
_LONGEST_PAUSE = 5.0
_LIMITS = httpx2.Limits(max_connections=16, max_keepalive_connections=4)
_VERBS = {"GET": "get", "POST": "create", "DELETE": "delete"}


class ProtocolRefused(KubeError):
    """The API server speaks none of the subprotocols that were offered."""


class KubeApi:
    """Made by `open_api`.  Methods raise `KubeError` when the server refuses, and
    `KubeUnreachable` when it does not answer.  `namespace` is where everything happens."""

    def __init__(self, cluster: Cluster, namespace: str, http: httpx2.AsyncClient) -> None:
        self._cluster = cluster
        self._http = http
        self._token_lock = trio.Lock()
        self.namespace = namespace

    def __str__(self) -> str:
        return self._cluster.url

    async def create_pod(self, pod: Mapping[str, Any]) -> None:
        """Create a pod."""
        await self._call("POST", "/pods", json=pod)

    async def pod(self, name: str) -> Mapping[str, Any]:
        """Return a pod."""
        found = await self._call("GET", f"/pods/{quote(name)}")
        return dict(found)

    async def pods(self, selector: str) -> list[Mapping[str, Any]]:
        """Return the pods whose labels match."""
        params = {"labelSelector": selector}
        found = await self._call("GET", "/pods", params=params, verb="list")
        return list(found.get("items") or ())

    async def delete_pod(self, name: str, grace: int) -> None:
        """Begin to delete a pod that has `grace` seconds to end; one that is gone is fine."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": grace}
        try:
            await self._call("DELETE", f"/pods/{quote(name)}", json=body)
        except KubeError as error:
            if error.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
                raise

    async def open_websocket(
        self, pod: str, resource: str, params: Sequence[tuple[str, str]], offered: Sequence[str]
    ) -> WebSocket:
        """Open a WebSocket to a part of a pod: ``exec``, ``portforward``.

        Raises:
          ProtocolRefused: the server speaks none of `offered`.

        Cancellation: nothing is left open, but the server may have done what was asked.
        """
        target = f"{self._path(f'/pods/{quote(pod)}/{resource}')}?{urlencode(params)}"
        for attempt in range(2):
            headers = await self._authorization()
            try:
                with trio.fail_after(REQUEST_SECONDS):
                    return await open_websocket(self._cluster, target, headers, offered)
            except trio.TooSlowError:
                raise self._too_slow(f"opening {resource}") from None
            except (OSError, trio.BrokenResourceError) as error:
                raise self._unreachable(error) from error
            except HandshakeError as error:
                raise ProtocolRefused(
                    f"the API server at {self} cannot do {resource} over WebSocket: {error};"
                    " Kubernetes 1.29 or later is needed"
                ) from error
            except Refused as error:
                if error.status == HTTPStatus.UNAUTHORIZED and not attempt:
                    self._cluster.token.forget()
                    continue
                raise self._refused(error, resource) from error
        raise AssertionError("unreachable")

    def _refused(self, refused: Refused, resource: str) -> KubeError:
        # A WebSocket is a GET; clusters ask for `create` too where it starts something.
        asked = Asked("get and create", f"pods/{resource}", self.namespace)
        error = explain(refused.status, refused.body, asked)
        if refused.status == HTTPStatus.BAD_REQUEST and "protocol" in str(error).lower():
            return ProtocolRefused(str(error), error.status, error.reason)
        return error

    async def log(self, name: str, container: str) -> str:
        """Return the last that a container wrote, at most `LOG_BYTES`; "" if that cannot be had."""
        params = {"container": container, "tailLines": str(LOG_LINES), "limitBytes": str(LOG_BYTES)}
        try:
            answer = await self._request("GET", f"/pods/{quote(name)}/log", params=params)
        except KubeError:  # it may not be allowed, or the container was never there
            return ""
        return answer.content[-LOG_BYTES:].decode(errors="replace").strip()

    async def _call(self, method: str, path: str, verb: str = "", **options: Any) -> Any:
        answer = await self._request(method, path, verb, **options)
        return self._json(answer, f"{method} {path}")

    async def _request(
        self, method: str, path: str, verb: str = "", **options: Any
    ) -> httpx2.Response:
        asked = Asked(verb or _VERBS[method], "pods", self.namespace)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = await self._http.request(
                    method, self._path(path), headers=await self._authorization(), **options
                )
            except httpx2.TimeoutException as error:
                raise self._too_slow(f"{method} {path}") from error
            except (httpx2.TransportError, OSError) as error:
                raise self._unreachable(error) from error
            if answer.status_code < HTTPStatus.BAD_REQUEST:
                return answer
            if answer.status_code == HTTPStatus.UNAUTHORIZED and attempt == 1:
                self._cluster.token.forget()
            elif answer.status_code == HTTPStatus.TOO_MANY_REQUESTS and attempt < _ATTEMPTS:
                await trio.sleep(_pause(answer.headers.get("retry-after", "")))
            else:
                raise explain(answer.status_code, answer.content, asked)
        raise AssertionError("unreachable")

    def _json(self, answer: httpx2.Response, what: str) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise KubeUnreachable(
                f"what answers at {self} is no Kubernetes API server: {what} gave no JSON"
            ) from error

    async def _authorization(self) -> dict[str, str]:
        async with self._token_lock:
            token = await trio.to_thread.run_sync(self._cluster.token.current)
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _path(self, path: str) -> str:
        return f"/api/v1/namespaces/{quote(self.namespace)}{path}"

    def _too_slow(self, what: str) -> KubeUnreachable:
        return KubeUnreachable(
            f"the API server at {self} does not answer ({what} took more than"
            f" {REQUEST_SECONDS:.0f} s); look whether the cluster is well"
        )

    def _unreachable(self, error: BaseException) -> KubeUnreachable:
        cause: BaseException = error
        while not isinstance(cause, OSError) and (below := cause.__cause__ or cause.__context__):
            cause = below
        reason = str(cause) or type(cause).__name__
        return KubeUnreachable(
            f"the API server at {self} cannot be reached ({reason});"
            " correct its address or authority in the kubeconfig, or look whether the cluster is up"
        )


def _pause(retry_after: str) -> float:
    """Return the seconds to wait that an answer asks for, within reason."""
    return min(float(retry_after), _LONGEST_PAUSE) if retry_after.isdecimal() else 1.0


@asynccontextmanager
async def open_api(load: partial[Cluster], namespace: str | None) -> AsyncIterator[KubeApi]:
    """Talk to the cluster that `load` reads for as long as the ``async with`` block lasts.

    `namespace` None means that of the configuration.  Nothing is asked yet.

    Raises:
      AccessError: the configuration is of no use.
    """
    cluster = await trio.to_thread.run_sync(load)
    transport = httpx2.AsyncHTTPTransport(
        verify=cluster.ssl_context or False, limits=_LIMITS, trust_env=False
    )
    extensions = {"sni_hostname": cluster.server_name} if cluster.ssl_context else {}
    try:
        client = httpx2.AsyncClient(
            transport=transport,
            base_url=cluster.url,
            timeout=REQUEST_SECONDS,
            trust_env=False,
            event_hooks={"request": [partial(_name_server, extensions)]},
        )
    except (httpx2.InvalidURL, ValueError) as error:
        raise AccessError(f"{cluster.url!r} is no address of an API server: {error}") from error
    async with client as http:
        yield KubeApi(cluster, namespace or cluster.namespace, http)


async def _name_server(extensions: Mapping[str, str], request: httpx2.Request) -> None:
    """Let the certificate be checked against the name that the configuration gives."""
    request.extensions = {**request.extensions, **extensions}
