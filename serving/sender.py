"""Sending one request to an endpoint over the official client, and telling its faults from its errors.

`Sender` knows URLs, keys, headers and transports. How often a question is asked, and when, is `serving.client`'s.
"""

from __future__ import annotations

import importlib
import re
import ssl
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from serving import answers
from serving.answers import Fault, HttpAnswer
from serving.hosts import is_loopback
from serving.reading import read_body
from serving.redaction import Redaction
from serving.roles import CHAT, Role
from serving.wire import Wire
from storage.errors import UsageError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")

MAX_ANSWER_BYTES = 16 << 20
"""A longer answer is a fault: nothing that we ask for comes near it."""
MAX_ERROR_BYTES = 1 << 20
"""Of what comes with a status other than 2xx, of which a line is shown."""

CONNECT_TIMEOUT = 10.0
KEEP_CONNECTIONS = 4.0
"""Seconds without use; many servers close after 5."""

_KEPT_HEADERS = {
    b"accept", b"accept-encoding", b"authorization", b"connection", b"content-length", b"content-type", b"host",
    b"idempotency-key", b"user-agent", b"x-stainless-raw-response",
}  # fmt: skip
_RATE_LIMIT = (b"x-ratelimit-", b"retry-after")
_UNWANTED_HEADERS = [
    f"X-Stainless-{name}"
    for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
]  # fmt: skip
"""openai's own, which would be thrown out again: not making them is cheaper."""


class Sender:
    """Sends to one base URL.

    Args:
        url: base URL, usually ending in /v1; http or https, no credentials or query in it.
        key: sent as a bearer token; it appears in no message.
        request_timeout: seconds for one request, from sending to the last byte.
        concurrency: connections kept open.
        role: how the user names this endpoint and its key.

    Raises:
        UsageError: a URL or a key that can't be one.
    """

    def __init__(
        self, url: str, key: str | None, *, request_timeout: float, concurrency: int, role: Role = CHAT
    ) -> None:
        self.url = _checked_url(url, role)
        self.role = role
        self._key = _checked_key(key, role)
        self.redaction = Redaction(self._key)
        self._request_timeout = request_timeout
        self.rate_limits: dict[str, str] = {}
        """What answers have said of rate limits, by header; the last word of each."""
        self._client = self._connect(concurrency)
        self.redaction.guard_logs()

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self._client.close()
        self.redaction.release_logs()

    async def once(
        self, method: str, path: str, content: bytes | None, key: str | None, read: Callable[[bytes], T]
    ) -> T | Fault:
        """Send a request and read the answer.

        Raises:
            EndpointError: an answer that no retry can better.
        """
        for last in (False, True):
            try:
                return await self._send(method, path, content, key, read)
            except HttpAnswer as answer:
                verdict = answers.judge(answer, self.url, self.role)
            except (self._openai.APIConnectionError, self._httpx.HTTPError) as error:
                # openai wraps what goes wrong before the body is read; httpx's own stands on httpcore's
                cause = error if isinstance(error, self._httpx.HTTPError) else error.__cause__ or error
                if isinstance(cause, HttpAnswer):  # openai before 3 wraps whatever comes out of a hook
                    verdict = answers.judge(cause, self.url, self.role)
                elif not last and self._was_stale(cause):
                    continue
                else:
                    verdict = self._broken(error, cause)
            break
        if isinstance(verdict, Fault):
            return verdict
        verdict.args = (self.redaction.of(str(verdict)),)
        raise verdict

    async def _send(
        self, method: str, path: str, content: bytes | None, key: str | None, read: Callable[[bytes], T]
    ) -> T | Fault:
        """What a 2xx answer holds."""
        headers = self._headers if key is None else self._headers | {"Idempotency-Key": key}
        url = self.url + path
        if content is None:
            response = await self._client.get(url, cast_to=object, options={"headers": headers})
        else:
            response = await self._client.post(url, cast_to=object, content=content, options={"headers": headers})
        raw: Any = response
        body = b""
        try:
            body = await read_body(raw.http_response, MAX_ANSWER_BYTES)
            return read(body)
        except ValueError as why:
            return answers.malformed(body, raw.headers.get("content-type", ""), why, self.url)
        finally:
            await raw.close()

    def _connect(self, concurrency: int) -> AsyncOpenAI:
        """The official client, with its retries, redirects and environment variables switched off."""
        self._openai = importlib.import_module("openai")
        # openai 3 stands on httpx2, earlier ones on httpx; the two have the same names
        stands_on = next(c for c in self._openai.DefaultAsyncHttpxClient.__mro__ if c.__name__ == "AsyncClient")
        self._httpx = importlib.import_module(stands_on.__module__.partition(".")[0])
        httpx, anonymous, omit = self._httpx, self._key is None, self._openai.Omit()
        self._headers = {
            "X-Stainless-Raw-Response": "stream",  # openai's own switch: hand the response over unread
            "X-Stainless-Retry-Count": omit,
            "X-Stainless-Read-Timeout": omit,
        }

        def ours(name: bytes) -> bool:
            return name in _KEPT_HEADERS and not (anonymous and name == b"authorization")

        # of a server on this machine the environment is not asked, but for SSL_CERT_FILE, which OpenSSL reads
        own_tls = is_loopback(self.url) and self.url.lower().startswith("https:")
        connect_timeout = min(CONNECT_TIMEOUT, self._request_timeout)
        transport = self._transport(connect_timeout)

        async def only_ours(request: Any) -> None:
            if transport is None:
                request.extensions["trace"] = _Steps()
            sent = [(name.lower(), value) for name, value in request.headers.raw]
            kept = [header for header in sent if ours(header[0])]
            if len(kept) < len(sent):
                request.headers = httpx.Headers(kept)

        async def refuse(response: Any) -> None:
            for name, value in response.headers.raw:
                if (name := name.lower()).startswith(_RATE_LIMIT):
                    said = self.redaction.of(answers.one_line(value.decode("latin1")))
                    self.rate_limits[name.decode("latin1")] = said
            if not 200 <= response.status_code < 300:
                try:
                    body = await read_body(response, MAX_ERROR_BYTES)
                except ValueError:
                    body = b""  # the status says enough
                raise HttpAnswer(response.status_code, dict(response.headers), body)

        timeout = self._openai.Timeout(self._request_timeout, connect=connect_timeout)
        http_client = self._openai.DefaultAsyncHttpxClient(
            timeout=timeout,
            follow_redirects=False,
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=concurrency, keepalive_expiry=KEEP_CONNECTIONS
            ),
            verify=ssl.create_default_context() if own_tls else True,
            trust_env=not is_loopback(self.url),  # a proxy for the world is no proxy for this machine
            event_hooks={"request": [only_ours], "response": [refuse]},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # we send none, so we keep none
            transport=transport,
        )
        client: AsyncOpenAI = self._openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self._key or "none",
            organization="",
            project="",
            max_retries=0,
            timeout=timeout,
            default_headers=dict.fromkeys(_UNWANTED_HEADERS, omit),
            http_client=http_client,
        )
        return client

    def _transport(self, connect_timeout: float) -> Wire | None:
        """Ours where it will do; None for the stock one, which knows TLS and the proxies of the environment."""
        if not self.url.lower().startswith("http://") or (not is_loopback(self.url) and getproxies()):
            return None
        return Wire(self._httpx, connect_timeout=connect_timeout, keep=KEEP_CONNECTIONS, most=MAX_ANSWER_BYTES)

    def _was_stale(self, cause: BaseException) -> bool:
        """Whether a kept connection broke before anything of an answer came: the server had closed it as we asked.

        That is nobody's fault, and the question goes again at once. `Wire` sees to this itself.
        """
        request = getattr(cause, "_request", None)
        steps = None if request is None else request.extensions.get("trace")
        return isinstance(steps, _Steps) and not steps.connected and not steps.answered

    def _broken(self, error: BaseException, cause: BaseException) -> Fault:
        advice = f"is the server running, and is {self.role.endpoint} right?"
        if isinstance(cause, self._httpx.ConnectTimeout):
            within = min(CONNECT_TIMEOUT, self._request_timeout)
            return Fault(f"took no connection within {within:g} s", advice)
        if isinstance(error, self._openai.APITimeoutError) or isinstance(cause, self._httpx.TimeoutException):
            return silent(self._request_timeout)
        why = self.redaction.of(_root(cause))
        if isinstance(cause, self._httpx.ConnectError) and (tls := _tls_advice(why, self.role)):
            return Fault(f"can't be reached ({why})", tls)
        if isinstance(cause, self._httpx.ConnectError):
            return Fault(f"can't be reached ({why})", advice, refused=True)
        log = "look at the server's log, and try again when it works"
        if isinstance(cause, self._httpx.RemoteProtocolError):
            if re.search("closed|disconnected", why, re.IGNORECASE):
                return Fault("closed the connection before its answer was complete", log)
            advice = f"is {self.role.endpoint} right? if the server speaks TLS, it begins with https://"
            return Fault(f"answered with what is not HTTP ({why})", advice)
        return Fault(f"broke the connection ({why})", log)


