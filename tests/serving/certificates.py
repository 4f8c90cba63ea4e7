"""TLS for a server on loopback."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest


def certificate(folder: Path) -> ssl.SSLContext:
    """A context for 127.0.0.1, signed by itself; cert.pem is what a client has to trust."""
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", folder / "own.pem", "-out", folder / "cert.pem"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl can't make a certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "own.pem")
    return context
