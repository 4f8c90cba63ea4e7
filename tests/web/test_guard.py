"""Who may ask the page: every route there is, with whatever may be wrong with a request."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from partita.prices import load_prices
from partita.web.app import build_app
from partita.web.desk import Desk
from partita.web.guard import LARGEST, Guard
from partita.web.rendering import STATIC
from partita.web.server import guarded, hosts
from storage.database import open_database
from tests.web.conftest import TOKEN, Site

PORT = 8400
HOST = f"127.0.0.1:{PORT}"
HERE = f"http://{HOST}"
COOKIE = f"partita_{PORT}={TOKEN}"
Headers = list[tuple[str, str]]


def asked_for(app: FastAPI) -> set[tuple[str, str]]:
    """Method and path of everything that an application answers to, with `s` for a session and 1 for a number."""
    found = {("GET", f"/static/{file.name}") for file in STATIC.iterdir()}
    for path, methods in app.openapi()["paths"].items():
        named = re.sub(r"\{[^}]*\}", "1", path.replace("{name}", "s"))
        found |= {(method.upper(), named) for method in methods}
    return found


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    with open_database(f"sqlite:///{tmp_path_factory.mktemp('routes')}/p.db") as db:
        return sorted(asked_for(build_app(Desk(db, load_prices()))))


class Reached:
    """Stands for the application."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.times += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"ALLOWALL")]})
        await send({"type": "http.response.body", "body": b"reached"})


def ask(
    method: str, target: str, headers: Headers, *, token: str | None = TOKEN, body: list[bytes] | None = None
) -> tuple[int, dict[str, str], int]:
    """What the guard answers, with which headers, and how often the application was reached."""
    app = Reached()
    guard = guarded(app, hosts("127.0.0.1", PORT, ()), token, PORT)
    return (*_ask(guard, method, target, headers, body), app.times)


def _ask(
    guard: Guard, method: str, target: str, headers: Headers, body: list[bytes] | None = None
) -> tuple[int, dict[str, str]]:
    path, _, query = target.partition("?")
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "path": httpx.URL(f"http://h{path}").path,
        "raw_path": path.encode(), "query_string": query.encode(), "scheme": "http", "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }  # fmt: skip
    sent: list[dict[str, Any]] = []
    parts = list(body or [b""])

    async def receive() -> dict[str, Any]:
        part = parts.pop(0) if parts else b""
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))  # type: ignore[arg-type]
    assert [message["type"] for message in sent].count("http.response.start") == 1
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def ours(method: str) -> Headers:
    """What our own page sends."""
    origin = [] if method in ("GET", "HEAD") else [("Origin", HERE)]
    return [("Host", HOST), ("Cookie", COOKIE), ("Sec-Fetch-Site", "same-origin"), *origin]


