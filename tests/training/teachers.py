"""Teachers for tests: labels behind an asker whose ledger is a list, and items whose embeddings tell their class."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agents.prompt_sets import PromptSet, set_for_criterion
from agents.questions import Sampling
from graphs.asking import Asker
from graphs.budget import Budget
from serving.client import Reply
from storage.ledger import Answer
from training.labels import SUPERVISED, HashGallery, LabelsTeacher
from training.replies import words_of
from training.teacher import Teacher

SUITS = ("hearts", "spades", "clubs", "diamonds")


@dataclass
class Book:
    """A ledger in memory."""

    answers: dict[str, Answer] = field(default_factory=dict)

    async def record(self, answer: Answer, prompt_text: str | None = None) -> None:
        assert answer.key not in self.answers
        self.answers[answer.key] = answer


class Counted:
    """A chat endpoint that counts what it is asked, and may say something else now and then."""

    def __init__(self, chat: Any, says: Any = None) -> None:
        self.chat_of, self.says, self.asked = chat, says or (lambda text, asked: text), 0

    async def chat(self, messages: list[dict[str, Any]], **more: Any) -> Reply:
        self.asked += 1
        number = self.asked
        await asyncio.sleep(0)
        reply = await self.chat_of.chat(messages, **more)
        text = self.says(reply.text, number)
        if isinstance(text, Exception):
            raise text
        return Reply(text, reply.model, 10, 5, 0.1, 1)


def items(count: int, classes: int = 4, noise: float = 0.6, seed: int = 0) -> tuple[dict[str, str], np.ndarray]:
    """The suit of each item by content hash, and (n, 32) embeddings in unit rows."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(classes, size=count)
    centres = rng.normal(size=(classes, 32))
    vectors = centres[kinds] + noise * rng.normal(size=(count, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hashes = [hashlib.sha256(f"{seed} {i}".encode()).hexdigest() for i in range(count)]
    return {h: SUITS[k] for h, k in zip(hashes, kinds, strict=True)}, vectors.astype(np.float32)


def teacher_of(
    values: dict[str, str],
    book: Book | None = None,
    criterion: str = "suit",
    says: Any = None,
    budget: Budget | None = None,
    embedder: Any = None,
) -> tuple[Teacher, Counted]:
    """A teacher that knows the values, and the endpoint that counts."""
    prompts: PromptSet = set_for_criterion(criterion)
    chat = Counted(LabelsTeacher(values, words_of(prompts)), says)
    book = book or Book()
    asker = Asker(
        chat=chat, embedder=embedder, ledger=book, answers=dict(book.answers), sampling=Sampling(SUPERVISED),
        gallery=HashGallery(), concurrency=8, budget=budget,
    )  # fmt: skip
    return Teacher(asker, prompts, list(values), supervised=True), chat
