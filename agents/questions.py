"""Questions to the model: the message layout of CONTRACT 4, and the key that names a question.

A question holds content hashes, not pictures; ``messages`` puts the pictures in when it is really asked. The labels
are structural and the same for every prompt set; only the instruction is the prompt set's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agents.conclusions import pattern
from agents.prompt_sets import PromptSet, QuestionKind, prompt_hash

ContentPart = dict[str, Any]
"""One part of a message in OpenAI's chat format."""
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the model is asked: all of it determines the answer, so all of it is part of a question's key."""

    model: str
    """The model's name at the endpoint."""
    temperature: float = 0.2
    """METHOD 4."""
    max_tokens: int = 2048
    """The longest reply, in tokens (METHOD 4)."""
    seed: int = 0
    """The session's seed."""
    longest_side: int = 768
    """Images are sent with at most this many pixels on their longer side."""
    constrain: bool = False
    """Replies to assessments are held to ``Question.pattern``."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request to a chat endpoint, before its pictures are filled in."""

    kind: QuestionKind
    instruction: str
    """What the prompt set says."""
    items: tuple[tuple[str, str], ...]
    """(label, content hash) of every item shown, in order."""
    attempt: int = 0
    """How often the same has been asked before: asking again after an UNKNOWN is another question."""

    @property
    def prompt_hash(self) -> str:
        """Hash of the instruction that is really asked."""
        return prompt_hash(self.instruction)

    @property
    def conclusions(self) -> int:
        """How many conclusions the reply must end with: one for each candidate, one for a merge, none to describe."""
        if self.kind == "describe":
            return 0
        return max(1, sum(label.startswith("Candidate") for label, _ in self.items))

    @property
    def pattern(self) -> str | None:
        """The regular expression that a reply is held to where replies are constrained; None to describe."""
        return pattern(self.conclusions) if self.conclusions else None

    def key(self, sampling: Sampling) -> str:
        """Hash of everything that determines the question: the idempotency key and the ledger's key (CONTRACT 4)."""
        what = [
            "partita/1", self.kind, self.instruction, self.items, self.attempt,
            sampling.model, sampling.temperature, sampling.max_tokens, sampling.seed, sampling.longest_side,
        ]  # fmt: skip
        if sampling.constrain and self.pattern is not None:
            what.append(self.pattern)  # only then: the keys of sessions without it stay as they were
        return hashlib.sha256(json.dumps(what, ensure_ascii=True).encode()).hexdigest()

    def messages(self, part: Callable[[str], ContentPart]) -> list[Message]:
        """The one user message of CONTRACT 4; ``part`` turns a content hash into the item's content part."""
        content: list[ContentPart] = [{"type": "text", "text": self.instruction}]
        for label, content_hash in self.items:
            content += [{"type": "text", "text": label}, part(content_hash)]
        return [{"role": "user", "content": content}]


def describe(prompts: PromptSet, item: str) -> Question:
    """Ask for a description of one item, named by its content hash."""
    return Question("describe", prompts.describe, (("Item:", item),))


def membership(
    prompts: PromptSet, representatives: Sequence[str], candidates: Sequence[str], attempt: int = 0
) -> Question:
    """Ask whether each candidate belongs with the representatives (METHOD 4.3)."""
    shown = [(f"Representative {k}:", h) for k, h in enumerate(representatives, 1)]
    shown += [(f"Candidate {j}:", h) for j, h in enumerate(candidates, 1)]
    return Question("membership", prompts.membership, tuple(shown), attempt)


def merge(prompts: PromptSet, a: Sequence[str], b: Sequence[str], attempt: int = 0) -> Question:
    """Ask whether two clusters, shown by their representatives, are one (METHOD 5)."""
    shown = [(f"Cluster A, representative {k}:", h) for k, h in enumerate(a, 1)]
    shown += [(f"Cluster B, representative {k}:", h) for k, h in enumerate(b, 1)]
    return Question("merge", prompts.merge, tuple(shown), attempt)