WRONG: dict[str, Headers] = {
    "no token": [("Host", HOST), ("Origin", HERE)],
    "wrong cookie": [("Host", HOST), ("Origin", HERE), ("Cookie", f"partita_{PORT}=no")],
    "empty cookie": [("Host", HOST), ("Origin", HERE), ("Cookie", f"partita_{PORT}=")],
    "another server's cookie": [("Host", HOST), ("Origin", HERE), ("Cookie", f"partita_1={TOKEN}")],
    "foreign host": [("Host", f"evil.example:{PORT}"), ("Cookie", COOKIE)],
    "foreign host, its own origin": [
        ("Host", f"evil.example:{PORT}"), ("Cookie", COOKIE), ("Origin", f"http://evil.example:{PORT}"),
        ("Sec-Fetch-Site", "same-origin"),
    ],
    "no host": [("Cookie", COOKIE)],
    "empty host": [("Host", ""), ("Cookie", COOKIE)],
    "two hosts": [("Host", HOST), ("Host", HOST), ("Cookie", COOKIE)],
    "another port": [("Host", "127.0.0.1:8401"), ("Cookie", COOKIE)],
    "no port": [("Host", "127.0.0.1"), ("Cookie", COOKIE)],
    "host with a name": [("Host", f"user@{HOST}"), ("Cookie", COOKIE)],
    "host that ends in ours": [("Host", f"evil.{HOST}"), ("Cookie", COOKIE)],
    "foreign origin": [("Host", HOST), ("Cookie", COOKIE), ("Origin", "http://evil.example")],
    "another port's origin": [("Host", HOST), ("Cookie", COOKIE), ("Origin", "http://127.0.0.1:8401")],
    "origin over https": [("Host", HOST), ("Cookie", COOKIE), ("Origin", f"https://{HOST}")],
    "null origin": [("Host", HOST), ("Cookie", COOKIE), ("Origin", "null")],
    "two origins": [("Host", HOST), ("Cookie", COOKIE), ("Origin", HERE), ("Origin", "http://evil.example")],
    "cross-site": [("Host", HOST), ("Cookie", COOKIE), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")],
    "same-site": [("Host", HOST), ("Cookie", COOKIE), ("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "cors")],
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_no_route_is_reached_by_a_stranger(routes: list[tuple[str, str]], wrong: Headers) -> None:
    assert {method for method, _ in routes} >= {"GET", "POST"} and len(routes) > 15
    for method, path in routes:
        status, headers, reached = ask(method, path, wrong)
        assert reached == 0 and status in (401, 403, 421), (method, path, status)
        assert headers["content-type"].startswith("text/plain") and "set-cookie" not in headers


UNSENT: dict[str, Headers] = {
    "no origin": [("Host", HOST), ("Cookie", COOKIE)],
    "navigated to from elsewhere": [
        ("Host", HOST), ("Cookie", COOKIE), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"),
        ("Origin", HERE),
    ],
    "sent by a neighbour": [("Host", HOST), ("Cookie", COOKIE), ("Sec-Fetch-Site", "same-site"), ("Origin", HERE)],
    "typed": [("Host", HOST), ("Cookie", COOKIE), ("Sec-Fetch-Site", "none"), ("Origin", HERE)],
}  # fmt: skip


@pytest.mark.parametrize("wrong", UNSENT.values(), ids=UNSENT.keys())
def test_nothing_is_done_that_our_page_did_not_send(routes: list[tuple[str, str]], wrong: Headers) -> None:
    doing = [(method, path) for method, path in routes if method not in ("GET", "HEAD")]
    for method, path in [*doing, ("PUT", "/"), ("DELETE", "/s/s"), ("OPTIONS", "/"), ("TRACE", "/")]:
        status, _, reached = ask(method, path, wrong)
        assert reached == 0 and status == 403, (method, path, status)


def test_our_own_page_is_let_through(routes: list[tuple[str, str]]) -> None:
    for method, path in routes:
        for host in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
            sent = [("Host", f"{host}:{PORT}"), *ours(method)[1:]]
            status, headers, reached = ask(method, path, sent)
            assert (status, reached) == (200, 1), (method, path, host)
            assert headers["x-frame-options"] == "DENY", "what the application says of that does not count"
    # What other servers of this machine keep in the jar that all of them share does no harm, whatever its form.
    for other in ('a={"b":1}; ', "session=x y@[]; ", f"partita_{PORT}=old; ", "=; ;;", "caf\xe9=\xff; "):
        assert ask("GET", "/", [("Host", HOST), ("Cookie", other + COOKIE)])[0] == 200, other
    assert ask("GET", "/", [("Host", HOST)], token=None)[0] == 200
    assert ask("GET", "/", [("Host", "evil.example")], token=None)[0] == 421
    assert ask("POST", "/", [("Host", HOST)], token=None)[0] == 403


@pytest.mark.parametrize(
    ("target", "goes"),
    [
        (f"/?token={TOKEN}", "/"),
        (f"/s/s?start=3&token={TOKEN}&side=192", "/s/s?start=3&side=192"),
        (f"/s/s?%74oken={TOKEN}", "/s/s"),
        (f"/?token=wrong&token={TOKEN}", "/"),
        (f"//evil.example?token={TOKEN}", "/evil.example"),
        (f"///evil.example/%2e%2e?token={TOKEN}", "/evil.example/.."),
        (f"/%2Fevil.example?token={TOKEN}", "/evil.example"),
        (f"/%5Cevil.example?token={TOKEN}", "/%5Cevil.example"),
        (f"/%09/evil.example?token={TOKEN}", "/%09/evil.example"),
        (f"/%0d%0aLocation:%20http://evil.example?token={TOKEN}", "/%0D%0ALocation%3A%20http%3A//evil.example"),
        (f"/s/%22%3E%3Cscript%3E?token={TOKEN}", "/s/%22%3E%3Cscript%3E"),
        (f"/?next=//evil.example&token={TOKEN}", "/?next=%2F%2Fevil.example"),
    ],
)
def test_the_token_becomes_a_cookie_and_leaves_the_address(target: str, goes: str) -> None:
    status, headers, reached = ask("GET", target, [("Host", HOST)])
    assert (status, reached) == (303, 0)
    assert headers["location"] == goes
    kept = {part.strip().lower() for part in headers["set-cookie"].split(";")}
    assert kept == {COOKIE.lower(), "httponly", "path=/", "samesite=strict"}
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "same-origin"


def test_a_wrong_token_opens_nothing() -> None:
    for token in ("", "wrong", TOKEN[:-1], TOKEN + "x", "%ff", "%00", "\u00e9".encode().hex()):
        status, headers, reached = ask("GET", f"/?token={token}", [("Host", HOST)])
        assert (status, reached) == (403, 0) and "set-cookie" not in headers
    assert ask("POST", f"/?token={TOKEN}", [("Host", HOST), ("Origin", HERE)])[0] == 401
    assert ask("GET", f"/?token={TOKEN}", [("Host", "evil.example")])[0] == 421
    # Someone may follow a link with the token from elsewhere, no script may.
    followed = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")]
    assert ask("GET", f"/?token={TOKEN}", [("Host", HOST), *followed])[0] == 303
    fetched = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "cors")]
    assert ask("GET", f"/?token={TOKEN}", [("Host", HOST), *fetched])[0] == 403


def test_too_much_is_refused_however_it_is_sent(tmp_path: Any) -> None:
    with open_database(f"sqlite:///{tmp_path}/p.db") as db:
        guard = guarded(build_app(Desk(db, load_prices())), hosts("127.0.0.1", PORT, ()), TOKEN, PORT)
        form = ("Content-Type", "application/x-www-form-urlencoded")
        declared = [*ours("POST"), form, ("Content-Length", str(LARGEST + 1))]
        assert _ask(guard, "POST", "/s/s/correct", declared)[0] == 413
        chunks = [b"did=move&why=" + b"x" * 1000, *([b"x" * 2**16] * 17), b"&to=1"]
        chunked = [*ours("POST"), form, ("Transfer-Encoding", "chunked")]
        status, headers = _ask(guard, "POST", "/s/s/correct", chunked, chunks)
        assert status == 413 and headers["x-content-type-options"] == "nosniff"
        multipart = [*ours("POST"), ("Content-Type", "multipart/form-data; boundary=b")]
        part = b'--b\r\nContent-Disposition: form-data; name="did"; filename="x"\r\n\r\n' + b"x" * 2**16
        assert _ask(guard, "POST", "/s/s/correct", multipart, [part, *([b"x" * 2**16] * 17)])[0] == 413
        assert (
            _ask(guard, "POST", "/s/s/correct", [*ours("POST"), form], [b"did=move&to=1"])[0] == 404
        )  # no such session


def raw(site: Site, request: bytes) -> bytes:
    """What the server says to these bytes."""
    host, _, port = site.base.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_over_a_socket(site: Site) -> None:
    host = site.base.removeprefix("http://")
    cookie = f"Cookie: partita_{host.partition(':')[2]}={TOKEN}\r\n"
    for lines, status in (
        (f"GET / HTTP/1.1\r\nHost: {host}\r\n{cookie}", b"200"),
        (f"GET / HTTP/1.1\r\nHost: {host}\r\n", b"401"),
        (f"GET / HTTP/1.1\r\n{cookie}", b"400 421"),  # the server's own parser may have its say before us
        (f"GET / HTTP/1.0\r\n{cookie}", b"421"),
        (f"GET / HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n{cookie}", b"400 421"),
        (f"GET / HTTP/1.1\r\nHost: evil.example\r\n{cookie}", b"421"),
        (f"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n{cookie}", b"421"),
        (f"GET http://evil.example/s/s HTTP/1.1\r\nHost: {host}\r\n{cookie}", b"200 404"),  # ours, or nobody's
        (f"GET //evil.example/?token={TOKEN} HTTP/1.1\r\nHost: {host}\r\n", b"303"),
        (f"GET /static/../guard.py HTTP/1.1\r\nHost: {host}\r\n{cookie}", b"404"),
        (f"GET /static/..%2f..%2fguard.py HTTP/1.1\r\nHost: {host}\r\n{cookie}", b"404"),
        (f"GET /static/%2e%2e/guard.py HTTP/1.1\r\nHost: {host}\r\n{cookie}", b"404"),
        (f"GET /static//etc/passwd HTTP/1.1\r\nHost: {host}\r\n{cookie}", b"404"),
        (f"GET /static/%00 HTTP/1.1\r\nHost: {host}\r\n{cookie}", b"404"),
    ):
        said = raw(site, f"{lines}Connection: close\r\n\r\n".encode())
        assert said.split(b" ", 2)[1] in status.split(), (lines, said[:300])
        assert b"root:" not in said and b"import hmac" not in said
        assert b"location: //" not in said.lower() and b"http://evil" not in said.lower().partition(b"\r\n\r\n")[0]


HARDENED = {
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def test_every_answer_says_what_browsers_may_do_with_it(site: Site, routes: list[tuple[str, str]]) -> None:
    with site.client() as client:
        picture = "/s/s/i/1/picture?side=192"
        tag = client.get(picture).headers["etag"]
        answers = {
            200: client.get("/s/s"),
            304: client.get(picture, headers={"If-None-Match": tag}),
            404: client.get("/nothing/here"),
            405: client.delete("/s/s"),
            400: client.get("/s/s/i/x"),
        }
        answers |= {1000 + n: client.get(path) for n, (method, path) in enumerate(routes) if method == "GET"}
        answers |= {2000 + n: client.post(path) for n, (method, path) in enumerate(routes) if method == "POST"}
        strangers = [httpx.get(f"{site.base}{path}") for path in ("/", "/static/page.js", picture)]
    for status, answer in [*answers.items(), *((401, one) for one in strangers)]:
        assert status > 600 or answer.status_code == status
        assert answer.status_code < 500, answer.url
        assert HARDENED.items() <= dict(answer.headers).items(), answer.url
        kept = answer.headers["cache-control"]
        if answer.headers.get("content-type", "").startswith("text/html"):
            # What a form was answered with has to be there still when the browser's Back leads to it.
            assert kept == ("no-store" if answer.request.method == "GET" else "private, no-cache"), answer.url
        assert "private" in kept or kept == "no-store", answer.url
        assert "server" not in answer.headers and "access-control-allow-origin" not in answer.headers


def test_an_error_of_ours_says_nothing_of_its_inside(site: Site, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("an inside of ours")

    with site.client() as client:
        monkeypatch.setattr("partita.web.listing._listed", broken)
        answer = client.get("/")
    assert answer.status_code == 500 and "inside of ours" not in answer.text and "Traceback" not in answer.text
    assert HARDENED.items() <= dict(answer.headers).items() and answer.headers["cache-control"] == "no-store"


def test_routes_are_found(routes: list[tuple[str, str]]) -> None:
    assert {("GET", "/s/s/i/1/picture"), ("POST", "/s/s/undo"), ("GET", "/static/page.js"), ("GET", "/")} <= set(routes)
