"""A node's container runtime: containerd with its CRI, and its server for exec and port-forward.

It belongs to the tests: directories, sockets, images and end.  Pods have a network of their own with
nothing but a loopback; two shell scripts stand in for the network plugins.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.testing.container_image import HOME, image_tar, static_busybox
from tests.testing.kube_grpc import CallError, call, first_field, message

IMAGE = "localhost/trunkline-test:1"
START_SECONDS = 30.0
END_SECONDS = 20.0
LOG_SHOWN = 600

CONFIGURATION = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
[grpc]
  address = "{directory}/containerd.sock"
[ttrpc]
  address = "{directory}/ttrpc.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  disable_apparmor = true
  enable_selinux = false
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{directory}/cni"
    conf_dir = "{directory}/net.d"
"""
NETWORK = {"cniVersion": "0.3.1", "name": "lonely", "type": "lonely"}
LOOPBACK_PLUGIN = """#!/bin/sh
cat >/dev/null
if [ "$CNI_COMMAND" = ADD ]; then
  nsenter --net="$CNI_NETNS" busybox ip link set lo up || exit
fi
echo '{"cniVersion": "0.3.1"}'
"""
LONELY_PLUGIN = """#!/bin/sh
cat >/dev/null
echo '{"cniVersion": "0.3.1",
  "interfaces": [{"name": "'"$CNI_IFNAME"'", "sandbox": "'"$CNI_NETNS"'"}],
  "ips": [{"version": "4", "interface": 0, "address": "192.0.2.1/32"}]}'
"""


class NodeNotStarted(Exception):
    """containerd ended, or its CRI is not ready in time; with the end of its log."""


def missing() -> str | None:
    """Say what keeps a node from being started here; None: nothing that can be known before."""
    for program in ("containerd", "ctr", "runc", "nsenter", "dash"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if static_busybox() is None:
        return "no static busybox to make an image of (Debian: busybox-static)"
    return None if os.geteuid() == 0 else "containerd needs root"


@dataclass(frozen=True)
class CriPod:
    """A pod with one container."""

    node: CriNode
    sandbox_id: str
    container_id: str

    def exec_url(self, command: Sequence[str], *, terminal: bool) -> str:
        """Return where a process that is to be started can be talked to; good for one minute."""
        streams = {3: terminal, 4: True, 5: True, 6: not terminal}
        what = message({1: self.container_id, 2: list(command)})
        return self.node.call("Exec", what + message(streams)).decode()

    def forward_url(self, port: int) -> str:
        """Return where a connection to a port can be had."""
        return self.node.call("PortForward", message({1: self.sandbox_id, 2: [port]})).decode()

    def stop(self) -> None:
        """Kill everything in it, and remove it."""
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            self.node.call(method, message({1: self.sandbox_id}))


@dataclass(frozen=True)
class CriNode:
    """A running containerd."""

    directory: Path

    def call(self, method: str, request: bytes, service: str = "RuntimeService") -> bytes:
        """Call its CRI; return the first field of the answer."""
        socket = self.directory / "containerd.sock"
        return first_field(call(socket, f"runtime.v1.{service}/{method}", request))

    def start_pod(
        self, name: str, environment: Mapping[str, str], command: Sequence[str]
    ) -> CriPod:
        """Start a pod whose container has no capabilities, and what its image says otherwise."""
        metadata = message({1: name, 2: f"uid-{name}", 3: "default"})
        # Processes of their own, as kubelets ask for: without, an exec's orphans are nobody's.
        namespaces = message({2: 1})
        linux = message({2: message({1: namespaces})})
        pod = message({1: metadata, 2: "pod", 3: str(self.directory / "logs"), 8: linux})
        sandbox_id = self.call("RunPodSandbox", message({1: pod})).decode()
        security = message({1: message({2: ["ALL"]}), 3: namespaces, 11: True})
        container = message(
            {
                1: message({1: "sandbox"}),
                2: message({1: IMAGE}),
                3: list(command),
                6: [message({1: key, 2: value}) for key, value in environment.items()],
                15: message({2: security}),
            }
        )
        try:
            request = message({1: sandbox_id, 2: container, 3: pod})
            container_id = self.call("CreateContainer", request).decode()
            self.call("StartContainer", message({1: container_id}))
        except CallError:
            CriPod(self, sandbox_id, "").stop()
            raise
        return CriPod(self, sandbox_id, container_id)

    def has_pods(self) -> bool:
        """Tell whether any pod is left."""
        return self.call("ListPodSandbox", b"") != b""


@contextmanager
def containerd_node(directory: Path) -> Iterator[CriNode]:
    """Run containerd with everything it keeps below `directory`.

    Raises:
      NodeNotStarted: it does not run on this machine.
    """
    for place in ("cni", "net.d", "opt", "logs"):
        (directory / place).mkdir()
    for name, script in (("loopback", LOOPBACK_PLUGIN), ("lonely", LONELY_PLUGIN)):
        (directory / "cni" / name).write_text(script)
        (directory / "cni" / name).chmod(0o755)
    (directory / "net.d" / "10-lonely.conf").write_text(json.dumps(NETWORK))
    configuration = directory / "config.toml"
    configuration.write_text(CONFIGURATION.format(directory=directory, image=IMAGE))
    with (directory / "log").open("wb") as log:
        # Should the tests be killed, it ends too.
        service = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "containerd", "--config", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    node = CriNode(directory)
    try:
        _wait_until_it_answers(service, node)
        _import_image(node)
        yield node
        assert not node.has_pods()
    finally:
        service.terminate()
        try:
            service.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait(END_SECONDS)


def _wait_until_it_answers(service: subprocess.Popen[bytes], node: CriNode) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            node.call("Version", b"")
        except (OSError, CallError) as error:
            if service.poll() is not None or time.monotonic() > until:
                log = (node.directory / "log").read_text()
                raise NodeNotStarted(f"{error}\n{log[-LOG_SHOWN:]}") from error
            time.sleep(0.05)
        else:
            return


def _import_image(node: CriNode) -> None:
    programs = {"sh": "dash", "socat": "socat", "printenv": "printenv", "yes": "yes"}
    found = {name: path for name, tool in programs.items() if (path := shutil.which(tool))}
    done = subprocess.run(
        [
            *("ctr", "--address", str(node.directory / "containerd.sock"), "--namespace", "k8s.io"),
            *("images", "import", "--snapshotter", "native", "-"),
        ],
        input=_image_archive(image_tar(found)),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    until = time.monotonic() + START_SECONDS
    while not node.call("ImageStatus", message({1: message({1: IMAGE})}), "ImageService"):
        assert time.monotonic() < until, "the CRI does not see the image"
        time.sleep(0.05)


def _image_archive(layer: bytes) -> bytes:
    """Make an image of a root file system, as ``docker save`` writes them."""
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(
            os.uname().machine, os.uname().machine
        ),
        "os": "linux",
        "config": {
            "Cmd": ["/bin/sleep", "2147483647"],
            "Env": ["PATH=/bin", f"HOME={HOME}"],
            "User": "user",
            "WorkingDir": HOME,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
