"""Concurrent requests to one model, gathered into batches.

Requests queue in the order of arrival. One thread owns the model; while it computes a batch, the next one gathers.
A batch holds requests that can be computed together: the same verb, and for `generate` the same bound and temperature.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

log = logging.getLogger(__name__)

Conversation = list[dict[str, Any]]
"""Messages in OpenAI's form."""


class Generation(Protocol):
    """What a model wrote."""

    @property
    def text(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def finish_reason(self) -> str: ...


class Model(Protocol):
    """A model that the server can put behind the API; `serving.llava` has the real one.

    `beta` and `threshold` are the embedding head's own (METHOD 2, 3), `threshold` None for a head that nobody trained;
    `criteria` is what the model was trained to see. Both verbs raise ValueError, in words for the caller, for a
    conversation that they can't take.
    """

    @property
    def name(self) -> str: ...
    @property
    def embedding_width(self) -> int: ...
    @property
    def beta(self) -> float: ...
    @property
    def threshold(self) -> float | None: ...
    @property
    def criteria(self) -> tuple[str, ...]: ...

    def generate(
        self, conversations: Sequence[Conversation], max_new_tokens: int, temperature: float = 0.0
    ) -> Sequence[Generation]:
        """One generation for each conversation, in their order."""
        ...

    def embed(self, conversations: Sequence[Conversation]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Unit vectors, shape (n, embedding_width)."""
        ...


@runtime_checkable
class TextEmbedder(Protocol):
    """A model that embeds texts and does nothing else; `serving.sentences` has the real one."""

    @property
    def name(self) -> str: ...
    @property
    def embedding_width(self) -> int: ...

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Unit vectors, shape (n, embedding_width)."""
        ...


class Full(Exception):
    """So many requests wait that one more would only wait in vain."""


@dataclass(frozen=True, slots=True)
class Verb:
    """What is to be done with a conversation or a text. Equal verbs go into one batch."""

    name: Literal["generate", "embed"]
    max_new_tokens: int = 0
    temperature: float = 0.0


@dataclass(eq=False, slots=True)
class _Job:
    verb: Verb
    subject: Conversation | str
    answer: asyncio.Future[Any] = field(repr=False)


class Batcher:
    """The queue before a model, and the thread that empties it; use it as an async context manager.

    Args:
        batch_size: conversations or texts in one batch at most.
        max_wait: seconds that the first request of a batch waits for company, at most.
        max_queue: requests that may wait; one more is refused with `Full`.
    """

    def __init__(
        self, model: Model | TextEmbedder, *, batch_size: int = 16, max_wait: float = 0.005, max_queue: int = 256
    ) -> None:
        self._model = model
        self._batch_size = batch_size
        self._max_wait = max_wait
        self._max_queue = max_queue
        self._waiting: deque[_Job] = deque()
        self._gathered: list[_Job] = []
        """The batch that is being put together or computed."""
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="partita-model")
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher:
        self._loop = asyncio.create_task(self._work(), name="partita-batcher")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        while self._waiting:
            self._waiting.popleft().answer.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def waiting(self) -> int:
        """Requests that wait for the model, without those that were cancelled."""
        return sum(not job.answer.cancelled() for job in self._waiting)

    async def submit(self, verb: Verb, subject: Conversation | str) -> Any:
        """The model's answer: a `Generation`, or a row of `embed`. Cancel it and it is not computed, if it still waits.

        Args:
            subject: a conversation for a `Model`, a text for a `TextEmbedder`.

        Raises:
            Full: too many wait. ValueError: the model can't take the subject.
        """
        if len(self._waiting) >= self._max_queue:
            self._waiting = deque(job for job in self._waiting if not job.answer.cancelled())
            if len(self._waiting) >= self._max_queue:
                raise Full
        job = _Job(verb, subject, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrival.set()
        return await job.answer

    async def _work(self) -> None:
        while True:
            try:
                await self._work_once()
            except Exception as fault:
                # A fault of ours, not of the model: nobody may wait for an answer that never comes.
                log.exception("the batcher failed")
                failed, self._gathered, self._waiting = [*self._gathered, *self._waiting], [], deque()
                for job in failed:
                    if not job.answer.done():
                        job.answer.set_exception(RuntimeError(f"the batcher failed: {fault!r}"))
                await asyncio.sleep(0.1)  # a fault that lasts must not take the whole event loop

    async def _work_once(self) -> None:
        self._gathered = []
        batch = await self._gather()
        loop = asyncio.get_running_loop()
        verb = batch[0].verb
        subjects = [job.subject for job in batch]
        computing = loop.run_in_executor(self._thread, self._compute, verb, subjects)
        try:
            results = await asyncio.shield(computing)
        except asyncio.CancelledError:
            for job in batch:
                job.answer.cancel()
            await asyncio.wait([computing])
            raise
        for job, result in zip(batch, results, strict=True):
            if job.answer.cancelled():
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)

    async def _gather(self) -> list[_Job]:
        """The next batch: the first that waits, and those like it that wait or come within `max_wait`."""
        batch = self._gathered
        deadline: float | None = None
        while True:
            self._arrival.clear()
            self._take(batch)
            if len(batch) >= self._batch_size:
                return batch
            now = asyncio.get_running_loop().time()
            if batch and deadline is None:
                deadline = now + self._max_wait
            try:
                async with asyncio.timeout_at(deadline):
                    await self._arrival.wait()
            except TimeoutError:
                batch[:] = [job for job in batch if not job.answer.cancelled()]
                if batch:
                    return batch
                deadline = None

    def _take(self, batch: list[_Job]) -> None:
        left: deque[_Job] = deque()
        for job in self._waiting:
            if job.answer.cancelled():
                continue
            if len(batch) < self._batch_size and (not batch or job.verb == batch[0].verb):
                batch.append(job)
            else:
                left.append(job)
        self._waiting = left

    def _compute(self, verb: Verb, subjects: list[Any]) -> list[Any]:
        """An answer or an exception for each; one that spoils a batch is found by computing one by one."""
        try:
            return self._call(verb, subjects)
        except Exception as fault:
            if len(subjects) == 1:
                if not isinstance(fault, ValueError):
                    log.exception("the model failed")
                return [fault]
        return [result for subject in subjects for result in self._compute(verb, [subject])]

    def _call(self, verb: Verb, subjects: list[Any]) -> list[Any]:
        if isinstance(self._model, TextEmbedder):
            results = list(self._model.embed_texts(subjects))
        elif verb.name == "embed":
            results = list(self._model.embed(subjects))
        else:
            results = list(self._model.generate(subjects, verb.max_new_tokens, verb.temperature))
        if len(results) != len(subjects):
            raise RuntimeError(f"the model gave {len(results)} answers to {len(subjects)} questions")
        return results