class _Steps:
    """How far a request got in the stock transport: its `trace` extension."""

    def __init__(self) -> None:
        self.connected = False
        """Whether a connection was opened for it."""
        self.answered = False

    async def __call__(self, step: str, about: object) -> None:
        self.connected |= step == "connection.connect_tcp.started"
        self.answered |= step.endswith("receive_response_headers.complete")


def silent(seconds: float) -> Fault:
    """The fault of giving no answer in time."""
    return Fault(f"gave no answer within {seconds:g} s", "raise --request-timeout or lower --concurrency", silent=True)


_HOST = re.compile(r"[A-Za-z0-9._:%-]*")


def _checked_url(url: str, role: Role) -> str:
    shown = role.endpoint if "@" in url or "?" in url else repr(url)  # what may hold a key is not repeated
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
        if not _HOST.fullmatch((host or "").encode("idna").decode()):
            raise ValueError
    except ValueError:
        raise UsageError(f"{shown} is no URL: give one such as http://127.0.0.1:8000/v1") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"{shown} is no URL of an endpoint: give one such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"{role.endpoint} holds a user name or password: take it out and set {role.key} instead")
    if parts.query or parts.fragment:
        raise UsageError(f"{role.endpoint} has a query (?…) or a fragment (#…): give the base URL only")
    return url.strip().rstrip("/")


def _checked_key(key: str | None, role: Role) -> str | None:
    if not key or not key.strip():
        return None
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"the API key has characters that no key has: set {role.key} again")
    return key


def _tls_advice(why: str, role: Role) -> str:
    """What to do about a connection that was there, but not with the TLS that we wanted; "" for any other."""
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return "if it is your own server, set SSL_CERT_FILE to a file with the certificate that signed its own"
    if "[SSL" in why:
        return f"does it speak TLS? if not, give {role.endpoint} with http://"
    return ""


def _root(error: BaseException) -> str:
    """What the operating system said, where it said something: "Connection refused" rather than "attempts failed"."""
    deepest: BaseException | None = error
    while deepest is not None:
        if isinstance(deepest, OSError) and deepest.strerror:
            return deepest.strerror
        if isinstance(deepest, BaseExceptionGroup):
            deepest = deepest.exceptions[0]
        else:
            deepest = deepest.__cause__ or deepest.__context__
    return answers.one_line(str(error)) or type(error).__name__
