"""TLS for a server on loopback."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


def certificate(folder: Path) -> ssl.SSLContext:
    """A context for 127.0.0.1, by an authority of our own; cert.pem is what a client has to trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
