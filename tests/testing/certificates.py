"""A certificate authority for tests."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """Issues one certificate for this machine, and contexts for clients that trust it."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        issued = self._authority.issue_cert("127.0.0.1", "localhost")
        self.certificate = directory / "cert.pem"
        self.key = directory / "key.pem"
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(str(self.certificate), append=number > 0)
        issued.private_key_pem.write_to_path(str(self.key))
        self._directory = directory

    def write_authority(self) -> Path:
        """Write the certificate of the authority itself, for clients that read it from a file."""
        path = self._directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(path))
        return path

    def client_context(self, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context
