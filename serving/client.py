"""The client of any OpenAI-compatible endpoint: CONTRACT 4 and 5.

One `Endpoint` asks questions of one base URL, up to `concurrency` at a time:

    async with Endpoint("http://127.0.0.1:8000/v1", model=None, api_key=None) as endpoint:
        reply = await endpoint.chat(messages, key=question_hash, max_tokens=512, temperature=0.2, seed=0)

A *transport fault* (no connection, no answer in time, 408/409/425/429/5xx, an answer that is not the promised JSON) is
retried with the same `Idempotency-Key`; `max_attempts` of them in a row on one question raise (`serving.retries`). An
endpoint that has too much to do is asked less at a time (`serving.limit`). What the reply *says* is no business of this
module: a reply without a conclusion is a reply.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np

from serving import answers, bodies
from serving.abilities import Abilities
from serving.answers import Fault, Listed, NoSuchPath
from serving.dialect import Dialect
from serving.forms import Asking, TextForm
from serving.limit import Gate
from serving.retries import Retries, Tries
from serving.roles import CHAT, Role
from serving.sender import Sender, silent
from storage.errors import ModelUnknown, NoEmbeddings, RequestRejected

T = TypeVar("T")

FAILED = 500
"""HTTP status of a server that failed on this question, whatever the reason."""
MODELS_TIMEOUT = 20.0

LONGEST_TOKEN = 64
"""Characters. A reply of more than this for each token that was asked for is cut: its server counts none."""
CUT = " [the rest of this reply was left out: it is far longer than was asked for]"
COMPARED = 1000
"""Of the names that an endpoint lists, so many are looked at for one like the user's."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answered chat request.

    `text` is "" where the model gave none (a refusal, a tool call). Token counts are 0 where the endpoint does not
    count; `cached_tokens` are those of the prompt that it had in its cache. `seconds` is the duration of the try that
    was answered, `attempts` is 1 + transport retries.
    """

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    attempts: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Vector:
    """An answered embedding request: `values` has shape (d,), float32, finite, as it came (not normalised)."""

    values: np.ndarray[tuple[int], np.dtype[np.float32]]
    model: str
    prompt_tokens: int
    seconds: float
    attempts: int


@dataclass(frozen=True, slots=True)
class _Answered(Generic[T]):
    value: T
    seconds: float
    attempts: int


class Endpoint:
    """One base URL, one model, at most `concurrency` requests in flight, fewer while the endpoint can't take so many.

    A call that waits to be asked again leaves its place to others, and goes before new ones when it comes back.

    Args:
        url: base URL, usually ending in /v1; http or https, no credentials or query in it.
        model: name of the model; None takes the first that the endpoint lists.
        api_key: sent as a bearer token; it appears in no message, repr or log record.
        request_timeout: seconds for one try, from sending to the last byte.
        concurrency: requests in flight.
        max_attempts: transport faults in a row on one question before it is given up. To be turned away while the
            endpoint answers others is not one of them: that is our own crowding.
        on_retry: told in one line about each fault that is retried; of calls that are turned away, only when the
            endpoint is asked less for it.
        role: how the user names this endpoint, its model and its key, for advice.

    Raises:
        UsageError: a URL or a key that can't be one.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None,
        api_key: str | None,
        request_timeout: float = 120,
        concurrency: int = 32,
        max_attempts: int = 6,
        on_retry: Callable[[str], None] | None = None,
        role: Role = CHAT,
    ) -> None:
        self._sender = Sender(url, api_key, request_timeout=request_timeout, concurrency=concurrency, role=role)
        self._redaction = self._sender.redaction
        self.url = self._sender.url
        self._model = model
        self._resolved = False
        self.listed: list[Listed] = []
        """The models as the endpoint listed them last."""
        self.abilities = Abilities()
        """What is known of it, and how it is asked for that; `serving.abilities.look` finds it out."""
        self.dialect = Dialect()
        self._request_timeout = request_timeout
        self._on_retry = on_retry
        self._gate = Gate(concurrency)
        self._retries = Retries(self._gate.limit, self.url, max_attempts, self._redaction, on_retry)
        self._form = TextForm()
        self._resolving = asyncio.Lock()
        self._widths: dict[str, int] = {}
        """Numbers in an embedding, by what is embedded: vectors of different widths can't be compared."""

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, model={self._model!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        self._gate.close()
        await self._sender.aclose()

    @property
    def in_flight(self) -> int:
        """Calls that the endpoint is working on."""
        return self._gate.limit.in_flight

    @property
    def limit(self) -> int:
        """How many calls may be in flight just now: `concurrency`, or less while the endpoint can't take so many."""
        return self._gate.limit.allowed

    @property
    def rate_limits(self) -> dict[str, str]:
        """What the endpoint's last answers said of its rate limits, by header (`x-ratelimit-…`, `retry-after`)."""
        return self._sender.rate_limits

    async def resolve_model(self) -> str:
        """The model's name, checked once against GET /models; without a name of ours, the first listed.

        An endpoint that has no list (404, 405, or an empty one) is taken at our word.

        Raises:
            ModelUnknown: the named model is not listed, or none is named and none is listed.
            EndpointError: the endpoint can't be used.
        """
        async with self._resolving:
            if not self._resolved:
                self._model = await self._find_model()
                self._resolved = True
            assert self._model is not None
            return self._model

    async def list_models(self) -> list[str] | None:
        """Names that GET /models gives, in its order; None where the endpoint has no such list."""
        patience = min(self._request_timeout, MODELS_TIMEOUT)
        try:
            listed = (await self._ask("GET", "/models", None, None, answers.read_models, patience)).value
            self.listed = [replace(model, name=self._redaction.of_reply(model.name)) for model in listed]
        except (NoSuchPath, ModelUnknown):
            return None
        return [model.name for model in self.listed]

    async def model_constants(self) -> dict[str, float]:
        """The model's own `beta` and `threshold` (METHOD 3), where its server tells them; otherwise empty."""
        model = await self.resolve_model()
        patience = min(self._request_timeout, MODELS_TIMEOUT)
        try:
            return (
                await self._ask("GET", "/models", None, None, lambda b: answers.read_constants(b, model), patience)
            ).value
        except (NoSuchPath, ModelUnknown):
            return {}

    async def chat(
        self,
        messages: list[dict[str, Any]],
        *,
        key: str,
        max_tokens: int,
        temperature: float,
        seed: int | None,
        pattern: str | None = None,
    ) -> Reply:
        """Ask one question (CONTRACT 4).

        Args:
            pattern: regular expression of the whole reply; asked for where the endpoint can be held to one.

        Raises:
            EndpointUnreachable, EndpointMisbehaves: `max_attempts` transport faults in a row.
            EndpointRefused: 401 or 403. ModelUnknown: no such model.
            LimitTooLow: more images than the endpoint takes in one question.
            RequestRejected: the endpoint can't take this question (400, 413, 422).
        """
        body = {
            "model": await self._model_name(),
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        if seed is not None:
            body["seed"] = seed
        if pattern is not None and self.abilities.constrains:
            body["structured_outputs"] = {"regex": pattern}
        answered = await self._ask_in_dialect(body, key)
        said = answered.value
        return Reply(
            text=_cut(self._redaction.of_reply(said.text), max_tokens),
            model=self._redaction.of_reply(said.model) or str(body["model"]),
            prompt_tokens=said.prompt_tokens,
            completion_tokens=said.completion_tokens,
            seconds=answered.seconds,
            attempts=answered.attempts,
            cached_tokens=said.cached_tokens,
        )

    async def embed_text(self, text: str, *, key: str) -> Vector:
        """Embed a text; raises what `chat` raises (CONTRACT 5, `caption`)."""
        return await self._embed({"model": await self._model_name(), "input": text}, key)

    async def embed_messages(self, messages: list[dict[str, Any]], *, key: str) -> Vector:
        """Embed a conversation in the chat form (CONTRACT 5, `native`); raises what `chat` raises."""
        body = {
            "model": await self._model_name(),
            "messages": messages,
            "continue_final_message": True,
            "add_generation_prompt": False,
        }
        return await self._embed(body, key)

    async def _ask_in_dialect(self, body: dict[str, Any], key: str) -> _Answered[answers.Said]:
        while True:
            sent = self.dialect.put(body)
            try:
                return await self._ask("POST", "/chat/completions", sent, key, answers.read_chat, self._request_timeout)
            except RequestRejected as rejected:
                known = self.dialect.refused
                if not self.dialect.learn(rejected.parameter, sent):
                    raise
                news = self.dialect.refused != known and rejected.parameter != "max_tokens"  # which has another name
                if self._on_retry is not None and news:
                    self._on_retry(f"{self.url} takes no {rejected.parameter}: from now on it is asked without")

    async def _embed(self, body: dict[str, Any], key: str) -> Vector:
        form = "input" if "input" in body else "messages"

        def read(answer: bytes) -> answers.Embedded:
            got = answers.read_embedding(answer)
            if (width := self._widths.setdefault(form, got.values.size)) != got.values.size:
                why = f"an embedding of {got.values.size} numbers, after one of {width}"
                advice = "name an --embed-model whose embeddings are all of one length"
                raise answers.Unfit(why, advice)
            return got

        try:
            answered = await self._ask("POST", "/embeddings", body, key, read, self._request_timeout)
        except NoSuchPath:
            raise NoEmbeddings(
                f"{self.url} has no embeddings: name another --embed-endpoint, or --embed-endpoint local for a "
                "sentence embedder on this machine"
            ) from None
        got = answered.value
        model = self._redaction.of_reply(got.model) or body["model"]
        return Vector(got.values, model, got.prompt_tokens, answered.seconds, answered.attempts)

    async def _model_name(self) -> str:
        return self._model if self._model is not None else await self.resolve_model()

    async def _find_model(self) -> str:
        names = await self.list_models()
        if self._model is None:
            if not names:
                role = self._sender.role
                check = f"check {role.endpoint}" if names is not None else answers.base_url_advice(self.url)
                raise ModelUnknown(f"{self.url} lists no models: {check}; or name a model with {role.model}")
            return names[0]
        if names and self._model not in names:
            close = get_close_matches(self._model, names[:COMPARED], n=3, cutoff=0.4)
            shown = [*close, *(name for name in names[:COMPARED] if name not in close)][:8]
            more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
            raise ModelUnknown(
                f"{self.url} has no model {self._model!r}: "
                f"give one of {', '.join(shown)}{more} as {self._sender.role.model}"
            )
        return self._model

    async def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        key: str | None,
        read: Callable[[bytes], T],
        patience: float,
    ) -> _Answered[T]:
        """One question with its retries; `patience` is in seconds, for one try."""
        content = None if body is None else bodies.encode(body, identities=self.abilities.identifies)
        retries = self._retries
        tries, given_up = Tries(others=self._gate.limit.answered), retries.given_up
        asking = Asking(self._form, body)
        while True:
            ticket = await self._gate.enter(again=tries.made > 0)
            try:
                if tries.made or retries.given_up is not given_up:
                    retries.check()
                tries.made += 1
                as_one = asking.joined
                joined = as_one is not None
                sent = content if as_one is None else bodies.encode(as_one)
                started = time.perf_counter()
                try:
                    async with asyncio.timeout(patience):
                        outcome = await self._sender.once(method, path, sent, key, read)
                except TimeoutError:
                    outcome = silent(patience)
                except RequestRejected as rejected:
                    if asking.rejected(rejected, joined=joined):
                        continue
                    raise asking.first or rejected from None
                if not isinstance(outcome, Fault):
                    retries.answered(ticket)
                    asking.answered(joined=joined)
                    return _Answered(outcome, time.perf_counter() - started, tries.made)
                if outcome.status == FAILED:
                    asking.failed(joined=joined)
                pause = retries.after(outcome, ticket, tries)
            finally:
                self._gate.leave()
            await retries.rest(pause)


def _cut(text: str, max_tokens: int) -> str:
    """The text, or the beginning of one that is no answer; what ends it keeps a conclusion from being read there."""
    most = LONGEST_TOKEN * max(max_tokens, 1024)
    return text if len(text) <= most else text[:most] + CUT
