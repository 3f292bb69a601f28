from __future__ import annotations

import pytest
from click.testing import CliRunner

from trunkline.cli import main

SESSION = "00000000-0000-4000-8000-000000000000"


def test_help_of_everything() -> None:
    """Every command says what it does, and every option too."""
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name, command in main.commands.items():
        assert f"\n  {name} " in result.output
        own = CliRunner().invoke(main, [name, "--help"], terminal_width=200)
        assert own.exit_code == 0
        assert own.output.startswith(f"Usage: main {name} ")
        assert command.help
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{name} {parameter.opts}"
    assert CliRunner().invoke(main, ["-h"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["attach"], "Missing argument 'ID'"),
        (["exec", SESSION], "Missing argument"),
        (["rm"], "Missing argument"),
        (["new", "--nonsense"], "No such option"),
        (["new", "--ttl", "soon"], "'soon' is no duration; write 90s, 15m, 1h or 2d"),
        (["attach", SESSION, "--view", "--takeover"], "exclude each other"),
        (["serve", "--port", "70000"], "70000"),
        (["serve", "--runtime", "nonsense"], "nonsense"),
        (["serve", "--config", "/no/such/file"], "/no/such/file"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.output
    assert said in result.output


@pytest.mark.parametrize(
    "arguments", [["ls"], ["new"], ["open"], ["rm", SESSION], ["attach", SESSION]]
)
def test_without_a_server(tmp_path_factory: pytest.TempPathFactory, arguments: list[str]) -> None:
    nowhere = {
        "XDG_STATE_HOME": str(tmp_path_factory.mktemp("state")),
        "TRUNKLINE_URL": None,
        "TRUNKLINE_TOKEN": None,
    }
    result = CliRunner().invoke(main, arguments, env=nowhere)
    assert result.exit_code == 1
    assert result.output.startswith("trunkline: no server found: start one with 'trunkline serve'")


@pytest.mark.parametrize("url", ["not-a-url", "ftp://127.0.0.1/", "http://", "http://[::1", "\x7f"])
@pytest.mark.parametrize("command", ["ls", "attach"])
def test_a_wrong_address(url: str, command: str) -> None:
    arguments = [command] if command == "ls" else [command, SESSION]
    env = {"TRUNKLINE_URL": url, "TRUNKLINE_TOKEN": "t"}
    result = CliRunner().invoke(main, arguments, env=env)
    assert result.exit_code == 1
    assert "is not the address of a server; write it as http://host:port" in result.output
    assert len(result.output.splitlines()) == 1
