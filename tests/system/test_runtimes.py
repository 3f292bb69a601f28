"""Which runtime a server takes, and what it says about that."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.testing.bubblewrap import require_bubblewrap
from tests.testing.server_process import clean_environment, running_server, trunkline_command

SECONDS = 30
QUICK = "grace_seconds = 1\n"
MIXED = f"""{QUICK}
[profiles.plain]
runtime = "local"
[profiles.bounded]
runtime = "local"
limits = {{ processes = 10 }}
"""


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        trunkline_command(*arguments),
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_auto_isolates_where_it_can(tmp_path: Path) -> None:
    require_bubblewrap()
    with running_server(tmp_path, "--runtime", "auto", config=MIXED) as server:
        environment = dict(server.environment)
        session_id = server.create_session()["session_id"]
        shown = server.session(session_id)
        assert (shown["runtime"], shown["isolated"]) == ("bubblewrap", True)
        assert "not isolated" not in server.log
        assert run(environment, "exec", session_id, "--", "hostname").stdout == "sandbox\n"
        for command, state in (("pause", "paused"), ("resume", "running")):
            done = run(environment, command, session_id)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            assert server.session(session_id)["state"] == state
        # A profile with a runtime of its own, and one whose limits nobody can enforce.
        other = server.create_session(profile="plain")["session_id"]
        shown = server.session(other)
        assert (shown["runtime"], shown["isolated"]) == ("local", False)
        refused = run(environment, "pause", other)
        assert refused.returncode == 1
        assert "cannot pause" in refused.stderr
        refused = run(environment, "new", "--profile", "bounded")
        assert "limits: the local runtime does not isolate" in refused.stderr
        for each in (session_id, other):
            server.delete_session(each)
        listed = json.loads(run(environment, "ls", "--json", "--all").stdout)
        assert {each["state"] for each in listed} == {"terminated", "failed"}


def test_auto_says_where_it_cannot(tmp_path: Path) -> None:
    nothing = {"PATH": str(tmp_path)}
    with running_server(tmp_path, "--runtime", "auto", config=QUICK, environment=nothing) as server:
        session_id = server.create_session()["session_id"]
        shown = server.session(session_id)
        assert (shown["runtime"], shown["isolated"]) == ("local", False)
        assert "Sessions of the 'local' runtime are not isolated" in server.log
        assert "install the package bubblewrap" in server.log
        server.delete_session(session_id)


def test_what_is_asked_for_must_work(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[profiles.x]\nruntime = "bubblewrap"\n')
    environment = {**clean_environment(tmp_path), "PATH": str(tmp_path)}
    start = ("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))
    for arguments, culprit in (
        (("--runtime", "bubblewrap"), "the runtime 'bubblewrap'"),
        (("--runtime", "local", "--config", str(config)), "profiles.x.runtime"),
    ):
        done = run(environment, *start, *arguments)
        assert done.returncode == 1
        assert f"Error: {culprit}: bubblewrap is not installed" in done.stderr
        assert "Traceback" not in done.stderr
