"""What an endpoint's answer means: a value, a fault worth another try, or an error for good.

Pure functions over status, headers and bytes; `serving.client` does the sending. A reader (`read_chat`,
`read_embedding`, `read_models`) raises ValueError, in words for a user, where the bytes are not what the API promises.
What a rejection says of an endpoint's limits and parameters is read by `serving.rejections`.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard
from urllib.parse import urlsplit

import numpy as np

from serving.rejections import rejection
from serving.roles import CHAT, Role
from storage.errors import EndpointError, EndpointMisbehaves, EndpointRefused, EndpointUnreachable, ModelUnknown

_VISIBLE_ASCII = "".join(map(chr, range(0x21, 0x7F)))

RETRIED_STATUS = {408, 409, 425, 429}
"""And every 5xx."""
TURNED_AWAY = {429, 503}
"""What an endpoint answers that has too much to do; of other faults it may be that they are one call's alone."""


LONGEST_NAME = 500
"""Characters; what is longer, or can't be printed, names no model."""
MOST_NUMBERS = 65_536
"""In an embedding; the widest that are known have a quarter of it."""
_MOST_TOKENS = 2**31 - 1
"""A database's integer; an endpoint that claims more has not counted."""
_NO_NUMBERS = "an embedding that is not a list of numbers"
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Fault:
    """A transport fault: what was seen, what to do if it stays, and what it says about when to ask again.

    `retry_after` is in seconds. `refused` means that nobody listens there at all, `turned_away` that the endpoint has
    too much to do, `silent` that no answer came in time. `status` is that of the answer, if there was one.
    """

    seen: str
    advice: str
    kind: type[EndpointError] = EndpointUnreachable
    retry_after: float | None = None
    refused: bool = False
    turned_away: bool = False
    silent: bool = False
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """The model's words in a chat answer, and what it counted."""

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A model in the list of an endpoint.

    `owner` is who the server says owns it: vLLM says "vllm", ours "partita". `longest` is how many tokens a question
    and its reply may have together, where the server tells.
    """

    name: str
    owner: str = ""
    longest: int | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vector in an embeddings answer: shape (d,), float32."""

    values: np.ndarray[tuple[int], np.dtype[np.float32]]
    model: str
    prompt_tokens: int


class NoSuchPath(EndpointMisbehaves):
    """404 or 405 for a path of the API, which an endpoint may lack."""


class Unfit(ValueError):
    """A reader's: the bytes are what the API promises, but no use. `advice` is for the user."""

    def __init__(self, why: str, advice: str) -> None:
        super().__init__(why)
        self.advice = advice


class HttpAnswer(Exception):
    """An answer other than 2xx, on its way out of the HTTP library; never reaches a user."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers
        self.body = body


def read_chat(body: bytes) -> Said:
    """The text of the first choice; "" where the model gave none."""
    answer = _object(body)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError(_odd(answer, "an answer without choices"))
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    if not isinstance(message, dict):
        raise ValueError("a choice without a message")
    return Said(
        text=_clean(_text(message.get("content"))),
        model=_name(answer),
        prompt_tokens=_count(answer, "prompt_tokens"),
        completion_tokens=_count(answer, "completion_tokens"),
        cached_tokens=_cached(answer),
    )


def read_embedding(body: bytes) -> Embedded:
    """The one vector of the answer, finite and not empty."""
    answer = _object(body)
    data = answer.get("data")
    if not isinstance(data, list) or not data or not isinstance(data[0], dict):
        raise ValueError(_odd(answer, "an answer without data"))
    return Embedded(_vector(data[0].get("embedding")), _name(answer), _count(answer, "prompt_tokens"))


def read_models(body: bytes) -> list[Listed]:
    """The models in the answer of GET /models, in its order."""
    answer = _object(body)
    data = answer.get("data")
    if not isinstance(data, list):
        raise ValueError(_odd(answer, "a list of models without data"))
    return [_listed(entry) for entry in data if isinstance(entry, dict) and _is_name(entry.get("id"))]


def read_constants(body: bytes, model: str) -> dict[str, float]:
    """β and τ of a model from GET /models, where its server tells them (ours does, under "partita"); else nothing."""
    data = _object(body).get("data")
    for entry in data if isinstance(data, list) else []:
        if isinstance(entry, dict) and entry.get("id") == model and isinstance(entry.get("partita"), dict):
            told = entry["partita"]
            return {
                k: float(told[k]) for k, most in (("beta", 1e6), ("threshold", 1)) if _is_between(told.get(k), most)
            }
    return {}


def judge(answer: HttpAnswer, url: str, role: Role = CHAT) -> Fault | EndpointError:
    """What to make of a status other than 2xx."""
    status, said = answer.status, server_message(answer.body)
    seen = f"{status} ({said})" if said else str(status)
    if status == 429 and b"insufficient_quota" in answer.body:
        return EndpointRefused(f"{url} answered {seen}: the account's quota is spent, top it up or use another key")
    if status in RETRIED_STATUS or status >= 500:
        crowded = "lower --concurrency or wait a while"
        advice = crowded if status == 429 else "look at the server's log, and try again when it works"
        later = retry_after(answer.headers.get("retry-after"))
        return Fault(f"answered {seen}", advice, retry_after=later, turned_away=status in TURNED_AWAY, status=status)
    if status in (401, 403):
        return EndpointRefused(f"{url} answered {seen}: set {role.key} to a key that is valid there")
    if 300 <= status < 400:
        return EndpointMisbehaves(
            f"{url} answered {status}, a redirect{_elsewhere(answer.headers.get('location'))}: "
            f"redirects are not followed, give the final address as {role.endpoint}"
        )
    if status in (404, 405, 410):
        if "model" in said.lower():
            return ModelUnknown(f"{url} answered {seen}: give a model that is there as {role.model}")
        return NoSuchPath(f"{url} answered {seen}: {base_url_advice(url)}")
    if status == 402:
        return EndpointRefused(f"{url} answered {seen}: the account has to be paid for, or use another key")
    return rejection(status, answer.body, f"{url} rejected the question with {seen}")


def malformed(body: bytes, content_type: str, why: ValueError, url: str) -> Fault:
    """The fault for a 2xx answer that a reader could not read."""
    if "html" in content_type.lower() or body.lstrip()[:1] == b"<":
        return Fault("answered HTML instead of JSON", base_url_advice(url), EndpointMisbehaves)
    advice = why.advice if isinstance(why, Unfit) else base_url_advice(url)
    return Fault(f"answered with {why}", advice, EndpointMisbehaves)


def base_url_advice(url: str) -> str:
    """What to check when an address does not speak the API."""
    return f"is {url} really the base URL of an OpenAI-compatible API? it usually ends in /v1"


def server_message(body: bytes) -> str:
    """The server's own words about an error, on one short line; "" where there are none fit to show."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        plain = body.decode("utf-8", "replace")
        return "" if plain.lstrip().startswith("<") else one_line(plain)
    return _message_in(answer) if isinstance(answer, dict) else ""


