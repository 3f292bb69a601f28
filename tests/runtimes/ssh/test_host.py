from __future__ import annotations

import pytest

from runtimes.ssh import SshHost


def test_parse() -> None:
    host = SshHost.parse("ssh://ada@build.example:2222", known_hosts="/k", keys=("/id",))
    assert (host.address, host.username, host.port) == ("build.example", "ada", 2222)
    assert str(host) == "ada@build.example:2222"
    host = SshHost.parse("ssh://ada@[2001:db8::1]", known_hosts="/k", agent="/agent")
    assert (host.address, host.port) == ("2001:db8::1", 22)
    assert str(host) == "ada@[2001:db8::1]:22"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "build.example",
        "ada@build.example",
        "http://ada@build.example",
        "ssh://build.example",
        "ssh://ada:secret@build.example",
        "ssh://ada@build.example/path",
        "ssh://ada@build.example:port",
        "ssh://ada@build.example:70000",
        "ssh://ada@build.example:0",
    ],
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|look like|port"):
        SshHost.parse(text, known_hosts="/k", keys=("/id",))


def test_the_server_must_be_known_and_so_must_we() -> None:
    with pytest.raises(ValueError, match="known_hosts"):
        SshHost("host", "ada", "", keys=("/id",))
    with pytest.raises(ValueError, match="a key or an agent"):
        SshHost("host", "ada", "/k")
    with pytest.raises(ValueError, match="no address"):
        SshHost("ho st", "ada", "/k", keys=("/id",))
    with pytest.raises(ValueError, match="no name"):
        SshHost("host", "", "/k", keys=("/id",))
    with pytest.raises(ValueError, match="keepalive"):
        SshHost("host", "ada", "/k", keys=("/id",), keepalive=0)
