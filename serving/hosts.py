"""Hosts of URLs: which are this machine, and which are the same."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

_HERE = "localhost"
_SHORT = re.compile(r"[0-9a-fx.]+", re.IGNORECASE)


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, seen from itself."""
    return _host(url) == _HERE


def same_host(one: str, other: str) -> bool:
    """Whether two URLs have one host, on whatever port; all names of loopback are one. False where there is none, and
    for plain HTTP on the host of an https URL: what is secret there is not to go in the open."""
    host = _host(one)
    opened = one.lower().startswith("https:") and not other.lower().startswith("https:")
    return bool(host) and host == _host(other) and (host == _HERE or not opened)


def _host(url: str) -> str:
    try:
        host = (urlsplit(url).hostname or "").removesuffix(".")
        if host == _HERE or host.endswith("." + _HERE):
            return _HERE
        host = host.encode("idna").decode()
    except ValueError:
        return ""  # no URL, as whoever opens it will say
    address = _address(host)
    if address is None:
        return host
    address = getattr(address, "ipv4_mapped", None) or address
    # what a server that listens everywhere gives as its address leads to this machine
    return _HERE if address.is_loopback or address.is_unspecified else str(address)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        if not _SHORT.fullmatch(host):
            return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1 and the like, as a resolver reads them
    except OSError:
        return None
