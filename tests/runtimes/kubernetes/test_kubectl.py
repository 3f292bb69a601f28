"""The double of the API server, checked with the real kubectl: it must be content with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from runtimes.base import SandboxSpec
from runtimes.kubernetes import KubernetesRuntime
from tests.testing.kube_server import KubeServer


async def kubectl(
    config: Path, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    home = config.parent
    return await trio.run_process(
        ["kubectl", "--kubeconfig", str(config), "--cache-dir", str(home / "cache"), *arguments],
        stdin=stdin,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={**os.environ, "HOME": str(home), "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "true"},
    )


@pytest.mark.slow
async def test_kubectl_gets_along_with_the_double(
    runtime: KubernetesRuntime, server: KubeServer, tmp_path: Path
) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    config = tmp_path / "kubeconfig"
    with trio.fail_after(60):
        async with runtime.open_sandbox(SandboxSpec("s")):
            pod = next(iter(server.pods))
            listed = await kubectl(config, "get", "pods", "-o", "name")
            assert listed.stdout.decode() == f"pod/{pod}\n", listed.stderr
            script = "cat; echo err >&2; exit 7"
            done = await kubectl(
                config, "exec", "-i", pod, "--", "sh", "-c", script, stdin=b"input\n"
            )
            assert done.stdout == b"input\n"
            assert done.stderr.startswith(b"err\n")
            assert done.returncode == 7
            assert (await kubectl(config, "exec", pod, "--", "true")).returncode == 0
            gone = await kubectl(config, "exec", "no-such-pod", "--", "true")
            assert b"not found" in gone.stderr
