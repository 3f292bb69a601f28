"""The TLS side of the port."""

from __future__ import annotations

import ssl
from pathlib import Path


class TlsError(Exception):
    """The certificate or key cannot be used; the message says why and what to do."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context that serves HTTP/2 and HTTP/1.1 over TLS 1.2 or later.

    Args:
      certificate: PEM file with the certificate and those of its issuers.
      key: PEM file with the private key.

    Raises:
      TlsError: a file is missing or unusable.
    """
    for path, what, option in (
        (certificate, "certificate", "--tls-cert"),
        (key, "private key", "--tls-key"),
    ):
        try:
            path.read_bytes()
        except OSError as error:
            raise TlsError(
                f"cannot read the {what} {path}: {error.strerror}; check {option}"
            ) from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    try:
        # An empty password keeps OpenSSL from asking at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise TlsError(
            f"cannot use the certificate {certificate} with the key {key}: {error}; both must be PEM,"
            " belong together, and the key must not be encrypted"
        ) from error
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context
