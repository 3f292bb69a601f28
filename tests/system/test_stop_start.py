"""Stopping a session and starting it again, in real sandboxes, across a server that is killed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.testing.bubblewrap import require_bubblewrap
from tests.testing.server_process import (
    ServerProcess,
    pids_with,
    running_server,
    trunkline_command,
)

SECONDS = 30
CONFIG = """
grace_seconds = 1
[profiles.keeping]
keep_home = true
environment = { KEPT_MARK = "%s" }
"""


def run(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        trunkline_command(*arguments),
        env=dict(server.environment),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def done(server: ServerProcess, *arguments: str) -> str:
    result = run(server, *arguments)
    assert (result.returncode, result.stderr) == (0, ""), arguments
    return result.stdout


def attach(server: ServerProcess, session_id: str) -> Any:
    with server.client() as client:
        return client.post(f"/v1/sessions/{session_id}/attach")


@pytest.mark.slow
def test_a_home_outlives_its_sandbox_and_its_server(tmp_path: Path) -> None:
    require_bubblewrap()
    config = CONFIG % tmp_path
    bubblewrap = ("--runtime", "bubblewrap")
    with running_server(tmp_path, *bubblewrap, config=config, clean_end=False) as server:
        session_id = server.create_session(profile="keeping")["session_id"]
        home = server.data_dir / "sandboxes" / session_id
        done(server, "exec", session_id, "--", "sh", "-c", "echo mine > file")
        with subprocess.Popen(
            trunkline_command("exec", session_id, "--", "cat"),
            env=dict(server.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as attached:
            assert attached.stdin is not None
            assert attached.stdout is not None
            attached.stdin.write(b"x\n")
            attached.stdin.flush()
            assert attached.stdout.readline() == b"x\n"
            assert pids_with("KEPT_MARK", str(tmp_path))
            assert done(server, "stop", session_id) == ""
            # It returned when everything had ended.
            assert pids_with("KEPT_MARK", str(tmp_path)) == []
            _, errors = attached.communicate(timeout=SECONDS)
            assert b"closed: session_stopped\n" in errors
        assert home.is_dir()
        refused = attach(server, session_id)
        assert refused.status_code == 409
        assert "/start starts it again" in refused.json()["detail"]
        assert session_id in done(server, "ls")
        assert "stopped" in done(server, "ls")
        done(server, "stop", session_id)
        done(server, "start", session_id)
        done(server, "start", session_id)
        assert server.session(session_id)["state"] == "running"
        assert done(server, "exec", session_id, "--", "cat", "file") == "mine\n"
        # One that keeps nothing says so, and what to set.
        wiping = server.create_session()["session_id"]
        result = run(server, "stop", wiping)
        assert result.returncode == 1
        assert "set keep_home = true in [profiles.default]" in result.stderr
        done(server, "exec", wiping, "--", "true")
        done(server, "stop", session_id)
        server.process.kill()
        server.process.wait()
    with running_server(tmp_path, *bubblewrap, config=config) as server:
        assert server.session(session_id)["state"] == "stopped"
        assert server.session(wiping)["state"] == "failed"
        done(server, "start", session_id)
        assert done(server, "exec", session_id, "--", "cat", "file") == "mine\n"
        done(server, "stop", session_id)
        assert server.stop() == 0
    with running_server(tmp_path, *bubblewrap, config=config) as server:
        assert server.session(session_id)["state"] == "stopped"
        assert home.is_dir()
        done(server, "rm", session_id)
        assert not home.exists()
        (shown,) = [
            each
            for each in json.loads(done(server, "ls", "--json", "--all"))
            if each["session_id"] == session_id
        ]
        assert (shown["state"], shown["reason"]) == ("terminated", "terminated on request")
