from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bench.command import choose_flows, choose_subjects
from bench.flows import FLOWS
from bench.rivals import SUBJECTS
from trunkline.cli import main


def test_names_are_unique() -> None:
    assert len({flow.name for flow in FLOWS}) == len(FLOWS)
    assert len({subject.name for subject in SUBJECTS}) == len(SUBJECTS)


def test_every_flow_has_its_subjects() -> None:
    known = {subject.name for subject in SUBJECTS}
    for flow in FLOWS:
        taken = {subject.name for subject in SUBJECTS if flow.takes(subject)}
        assert any(name.startswith("trunkline") for name in taken), flow.name
        assert {*flow.only, *flow.also} <= known, flow.name
        assert flow.reference is None or flow.reference in taken, flow.name


def test_choosing() -> None:
    assert [flow.name for flow in choose_flows(("echo-p50-1",), quick=False)] == ["echo-p50-1"]
    assert len(choose_flows((), quick=True)) < len(choose_flows((), quick=False)) == len(FLOWS)
    names = choose_subjects(("nginx",), quick=False)
    assert "nginx" in names
    assert "trunkline" in names
    assert "haproxy" not in names
    assert "nginx" not in choose_subjects(("none",), quick=False)
    with pytest.raises(click.BadParameter, match="no flow begins with 'nonsense'"):
        choose_flows(("nonsense",), quick=False)
    with pytest.raises(click.BadParameter, match="no rival is called"):
        choose_subjects(("trunkline",), quick=False)


def test_the_list_says_what_is_missing() -> None:
    result = CliRunner().invoke(main, ["bench", "--list"])
    assert result.exit_code == 0
    assert "echo-p99-50" in result.output
    for subject in SUBJECTS:
        line = next(each for each in result.output.splitlines() if each.startswith(subject.name))
        assert ("not installed" in line) == (subject.missing() is not None)


def test_two_flows_for_real(tmp_path: Path) -> None:
    """From the command line to the files, with a real server."""
    arguments = [
        "bench",
        "--quick",
        "--rounds",
        "1",
        "--seconds",
        "0.02",
        "--rival",
        "trio-websocket",
    ]
    arguments += ["--flow", "down-64K-1", "--flow", "echo-p50-1", "--output", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "bench.json").read_text())
    rows = {(row["flow"], row["subject"]): row for row in document["rows"]}
    for flow in ("down-64K-1", "echo-p50-1"):
        for subject in ("none", "socket-stream", "trunkline", "trio-websocket"):
            row = rows[flow, subject]
            assert row["problem"] is None
            assert row["median"] > 0
            assert (row["lost"], row["repeated"], row["changed"]) == (0, 0, 0)
    assert rows["down-64K-1", "trunkline"]["ratio"] > 0
    assert (tmp_path / "bench.html").exists()
