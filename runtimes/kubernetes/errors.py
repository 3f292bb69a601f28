"""What can go wrong between us and a cluster, told so that somebody knows what to do next."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

from runtimes.exec_inside.process import ExecError

_SHOWN = 1000


class KubeError(ExecError):
    """The API server refused; `status` is that of its answer.  The message is shown to users.

    `reason` is the word of the answer that says why (``AlreadyExists``), if it has one.
    """

    def __init__(self, message: str, status: int | None = None, reason: str = "") -> None:
        super().__init__(message, status)
        self.reason = reason


class KubeUnreachable(KubeError):
    """There is no API server there, it does not answer, or it is none that we can work with."""


class AccessError(KubeError):
    """The configuration does not say how to reach a cluster, or as whom."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, in the words that rules of RBAC use: ``create``, ``pods/exec``."""

    verb: str
    resource: str
    namespace: str


def explain(status: int, content: bytes, asked: Asked) -> KubeError:
    """Return the error that an answer of the API server amounts to."""
    message, reason = _read_status(content)
    where = f"{asked.resource} in namespace {asked.namespace}"
    match status:
        case HTTPStatus.UNAUTHORIZED:
            text = (
                f"the cluster does not accept this server's credentials ({message});"
                " renew the token or the certificate of its kubeconfig or service account"
            )
        case HTTPStatus.FORBIDDEN if "cannot" in message or not message:
            text = (
                f"the cluster forbids it: {message or 'it does not say why'};"
                f" give this server's account the verb {asked.verb} on {where} (RBAC Role)"
            )
        case HTTPStatus.FORBIDDEN:
            text = f"the cluster forbids it: {message}"
        case HTTPStatus.NOT_FOUND:
            text = f"not found: {message} (asked for {where})"
        case HTTPStatus.CONFLICT:
            text = f"it conflicts with what is there: {message}; try again"
        case HTTPStatus.GONE:
            text = f"it is gone: {message}"
        case HTTPStatus.TOO_MANY_REQUESTS:
            text = (
                f"the API server is asked too much ({message}); try again later, or let it take"
                " more (API Priority and Fairness)"
            )
        case _:
            text = f"the API server answered {status}: {message or 'it does not say why'}"
    return KubeError(text, status, reason)


def _read_status(content: bytes) -> tuple[str, str]:
    """Return message and reason of a ``v1.Status``, or whatever came instead."""
    try:
        found = json.loads(content)
        return str(found.get("message") or "")[:_SHOWN], str(found.get("reason") or "")
    except (ValueError, AttributeError):
        return content.decode("utf-8", "replace").strip()[:_SHOWN], ""
