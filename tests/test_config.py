from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.config import Config, ConfigError, load_config


def load(directory: Path, content: str | bytes) -> Config:
    file = directory / "trunkline.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_config(file)


def test_no_file_means_the_defaults() -> None:
    config = load_config(None)
    assert config == Config()
    assert set(config.profiles) == {"default"}
    assert config.grace == 5.0


def test_an_empty_file_means_the_same(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Config()


def test_everything_can_be_set(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        public_url = "https://shell.example.com/"
        allowed_hosts = ["shell.example.com", "10.0.0.1:8080", "[::1]:80"]
        allowed_origins = ["https://console.example.com:8443"]
        grace_seconds = 0.5
        [node]
        region = "eu-west-1"
        node_id = "n1"
        tier = "cloud"
        [streams]
        ring_bytes = 131072
        linger_seconds = 1
        [profiles.default]
        max_sessions = 1
        [profiles.small]
        max_ttl_seconds = 60
        """,
    )
    assert config.public_url == "https://shell.example.com/"
    assert config.allowed_hosts == ("shell.example.com", "10.0.0.1:8080", "[::1]:80")
    assert config.allowed_origins == ("https://console.example.com:8443",)
    assert config.grace == 0.5
    assert (config.node.region, config.node.node_id, config.node.tier) == (
        "eu-west-1",
        "n1",
        "cloud",
    )
    assert config.streams.ring_bytes == 131072
    assert config.streams.linger == 1.0
    assert config.profiles["default"].max_sessions == 1
    assert config.profiles["small"].default_ttl_seconds == 60


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("allowed_hosts = [", ["not TOML"]),
        (b"\xff\xfe", ["not TOML"]),
        ("nonsense = 1", ["nonsense"]),
        ("grace_seconds = -1", ["grace_seconds"]),
        ("grace_seconds = nan", ["grace_seconds"]),
        ('grace_seconds = "long"', ["grace_seconds"]),
        ("[node]\ntier = 5", ["tier"]),
        ('[node]\nregion = ""', ["region"]),
        ("[streams]\nring_bytes = 0", ["ring_bytes"]),
        ("[streams]\nnonsense = 0", ["nonsense"]),
        ("[profiles.p]\nmax_ttl_seconds = 0", ["profiles.p.max_ttl_seconds", "positive"]),
        ("[profiles.p]\nnonsense = 0", ["profiles.p.nonsense", "unknown key"]),
        ("[profiles]\np = 3", ["profiles.p", "must be a table"]),
        ("profiles = 3", ["profiles"]),
        ('public_url = "shell.example.com"', ["public_url", "https://"]),
        ('public_url = "ftp://shell.example.com"', ["public_url"]),
        ('public_url = "https://"', ["public_url"]),
        ('public_url = "https://x/path"', ["public_url"]),
        ('allowed_hosts = ["http://x/"]', ["allowed_hosts", "'http://x/'"]),
        ('allowed_hosts = "x"', ["allowed_hosts"]),
        ('allowed_hosts = ["*"]', ["allowed_hosts"]),
        ('allowed_origins = ["x"]', ["allowed_origins", "'x'"]),
        ('allowed_origins = ["null"]', ["allowed_origins"]),
    ],
)
def test_errors_name_the_file_and_the_key(
    tmp_path: Path, content: str | bytes, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/trunkline.toml: ")
    for word in words:
        assert word in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="directory"):
        load_config(tmp_path)
