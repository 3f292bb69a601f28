"""Bearer tokens, wherever they come from.  Methods block and are called in threads."""

from __future__ import annotations

import json
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from runtimes.kubernetes.errors import AccessError

REREAD_SECONDS = 60.0
"""How long a token from a file is used before the file is read again: clusters replace it hourly."""
PLUGIN_SECONDS = 30.0
"""How long a credential plugin may take."""
EARLY_SECONDS = 30.0
"""How long before its end a token is replaced."""

_MAX_TOKEN_BYTES = 1 << 20


class TokenSource(ABC):
    """Gives the token of the moment.  For one thread at a time."""

    @abstractmethod
    def current(self) -> str | None:
        """Return the token to send; None: send none.

        Raises:
          AccessError: it cannot be had, and why.
        """

    def forget(self) -> None:  # noqa: B027 - most have nothing to forget
        """Get another one next time: the server did not take the last."""


@dataclass(frozen=True, slots=True)
class FixedToken(TokenSource):
    """The same token always, or none (where a certificate says who we are)."""

    token: str | None = None

    def current(self) -> str | None:
        """See `TokenSource.current`."""
        return self.token


class FileToken(TokenSource):
    """A token in a file that somebody keeps fresh."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._until = 0.0

    def current(self) -> str:
        """See `TokenSource.current`."""
        if time.monotonic() >= self._until:
            try:
                self._token = self._path.read_text("ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise AccessError(f"the token file {self._path} cannot be read: {error}") from error
            if not self._token:
                raise AccessError(f"the token file {self._path} is empty")
            self._until = time.monotonic() + REREAD_SECONDS
        return self._token

    def forget(self) -> None:
        """See `TokenSource.forget`."""
        self._until = 0.0


class PluginToken(TokenSource):
    """A token that a program gives (client-go credential plugins, ``ExecCredential``)."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], version: str, advice: str
    ) -> None:
        self._command = tuple(command)
        self._environment = dict(environment)
        self._version = version
        self._advice = advice
        self._token = ""
        self._until = 0.0

    def current(self) -> str:
        """See `TokenSource.current`."""
        if time.time() >= self._until:
            self._token, self._until = self._ask()
        return self._token

    def forget(self) -> None:
        """See `TokenSource.forget`."""
        self._until = 0.0

    def _ask(self) -> tuple[str, float]:
        request = {
            "apiVersion": self._version,
            "kind": "ExecCredential",
            "spec": {"interactive": False},
        }
        environment = {
            **os.environ,
            **self._environment,
            "KUBERNETES_EXEC_INFO": json.dumps(request),
        }
        try:
            done = subprocess.run(  # noqa: S603 - the administrator's kubeconfig names it
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PLUGIN_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode("utf-8", "replace").strip()[-500:]
            raise self._failed(f"it ended with {error.returncode}: {said}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._failed(str(error)) from error
        return self._read(done.stdout[:_MAX_TOKEN_BYTES])

    def _read(self, answer: bytes) -> tuple[str, float]:
        try:
            status = json.loads(answer)["status"]
            expires = status.get("expirationTimestamp")
            until = (
                datetime.fromisoformat(expires.replace("Z", "+00:00")).timestamp()
                if expires
                else float("inf")
            )
            token = status.get("token")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._failed("what it says is no ExecCredential") from error
        if not token:
            raise self._failed("it gives no token; client certificates of plugins are unsupported")
        return str(token), until - EARLY_SECONDS

    def _failed(self, why: str) -> AccessError:
        advice = f"; {self._advice}" if self._advice else ""
        return AccessError(f"the credential plugin {self._command[0]!r} failed: {why}{advice}")
