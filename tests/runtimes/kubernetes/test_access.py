"""Kubeconfig files and service accounts: what is read, and what is said of bad ones."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from runtimes.kubernetes.access import load_cluster, load_kubeconfig, load_service_account
from runtimes.kubernetes.errors import AccessError
from runtimes.kubernetes.tokens import FileToken, PluginToken
from tests.testing.kube_config import write_kubeconfig

URL = "https://cluster.test:6443"


def encode(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


def test_a_certificate_in_the_file(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("me@cluster.test")
    config = write_kubeconfig(
        tmp_path / "config",
        URL,
        user={
            "client-certificate-data": encode(issued.cert_chain_pems[0].bytes()),
            "client-key-data": encode(issued.private_key_pem.bytes()),
        },
        cluster={
            "certificate-authority-data": encode(authority.cert_pem.bytes()),
            "tls-server-name": "kubernetes",
        },
        context={"namespace": "sandboxes"},
    )
    cluster = load_kubeconfig(config)
    assert (cluster.url, cluster.server_name, cluster.namespace) == (URL, "kubernetes", "sandboxes")
    assert cluster.token.current() is None
    assert cluster.ssl_context is not None
    assert len(cluster.ssl_context.get_ca_certs()) == 1  # that one, not the system's


def test_tokens(tmp_path: Path) -> None:
    config = write_kubeconfig(tmp_path / "config", URL, user={"token": "t0ken"})
    assert load_kubeconfig(config).token.current() == "t0ken"
    (tmp_path / "file").write_text("one\n")
    source = FileToken(tmp_path / "file")
    assert source.current() == "one"
    (tmp_path / "file").write_text("two\n")
    assert source.current() == "one"
    source.forget()
    assert source.current() == "two"
    (tmp_path / "file").write_text("")
    source.forget()
    with pytest.raises(AccessError, match="is empty"):
        source.current()


def plugin(status: object) -> PluginToken:
    answer = json.dumps({"kind": "ExecCredential", "status": status})
    script = f"import os; assert os.environ['KUBERNETES_EXEC_INFO']; print({answer!r})"
    return PluginToken((sys.executable, "-c", script), {}, "client.authentication.k8s.io/v1", "hm")


def test_credential_plugins() -> None:
    expires = "2999-01-01T00:00:00Z"
    assert plugin({"token": "from-plugin", "expirationTimestamp": expires}).current() == (
        "from-plugin"
    )
    assert plugin({"token": "for-ever"}).current() == "for-ever"
    with pytest.raises(AccessError, match="client certificates of plugins"):
        plugin({"clientCertificateData": "x"}).current()
    with pytest.raises(AccessError, match="no ExecCredential"):
        plugin([]).current()
    failing = PluginToken((sys.executable, "-c", "exit('log in first')"), {}, "v1", "run login")
    with pytest.raises(AccessError, match="log in first; run login"):
        failing.current()
    with pytest.raises(AccessError, match="/no/such"):
        PluginToken(("/no/such",), {}, "v1", "").current()


@pytest.mark.parametrize(
    ("user", "cluster", "words"),
    [
        ({}, {"insecure-skip-tls-verify": True}, "certificate-authority-data"),
        ({}, {"proxy-url": "http://p"}, "proxy-url is not supported"),
        ({"auth-provider": {"name": "gcp"}}, {}, "credential plugin"),
        ({"username": "u", "password": "p"}, {}, "username is not supported"),
        ({"exec": {}, "client-key-data": "QQ=="}, {}, "go together"),
        ({"exec": {"command": "x", "interactiveMode": "Always"}}, {}, "service account"),
        ({}, {"certificate-authority-data": "%"}, "no base64"),
        ({}, {"certificate-authority-data": "QQ=="}, "of no use"),
        ({}, {"certificate-authority": "missing.pem"}, "cannot be read"),
        ({}, {"server": "cluster"}, "no URL"),
    ],
)
def test_what_is_not_supported_is_named(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], words: str
) -> None:
    config = write_kubeconfig(tmp_path / "config", URL, user=user, cluster=cluster)
    with pytest.raises(AccessError, match=words):
        load_kubeconfig(config)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="set KUBECONFIG"):
        load_kubeconfig(tmp_path / "none")
    (tmp_path / "bad").write_text("a: [")
    with pytest.raises(AccessError, match="cannot be read"):
        load_kubeconfig(tmp_path / "bad")
    (tmp_path / "bad").write_text("just text")
    with pytest.raises(AccessError, match="no kubeconfig"):
        load_kubeconfig(tmp_path / "bad")
    (tmp_path / "bad").write_text("{contexts: []}")
    with pytest.raises(AccessError, match="no current-context"):
        load_kubeconfig(tmp_path / "bad")
    with pytest.raises(AccessError, match="no context 'x'"):
        load_kubeconfig(tmp_path / "bad", "x")


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kubeconfig(tmp_path / "named", "http://named:1")
    (tmp_path / ".kube").mkdir()
    write_kubeconfig(tmp_path / ".kube" / "config", "http://home:1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'named'}:/no/such")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert load_cluster().url == "http://named:1"
    monkeypatch.delenv("KUBECONFIG")
    assert load_cluster().url == "http://home:1"
    assert load_cluster(tmp_path / "named").url == "http://named:1"


def test_the_service_account_of_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(AccessError, match="not run in a pod"):
        load_service_account(tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    with pytest.raises(AccessError, match="automountServiceAccountToken"):
        load_service_account(tmp_path)
    (tmp_path / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    (tmp_path / "namespace").write_text("here\n")
    (tmp_path / "token").write_text("mine\n")
    cluster = load_service_account(tmp_path)
    assert (cluster.url, cluster.namespace) == ("https://[fd00::1]:6443", "here")
    assert cluster.token.current() == "mine"
