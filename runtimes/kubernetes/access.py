"""Where the cluster is, whom to trust, and who we are: kubeconfig files and service accounts.

Functions block; they are called in threads.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from runtimes.kubernetes.errors import AccessError
from runtimes.kubernetes.tokens import FileToken, FixedToken, PluginToken, TokenSource

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_UNSUPPORTED = {
    "cluster": {
        "insecure-skip-tls-verify": "give certificate-authority-data instead",
        "proxy-url": "reach the API server directly",
    },
    "user": {
        "auth-provider": "use a credential plugin (exec) instead",
        "username": "use a token or a certificate",
        "as": "use the credentials of that user itself",
    },
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """How to talk to a cluster.  `ssl_context` None means plain HTTP.

    `server_name` is the name its certificate must have.
    """

    url: str
    ssl_context: ssl.SSLContext | None
    server_name: str
    namespace: str
    token: TokenSource


def load_cluster(kubeconfig: Path | None = None, context: str | None = None) -> Cluster:
    """Read how to reach the cluster.

    From `kubeconfig`; where there is none, from the first file of ``$KUBECONFIG``; in a pod, from its
    service account; else from ``~/.kube/config``.  `context` None means the current one.

    Raises:
      AccessError: that cannot be read, or says nothing that is supported.
    """
    if kubeconfig is None:
        named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        if not named and context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return load_service_account()
        kubeconfig = Path(named) if named else Path.home() / ".kube" / "config"
    return load_kubeconfig(kubeconfig, context)


def load_service_account(directory: Path = SERVICE_ACCOUNT) -> Cluster:
    """Use the service account of the pod in which this runs.

    Raises:
      AccessError: there is none.
    """
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise AccessError("KUBERNETES_SERVICE_HOST is not set: this does not run in a pod")
    try:
        authorities = (directory / "ca.crt").read_text()
        namespace = (directory / "namespace").read_text().strip()
    except OSError as error:
        raise AccessError(
            f"the service account of this pod cannot be read: {error};"
            " set automountServiceAccountToken, or give a kubeconfig"
        ) from error
    shown = f"[{host}]" if ":" in host else host
    return Cluster(
        url=f"https://{shown}:{port}",
        ssl_context=_context(authorities, str(directory)),
        server_name=host,
        namespace=namespace or "default",
        token=FileToken(directory / "token"),
    )


def load_kubeconfig(path: Path, context: str | None = None) -> Cluster:
    """Read a kubeconfig file; relative paths in it begin where it lies.

    Raises:
      AccessError: it cannot be read, or says something that is not supported; names the file.
    """
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AccessError(
            f"the kubeconfig {path} cannot be read: {error}; name another one, or set KUBECONFIG"
        ) from error
    if not isinstance(config, dict):
        raise AccessError(f"the kubeconfig {path} is empty, or no kubeconfig")
    return _Kubeconfig(path, config).cluster(context)


class _Kubeconfig:
    """One file, and the messages about it."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self._path = path
        self._config = config

    def _wrong(self, problem: str) -> AccessError:
        return AccessError(f"the kubeconfig {self._path}: {problem}")

    def _named(self, kind: str, name: str) -> dict[str, Any]:
        for item in self._config.get(f"{kind}s") or ():
            if isinstance(item, dict) and item.get("name") == name:
                found = dict(item.get(kind) or {})
                for key, advice in _UNSUPPORTED.get(kind, {}).items():
                    if found.get(key):
                        raise self._wrong(f"{kind} {name!r}: {key} is not supported; {advice}")
                return found
        raise self._wrong(f"there is no {kind} {name!r}")

    def cluster(self, context: str | None) -> Cluster:
        """Return what a context amounts to."""
        name = context or self._config.get("current-context")
        if not name:
            raise self._wrong("it has no current-context; name one")
        chosen = self._named("context", name)
        cluster = self._named("cluster", str(chosen.get("cluster")))
        user = self._named("user", str(chosen["user"])) if chosen.get("user") else {}
        url = str(cluster.get("server") or "")
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise self._wrong(f"the server {url!r} is no URL")
        secure = parts.scheme == "https"
        return Cluster(
            url=url.rstrip("/"),
            ssl_context=self._ssl_context(cluster, user) if secure else None,
            server_name=str(cluster.get("tls-server-name") or parts.hostname),
            namespace=str(chosen.get("namespace") or "default"),
            token=self._token(user),
        )

    def _ssl_context(self, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
        authorities = self._pem(cluster, "certificate-authority")
        context = _context(authorities, str(self._path))
        certificate = self._pem(user, "client-certificate")
        key = self._pem(user, "client-key")
        if (certificate is None) != (key is None):
            raise self._wrong("client-certificate and client-key go together")
        if certificate is not None and key is not None:
            self._load_certificate(context, certificate, key)
        return context

    def _load_certificate(self, context: ssl.SSLContext, certificate: str, key: str) -> None:
        # The ssl module reads certificates from files only; this one is ours alone and gone at once.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(f"{certificate}\n{key}\n")
            file.flush()
            try:
                context.load_cert_chain(file.name)
            except (ssl.SSLError, OSError) as error:
                raise self._wrong(f"its client certificate is of no use: {error}") from error

    def _pem(self, section: Mapping[str, Any], key: str) -> str | None:
        """Return what ``key-data`` holds, or the file that ``key`` names."""
        if data := section.get(f"{key}-data"):
            try:
                return base64.b64decode(str(data), validate=True).decode("ascii")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise self._wrong(f"{key}-data is no base64 of PEM") from error
        if name := section.get(key):
            try:
                return self._beside(str(name)).read_text("ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise self._wrong(f"{key} cannot be read: {error}") from error
        return None

    def _beside(self, name: str) -> Path:
        return self._path.parent / name

    def _token(self, user: Mapping[str, Any]) -> TokenSource:
        if name := user.get("tokenFile"):
            return FileToken(self._beside(str(name)))
        if token := user.get("token"):
            return FixedToken(str(token))
        plugin = user.get("exec")
        if not plugin:
            return FixedToken()
        if not isinstance(plugin, dict) or not plugin.get("command"):
            raise self._wrong("exec has no command")
        if plugin.get("interactiveMode") == "Always" or plugin.get("provideClusterInfo"):
            raise self._wrong(
                "exec plugins that ask a human or need cluster info are not supported;"
                " use the token of a service account"
            )
        command = str(plugin["command"])
        if os.sep in command:
            command = str(self._beside(command))
        return PluginToken(
            (command, *map(str, plugin.get("args") or ())),
            {str(item["name"]): str(item["value"]) for item in plugin.get("env") or ()},
            str(plugin.get("apiVersion") or "client.authentication.k8s.io/v1"),
            str(plugin.get("installHint") or "").strip(),
        )


def _context(authorities: str | None, where: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=authorities)
    except (ssl.SSLError, ValueError) as error:
        raise AccessError(f"{where}: the authority's certificate is of no use: {error}") from error
