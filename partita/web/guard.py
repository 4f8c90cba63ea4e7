"""Who may ask a local page, and what every answer says: Host, Origin, token, size, headers.

A page on loopback is reached by every program of the machine, and by every web site that the browser has open: one
that points a name of its own at 127.0.0.1 (DNS rebinding), or that sends forms here. So all of it is checked before any
route is chosen.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from contextlib import suppress
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 1024 * 1024
"""Bytes of a request's body."""
_SAFE = ("GET", "HEAD")
_KEPT, _AGAIN = "no-store", "private, no-cache"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Lets through what comes from our own pages with the token; everything else is answered here.

    Args:
        hosts: what a browser may have called us, ``name:port``.
        token: asked of every request, as a cookie or once as ``?token=``; None asks for nothing.
        cookie: the cookie's name; cookies are shared by all ports of a host.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], token: str | None, cookie: str) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._token = token
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # nobody here speaks anything else
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        # Without a copy of it the browser's Back has nothing to show of what a form was answered with.
        body = _Body(receive, _with_headers(send, _KEPT if scope["method"] in _SAFE else _AGAIN))
        with suppress(ClientDisconnect):  # as which the application takes a body without an end
            await self._app(scope, body.receive, body.send)
        if body.too_large:
            await _refuse(413, "more was sent than any form here has")(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return _refuse(421, "this server doesn't answer to that name: use the line that `partita web` printed")
        if not self._from_here(scope["method"], headers):
            return _refuse(403, "this was sent by another site, which may not")
        if int(headers.get("content-length", "0")) > LARGEST:
            return _refuse(413, "more was sent than any form here has")
        if self._token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if given and scope["method"] in _SAFE:
            if not _same(given[-1], self._token):
                return _refuse(403, "that token is not this server's: use the line that `partita web` printed last")
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # One slash: two would be a host.
            path = "/" + quote(scope["path"]).lstrip("/") + (f"?{rest}" if rest else "")
            answer = RedirectResponse(path, 303)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            return answer
        if not any(_same(kept, self._token) for kept in _in_cookies(headers, self._cookie)):
            return _refuse(401, "the token is missing: open the whole line that `partita web` printed")
        return None

    def _from_here(self, method: str, headers: Headers) -> bool:
        """Whether none but our own pages, or a person who typed or followed an address, can have sent this."""
        origins = headers.getlist("origin")
        if any(origin.lower() not in {f"http://{host}" for host in self._hosts} for origin in origins):
            return False
        site = headers.get("sec-fetch-site", "none" if method in _SAFE else "")
        if method in _SAFE:
            # Someone may follow a link to us from elsewhere; the cookie then isn't sent, only a token in it counts.
            return site in ("none", "same-origin") or headers.get("sec-fetch-mode") == "navigate"
        return site == "same-origin" or (not site and bool(origins))


def _refuse(status: int, why: str) -> Response:
    return PlainTextResponse(f"Partita: {why}\n", status)


def _in_cookies(headers: Headers, name: str) -> list[str]:
    """Every value of a cookie. All servers of this machine share one jar, so what others put there is passed over,
    whatever form it has."""
    pairs = (pair.strip().partition("=") for given in headers.getlist("cookie") for pair in given.split(";"))
    return [value for called, _, value in pairs if called == name]


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _with_headers(send: Send, kept: str = _KEPT) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", kept)
        await send(message)

    return sending


class _Body:
    """A request's body up to what forms of ours have. One that is longer has no end for the application, whose answer
    to that is kept back."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._received = 0
        self._began = False
        self.too_large = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > LARGEST and not self._began:
            self.too_large = True
        return {"type": "http.disconnect"} if self.too_large else message

    async def send(self, message: Message) -> None:
        if not self.too_large:
            self._began = True
            await self._send(message)
