"""A double of a Kubernetes API server: the real wire protocol, pods that are jails on this machine.

Exec and port-forward are spoken as API servers and kubelets do (v4 and v5, an empty message on each
channel first, a ``v1.Status`` last); the real kubectl is run against it in
`tests/runtimes/kubernetes/test_kubectl.py`.  With a `node`, pods are containers of a real container
runtime, and exec and port-forward are handed on to its own server, byte by byte, as API servers do.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import h11
import trio

from relay.websocket import Role, WebSocket
from relay.websocket.handshake import accept_value
from tests.testing.kube_pod import PodJail
from tests.testing.kube_streams import hand_on, serve_exec, serve_forward

PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+))?(?:/(exec|portforward|log))?")
DISCOVERY: dict[str, Any] = {
    "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {
                "name": "pods",
                "singularName": "pod",
                "namespaced": True,
                "kind": "Pod",
                "verbs": ["create", "delete", "get", "list"],
                "shortNames": ["po"],
            }
        ],
    },
}
READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


@dataclass(frozen=True)
class Answer:
    """What is answered, when a test wants it, instead of doing what was asked."""

    status: int
    message: str = ""
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.status,
        }


class NodePod(Protocol):
    """A pod that a node runs."""

    def exec_url(self, command: Sequence[str], *, terminal: bool) -> str: ...
    def forward_url(self, port: int) -> str: ...
    def stop(self) -> None: ...


class Node(Protocol):
    """Something that runs pods."""

    def start_pod(
        self, name: str, environment: Mapping[str, str], command: Sequence[str]
    ) -> NodePod: ...


@dataclass
class Pod:
    """A pod, and its jail or container unless its `status` says that it has none."""

    manifest: dict[str, Any]
    jail: PodJail | NodePod | None = None


@dataclass
class KubeServer:
    """The state of the double.

    `fate` gives the status of a pod that shall not start.  `refuse` is asked before each request
    with the verb and the path.  `requests` are the verbs and paths so far.
    """

    images: Mapping[str, Path]
    protocols: tuple[str, ...] = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    token: str | None = None
    node: Node | None = None
    fate: Callable[[Mapping[str, Any]], dict[str, Any] | None] = lambda _: None
    refuse: Callable[[str, str], Answer | None] = lambda *_: None
    pods: dict[str, Pod] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    logs: str = ""
    """What every pod that does not start has written."""
    url: str = ""

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(target)
        if parts.path in DISCOVERY:
            return 200, DISCOVERY[parts.path]
        found = PODS.fullmatch(parts.path)
        if found is None:
            return self._refusal(Answer(404, "the server could not find the resource", "NotFound"))
        namespace, name, _ = found.groups()
        match method:
            case "POST" if name is None:
                return self._create(namespace, json.loads(body))
            case "GET" if name is None:
                return self._list(parse_qs(parts.query).get("labelSelector", [""])[0])
        pod = self.pods.get(name)
        if pod is None:
            return self._refusal(Answer(404, f'pods "{name}" not found', "NotFound"))
        if method == "DELETE":
            self.remove(name)
        return 200, pod.manifest

    @staticmethod
    def _refusal(answer: Answer) -> tuple[int, dict[str, Any]]:
        return answer.status, answer.body

    def _create(self, namespace: str, manifest: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = manifest["metadata"]["name"]
        if name in self.pods:
            return self._refusal(Answer(409, f'pods "{name}" already exists', "AlreadyExists"))
        manifest["metadata"]["namespace"] = namespace
        status = self.fate(manifest)
        jail: PodJail | NodePod | None = None
        if status is None:
            status = READY
            container = manifest["spec"]["containers"][0]
            environment = {
                item["name"]: item["value"].replace("$$", "$") for item in container["env"]
            }
            command = container["command"]
            if self.node is not None:
                jail = self.node.start_pod(name, environment, command)
            else:
                jail = PodJail(self.images[container["image"]], environment, command)
        manifest["status"] = status
        self.pods[name] = Pod(manifest, jail)
        return 201, manifest

    def _list(self, selector: str) -> tuple[int, dict[str, Any]]:
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        items = [
            pod.manifest
            for pod in self.pods.values()
            if wanted.items() <= pod.manifest["metadata"].get("labels", {}).items()
        ]
        return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}

    def remove(self, name: str) -> None:
        pod = self.pods.pop(name)
        if pod.jail is not None:
            pod.jail.stop()

    def only_pod(self) -> Pod:
        (pod,) = self.pods.values()
        return pod


class _Connection:
    """One client."""

    def __init__(self, server: KubeServer, stream: trio.abc.Stream, nursery: trio.Nursery) -> None:
        self._server = server
        self._stream = stream
        self._nursery = nursery
        self._http = h11.Connection(h11.SERVER)

    async def serve(self) -> None:
        while True:
            request = await self._event()
            if not isinstance(request, h11.Request):
                return
            body = bytearray()
            while isinstance(event := await self._event(), h11.Data):
                body += event.data
            if await self._handle(request, bytes(body)):
                return
            if self._http.our_state is h11.MUST_CLOSE:
                return
            self._http.start_next_cycle()

    async def _event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(bytes(await self._stream.receive_some(65536)))
            elif event is h11.PAUSED:
                return None
            else:
                return event

    async def _handle(self, request: h11.Request, body: bytes) -> bool:
        """Answer; return whether the connection was taken over."""
        server, method, target = self._server, request.method.decode(), request.target.decode()
        headers = {name.decode(): value.decode() for name, value in request.headers}
        path = urlsplit(target).path
        server.requests.append((method, path))
        answer = server.refuse(method, path)
        if server.token is not None and headers.get("authorization") != f"Bearer {server.token}":
            answer = Answer(401, "Unauthorized", "Unauthorized")
        if answer is not None:
            await self._send(answer.status, answer.body, answer.headers)
            return False
        if headers.get("upgrade", "").lower() == "websocket":
            return await self._upgrade(target, headers)
        if path.endswith("/log"):
            await self._send_text(server.logs)
            return False
        status, content = server.answer(method, target, body)
        await self._send(status, content, ())
        return False

    async def _send_text(self, text: str) -> None:
        body = text.encode()
        fields = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        data = self._http.send(h11.Response(status_code=200, headers=fields)) or b""
        data += self._http.send(h11.Data(data=body)) or b""
        await self._stream.send_all(data + (self._http.send(h11.EndOfMessage()) or b""))

    async def _send(
        self, status: int, content: Mapping[str, Any], headers: tuple[tuple[str, str], ...]
    ) -> None:
        body = json.dumps(content).encode()
        fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        data = self._http.send(h11.Response(status_code=status, headers=[*fields, *headers])) or b""
        data += self._http.send(h11.Data(data=body)) or b""
        await self._stream.send_all(data + (self._http.send(h11.EndOfMessage()) or b""))

    async def _upgrade(self, target: str, headers: Mapping[str, str]) -> bool:
        parts = urlsplit(target)
        found = PODS.fullmatch(parts.path)
        pod = self._server.pods.get(found[2]) if found else None
        if found is None or pod is None or pod.jail is None:
            await self._send(404, Answer(404, "pod not found", "NotFound").body, ())
            return False
        query = parse_qs(parts.query, keep_blank_values=True)
        if not isinstance(pod.jail, PodJail):
            if found[3] == "exec":
                terminal = query["tty"] == ["true"]
                url = pod.jail.exec_url(query["command"], terminal=terminal)
            else:
                url = pod.jail.forward_url(int(query["ports"][0]))
            await hand_on(self._stream, url, headers, self._http.trailing_data[0])
            return True
        offered = [name.strip() for name in headers["sec-websocket-protocol"].split(",")]
        known = self._server.protocols if found[3] == "exec" else ("v4.channel.k8s.io",)
        chosen = next((name for name in offered if name in known), None)
        if chosen is None:
            await self._send(400, Answer(400, "no supported protocol", "BadRequest").body, ())
            return False
        fields = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_value(headers["sec-websocket-key"])),
            ("Sec-WebSocket-Protocol", chosen),
        ]
        head = self._http.send(h11.InformationalResponse(status_code=101, headers=fields)) or b""
        await self._stream.send_all(head)
        websocket = WebSocket(self._stream, Role.SERVER, initial=self._http.trailing_data[0])
        if found[3] == "exec":
            # What was started goes on when its connection is gone: the pod ends it.
            await serve_exec(websocket, pod.jail, query, chosen, self._nursery)
        else:
            await serve_forward(websocket, pod.jail, int(query["ports"][0]))
        return True


@asynccontextmanager
async def open_kube_server(
    images: Mapping[str, Path], *, ssl_context: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[KubeServer]:
    """Serve on the loopback for as long as the block lasts; then no pod may be left."""
    server = KubeServer(images, **options)

    async def handle(plain: trio.SocketStream) -> None:
        stream: trio.abc.Stream = plain
        if ssl_context is not None:
            stream = trio.SSLStream(plain, ssl_context, server_side=True, https_compatible=True)
        try:
            await _Connection(server, stream, reapers).serve()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass  # clients come and go
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as reapers:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]
            server.url = f"{'https' if ssl_context else 'http'}://127.0.0.1:{port}"
            nursery.start_soon(trio.serve_listeners, handle, listeners)
            try:
                yield server
            finally:
                left = list(server.pods)
                for name in left:
                    server.remove(name)
                nursery.cancel_scope.cancel()
        # The processes of the pods have been killed; those who started them see it soon.
        reapers.cancel_scope.deadline = trio.current_time() + 10
    assert left == []
