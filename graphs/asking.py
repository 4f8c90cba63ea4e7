"""Asking the model: every call of a session goes through an ``Asker``.

It answers from the ledger what was answered before, keeps at most ``concurrency`` calls in flight, commits each answer
before handing it out (CONTRACT 6), and refuses new calls once the session is to stop.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from agents.conclusions import Conclusion, read_conclusions
from agents.questions import ContentPart, Question, Sampling
from graphs.budget import Budget
from graphs.progress import Progress
from serving.client import Reply, Vector
from storage.errors import EndpointMisbehaves, LimitTooLow, QuestionTooLong, RequestRejected
from storage.ledger import Answer

HOPELESS = 8
"""So many items that can't be described or embedded, and none that can, and the endpoint is no use."""
NEVER_CONCLUDING = 24
"""So many replies without a conclusion, and none with one, and the model is no use as an agent."""


class Chat(Protocol):
    """The part of an endpoint that agents ask."""

    async def chat(
        self,
        messages: list[dict[str, Any]],
        *,
        key: str,
        max_tokens: int,
        temperature: float,
        seed: int | None,
        pattern: str | None = None,
    ) -> Reply: ...


class Embedder(Protocol):
    """The part of an endpoint that embeddings come from."""

    async def embed_text(self, text: str, *, key: str) -> Vector: ...

    async def embed_messages(self, messages: list[dict[str, Any]], *, key: str) -> Vector: ...


class Book(Protocol):
    """The ledger, as far as asking needs it."""

    async def record(self, answer: Answer, prompt_text: str | None = None) -> None: ...


class Gallery(Protocol):
    """Gives the content part of an item by its content hash."""

    async def part(self, content_hash: str) -> ContentPart: ...


