"""Hosts of URLs: which are this machine, and which are the same."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

_HERE = "localhost"


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, seen from itself."""
    return _host(url) == _HERE


def same_host(one: str, other: str) -> bool:
    """Whether two URLs have one host, on whatever port; all names of loopback are one. False where there is none."""
    host = _host(one)
    return bool(host) and host == _host(other)


def _host(url: str) -> str:
    try:
        host = (urlsplit(url).hostname or "").removesuffix(".")
        if host == _HERE or host.endswith("." + _HERE):
            return _HERE
        host = host.encode("idna").decode()
    except ValueError:
        return ""  # no URL, as whoever opens it will say
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return _HERE if address.is_loopback else str(address)
