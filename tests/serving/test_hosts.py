"""Which hosts are this machine, and which are one."""

from __future__ import annotations

import pytest

from serving.hosts import is_loopback, same_host
from serving.sender import Sender
from storage.errors import UsageError


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True), ("127.0.0.2", True), ("127.1", True), ("localhost", True), ("LOCALHOST.", True),
        ("a.localhost", True), ("[::1]", True), ("[::ffff:127.0.0.1]", True), ("0.0.0.0", True), ("[::]", True),
        ("10.0.0.1", False), ("localhost.example.com", False), ("127.0.0.1.example.com", False), ("face", False),
    ],
)  # fmt: skip
def test_this_machine(host: str, here: bool) -> None:
    assert is_loopback(f"http://{host}:8000/v1") is here


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.example/v1", "https://a.example:8443/v1", True),
        ("https://a.example/v1", "https://b.example/v1", False),
        ("https://a.example/v1", "http://a.example:81/v1", False),
        ("http://a.example/v1", "https://a.example/v1", True),
        ("http://127.0.0.1:8000/v1", "http://localhost:8001/v1", True),
        ("https://localhost/v1", "http://127.0.0.1:8001/v1", True),
        ("embedded", "embedded", False),
    ],
)
def test_a_key_of_one_host_for_the_other(one: str, other: str, same: bool) -> None:
    """A key that goes under TLS does not go in the open, but for this machine."""
    assert same_host(one, other) is same


@pytest.mark.parametrize("host", ["evil.com\\.localhost", "a b", "a|b", "a<b"])
def test_hosts_that_no_host_has(host: str) -> None:
    with pytest.raises(UsageError):
        Sender(f"http://{host}/v1", None, request_timeout=1, concurrency=1)