class Asker:
    """Asks questions for one session."""

    def __init__(
        self,
        *,
        chat: Chat,
        embedder: Embedder,
        ledger: Book,
        answers: dict[str, Answer],
        sampling: Sampling,
        gallery: Gallery,
        concurrency: int,
        budget: Budget | None = None,
        progress: Progress | None = None,
    ) -> None:
        """``answers`` is what the ledger holds already, by key; it is kept up to date."""
        self._chat = chat
        self._embedder = embedder
        self._ledger = ledger
        self.answers = answers
        self.sampling = sampling
        self._gallery = gallery
        self._free = asyncio.Semaphore(concurrency)
        self.concurrency = concurrency
        self._budget = budget or Budget()
        for answer in answers.values():
            self._budget.count(answer)
        self._waiting: dict[str, asyncio.Task[Answer]] = {}
        self._concluded = any(_concludes(a) for a in answers.values())
        self._inconclusive = 0
        self._described = any(a.kind == "describe" and a.reply for a in answers.values())
        self._withheld: list[tuple[Answer, str]] = []
        self._stop: BaseException | None = None
        self.progress = progress or Progress()
        self.progress.cost, self.progress.earlier = self._budget.cost, self._budget.calls

    def stop(self, why: BaseException) -> None:
        """Make no new calls; those in flight are finished and recorded. The first reason given stays."""
        self._stop = self._stop or why

    async def ask(
        self, question: Question, *, component: int | None, step: int | None, subject: dict[str, Any]
    ) -> Answer:
        """The answer to a question, from the ledger or from the model.

        A question that the endpoint rejects has an empty reply, UNKNOWN, with the endpoint's words as reason.

        Raises:
            Paused: the session is to stop, or its budget of calls is used up.
            LimitTooLow: the endpoint takes fewer images in a question, or less of them.
            EndpointError: the endpoint can't be used.
        """
        key = question.key(self.sampling)

        async def call() -> Answer:
            async with self._budget.reserved(question.kind, subject) as spend:
                self._check_stop()
                parts = {h: await self._gallery.part(h) for h in dict.fromkeys(h for _, h in question.items)}
                try:
                    s = self.sampling
                    reply = await self._chat.chat(
                        question.messages(parts.__getitem__),
                        key=key, max_tokens=s.max_tokens, temperature=s.temperature, seed=s.seed,
                        pattern=question.pattern if s.constrain else None,
                    )  # fmt: skip
                except RequestRejected as e:
                    _blame_settings(e, question.items, parts)
                    # One question that the endpoint won't take (a picture it can't read, say) is no reason to stop.
                    reply, rejected = Reply("", s.model, 0, 0, 0.0, 1), str(e)
                else:
                    rejected = ""
                conclusion, reason = self._concluded_in(question, reply.text)
                reason = rejected or reason
                answer = Answer(
                    key=key, kind=question.kind, component=component, step=step, attempt=question.attempt,
                    subject=subject, prompt_hash=question.prompt_hash, reply=reply.text, conclusion=conclusion,
                    reason=reason, model=reply.model, prompt_tokens=reply.prompt_tokens,
                    completion_tokens=reply.completion_tokens, seconds=reply.seconds, attempts=reply.attempts,
                    origin="model", at=datetime.now(UTC), cached_tokens=reply.cached_tokens, vector=None,
                )  # fmt: skip
                spend(answer)
            self.progress.calls += 1
            self.progress.unknown += (conclusion or "").startswith(Conclusion.UNKNOWN)
            await self._keep(answer, question.instruction, rejected=bool(rejected))
            self._notice(answer)
            return answer

        return await self._once(key, call)

    async def embed(
        self, question: Question, description: str, *, mode: str, model: str, node: int
    ) -> npt.NDArray[np.float32]:
        """The embedding of a described item (CONTRACT 5), (d,) float32, from the ledger or from the endpoint."""
        what = ["partita/1", "embed", mode, model, description, question.key(self.sampling) if mode == "native" else ""]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()

        async def call() -> Answer:
            async with self._budget.reserved("embed", {"item": node}) as spend:
                self._check_stop()
                if mode == "native":
                    parts = {h: await self._gallery.part(h) for _, h in question.items}
                    said = {"role": "assistant", "content": f"{description.strip()} <embedding>"}
                    vector = await self._embedder.embed_messages([*question.messages(parts.__getitem__), said], key=key)
                else:
                    vector = await self._embedder.embed_text(description, key=key)
                answer = Answer(
                    key=key, kind="embed", component=None, step=None, attempt=0, subject={"item": node},
                    prompt_hash=question.prompt_hash, reply="", conclusion=None, reason="", model=vector.model,
                    prompt_tokens=vector.prompt_tokens, completion_tokens=0, seconds=vector.seconds,
                    attempts=vector.attempts, origin="model", at=datetime.now(UTC), vector=vector.values,
                )  # fmt: skip
                spend(answer)
            await self._ledger.record(answer)
            return answer

        answer = await self._once(key, call)
        assert answer.vector is not None
        return answer.vector

    def forget_vectors(self) -> None:
        """Let go of the embeddings: they are in the ledger, and the graph is made."""
        for key in [key for key, answer in self.answers.items() if answer.kind == "embed"]:
            del self.answers[key]

    async def each(self, work: Iterable[Callable[[], Awaitable[None]]]) -> None:
        """Do all the work, some of it side by side; when one part fails the others stop at their next call.

        At most twice ``concurrency`` parts are begun at a time, so that memory does not grow with the collection.
        """
        todo = iter(work)

        async def worker() -> None:
            for part in todo:
                if self._stop is not None:
                    return
                try:
                    await part()
                except asyncio.CancelledError:
                    raise
                except Exception as e:  # noqa: BLE001 - kept as the reason to stop and raised below
                    self.stop(e)

        async with asyncio.TaskGroup() as workers:
            for _ in range(2 * self.concurrency):
                workers.create_task(worker())
        if self._stop is not None:
            raise self._stop

    async def _keep(self, answer: Answer, instruction: str, *, rejected: bool) -> None:
        """Commit an answer.

        An endpoint that can describe nothing is no use, and what it rejects may well be described by another one: its
        rejections are kept once an item has been described, and otherwise forgotten with the process.
        """
        if answer.kind == "describe" and not self._described:
            if rejected:
                self._withheld.append((answer, instruction))
                return
            self._described = True
            withheld, self._withheld = self._withheld, []
            for other, said in withheld:
                await self._ledger.record(other, said)
        await self._ledger.record(answer, instruction)

    def _check_stop(self) -> None:
        if self._stop is not None:
            raise self._stop

    async def _once(self, key: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        if (known := self.answers.get(key)) is not None:
            return known
        if (task := self._waiting.get(key)) is None:
            task = asyncio.create_task(self._limited(key, call))
            self._waiting[key] = task
        return await task

    async def _limited(self, key: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            async with self._free:
                self._check_stop()
                answer = await call()
            self.progress.retries += answer.attempts - 1
            self.progress.cost = self._budget.cost
            self.answers[key] = answer
            return answer
        finally:
            del self._waiting[key]

    @staticmethod
    def _concluded_in(question: Question, text: str) -> tuple[str | None, str]:
        if not question.conclusions:
            return None, ""
        verdict = read_conclusions(text, question.conclusions)
        return " ".join(verdict.conclusions), verdict.reason

    def _notice(self, answer: Answer) -> None:
        if _concludes(answer):
            self._concluded = True
        elif answer.conclusion is not None and not self._concluded:
            self._inconclusive += 1
            if self._inconclusive < NEVER_CONCLUDING:
                return
            if not answer.reply and answer.reason:
                raise EndpointMisbehaves(f"the endpoint takes none of the agents' questions: {answer.reason}")
            raise EndpointMisbehaves(
                f"the model gave {self._inconclusive} replies and none ends with "
                "<CONCLUSION> YES </CONCLUSION> or NO; `partita trace` shows them: use another model or --prompts"
            )


def _blame_settings(error: RequestRejected, items: Sequence[tuple[str, str]], parts: Mapping[str, ContentPart]) -> None:
    """Raise LimitTooLow where a question of several images is too long: so will be the next. One that shows a single
    item, or texts, is too long for what that item is."""
    images = sum("image_url" in parts[content_hash] for _, content_hash in items)
    if isinstance(error, QuestionTooLong) and images > 1:
        raise LimitTooLow(str(error)) from error


def _concludes(answer: Answer) -> bool:
    """Whether a reply ends with the conclusions that were asked for."""
    return answer.conclusion is not None and not answer.conclusion.startswith(Conclusion.UNKNOWN)