def _message_in(answer: dict[str, Any]) -> str:
    error = answer.get("error")
    first = error.get("message") if isinstance(error, dict) else error
    for words in (first, answer.get("message"), answer.get("detail")):
        if isinstance(words, str) and words.strip():
            return one_line(words)
    return ""


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait by a `Retry-After` header, given in seconds or as an HTTP date; None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        seconds = (until - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _listed(entry: dict[str, Any]) -> Listed:
    owner, longest = entry.get("owned_by"), entry.get("max_model_len")
    return Listed(
        name=_clean(entry["id"]),
        owner=owner if isinstance(owner, str) else "",
        longest=longest if isinstance(longest, int) and longest > 0 else None,
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("broken JSON" if body.strip() else "an empty body") from None
    if not isinstance(answer, dict):
        raise ValueError("JSON that is not an object")
    return answer


def _odd(answer: dict[str, Any], what: str) -> str:
    said = _message_in(answer)
    return f"{what} ({said})" if said else what


def _text(content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # some servers answer in content parts
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    raise ValueError("a message whose content is no text")


def _clean(text: str) -> str:
    """Text that any database takes: no lone surrogates, no NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _name(answer: dict[str, Any]) -> str:
    model = answer.get("model")
    return model if _is_name(model) else ""


def _is_name(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()


def _count(answer: dict[str, Any], name: str) -> int:
    usage = answer.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return int(count) if _is_between(count, _MOST_TOKENS) else 0


def _is_between(number: object, most: float) -> TypeGuard[int | float]:
    """Whether it is a number above 0 and at most `most`; NaN is not."""
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 < number <= most


def _vector(embedding: object) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    if isinstance(embedding, str):  # OpenAI's other encoding; some servers use it whatever is asked
        try:
            values = np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
        except ValueError:
            raise ValueError("an embedding that is neither a list of numbers nor base64 of them") from None
    else:
        try:
            numbers = np.asarray(embedding)
        except (TypeError, ValueError):  # rows of different lengths
            raise ValueError(_NO_NUMBERS) from None
        if numbers.ndim == 2 and len(numbers) == 1:  # some servers put it into a list of its own
            numbers = numbers[0]
        elif numbers.ndim == 2:
            raise Unfit("an embedding of each token instead of one of all", "switch the server's pooling on")
        if numbers.dtype.kind not in "iuf" or numbers.ndim != 1:
            raise ValueError(_NO_NUMBERS)
        finite = np.isfinite(numbers) & (np.abs(numbers.astype(np.float64)) <= _FLOAT32_MAX)
        values = np.where(finite, numbers, np.nan).astype(np.float32)
    if not values.size:
        raise ValueError(_NO_NUMBERS)
    if values.size > MOST_NUMBERS:
        raise Unfit(
            f"an embedding of {values.size:,} numbers", f"at most {MOST_NUMBERS:,} are taken: use another model"
        )
    if not np.isfinite(values).all():
        raise ValueError("an embedding with NaN or infinity in it")
    return values


def _cached(answer: dict[str, Any]) -> int:
    """Prompt tokens that came from the endpoint's cache; never more than there are."""
    usage = answer.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    return min(_count({"usage": details}, "cached_tokens"), _count(answer, "prompt_tokens"))


def _elsewhere(location: str | None) -> str:
    try:
        to = urlsplit(location or "")
        host = f"{to.hostname or ''}:{to.port}" if to.port else to.hostname or ""
    except ValueError:
        return ""
    return f" to {one_line(f'{to.scheme}://{host}{to.path}')}" if host else ""


def one_line(words: str) -> str:
    """At most 200 characters, never cut within a run of ASCII characters.

    Such a run may be the API key, which the client takes out of our messages later and knows only as a whole.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    if len(line) <= 200:
        return line
    kept = line[:199]
    return (kept.rstrip(_VISIBLE_ASCII) if line[199] in _VISIBLE_ASCII else kept).rstrip() + "…"
