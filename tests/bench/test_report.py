from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from bench import report
from bench.machine import NoiseReport
from bench.measure import Case, Flow, Lab, Run, Sample
from bench.pattern import Damage
from bench.rivals import by_name


def measure(lab: Lab, case: Case) -> Sample:
    raise NotImplementedError


FLOW = Flow("down-64K-1", "down", "MB/s", measure, role="websocket")


def case(name: str, values: list[float | None], damage: Damage | None = None) -> Case:
    samples = [
        None if value is None else Sample(value, 1 / value, damage or Damage()) for value in values
    ]
    return Case(FLOW, by_name(name), 0.1, list(samples))


def make_run(noise: NoiseReport) -> Run:
    broken = case("picows", [None])
    broken.problem = "it <fell> over [bold]"
    cases = [
        case("none", [1000, 2000]),
        case("socket-stream", [500, 1300]),
        case("trunkline", [1000, 2600]),
        case("websockify", [250, 650], Damage(lost=7, repeated=3)),
        broken,
    ]
    return Run(cases, 2, 3.0, noise, {"ttyd": "apt install ttyd"})


QUIET = NoiseReport(4, 0.01, 0, 0)
NOISY = NoiseReport(4, 0.9, 0, 0)


def text_of(run: Run) -> str:
    console = Console(width=150, record=True, quiet=False, file=Path("/dev/null").open("w"))  # noqa: SIM115
    with console.file:
        report.show(run, console)
    return console.export_text()


def test_the_table_compares() -> None:
    text = text_of(make_run(QUIET))
    ours = next(line for line in text.splitlines() if "Trunkline " in line)
    assert "1,800*" in ours  # beyond 60 % of what the generator reaches alone
    assert "2.00" in ours
    websockify = next(line for line in text.splitlines() if "websockify with" in line)
    assert "450" in websockify
    assert "0.50" in websockify
    assert "4.00" in websockify  # ours against it
    assert "14/6" in websockify
    assert "it <fell> over [bold]" in text
    assert "not installed: ttyd (apt install ttyd)" in text
    assert "quiet" in text


def test_noise_is_told() -> None:
    assert "NOISY" in text_of(make_run(NOISY))


def test_the_document_has_everything(tmp_path: Path) -> None:
    data, plot = report.save(make_run(QUIET), tmp_path / "new")
    document = json.loads(data.read_text())
    assert document["schema"] == report.SCHEMA
    assert document["machine"]["cpus"]
    rows = {row["subject"]: row for row in document["rows"]}
    assert rows["trunkline"]["ratio"] == 2
    assert rows["trunkline"]["limited"]
    assert not rows["websockify"]["limited"]
    assert rows["websockify"]["lost"] == 14
    assert rows["picows"]["problem"]
    assert rows["picows"]["median"] is None
    page = plot.read_text()
    assert "websockify with numpy" in page
    assert "http" not in page  # self-contained


def test_numbers_have_three_digits() -> None:
    shown = [report.number(value) for value in (None, 0.123, 12.34, 1234.5)]
    assert shown == ["-", "0.12", "12.3", "1,234"]
