"""From samples to what the language model reads and is to write; prompts are built by serving's own functions.

A caption's row is what serving embeds, prompt, caption and `<embedding>`, and then `<|im_end|>`. To be written are the
caption, `<embedding>` and `<|im_end|>`: captions end with `<embedding>` (METHOD 8), for partita-mini as for any other
model. A model that writes the token and one that leaves it to the server give the same description: readers take it
off, and serving puts it back. An assessment's row is the prompt, the reply and `<|im_end|>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from serving.llava.prompt import CONCLUDE, Message, Vocabulary, build_prompt, with_embedding
from training.samples import Sample

_VERDICT = re.compile(rf"(?:[^.!?\n]*[.!?\n]\s*)?{CONCLUDE}\s*(?:YES|NO)", re.IGNORECASE)
"""A verdict and the sentence before it, which says the same in other words and decides it."""


@dataclass(frozen=True)
class Row:
    """One sample as the language model reads it."""

    ids: list[int]
    weights: list[float]
    """Of every token as one that is to be written; 0 in the prompt. They add up to 1, however long the reply is."""
    images: list[str]
    """Content hashes in the order of their placeholders."""
    embedding: int | None
    """Where `<embedding>` stands, at which H(u) is read."""


class Lesson:
    """Turns samples into rows."""

    def __init__(self, vocabulary: Vocabulary, emphasis: float) -> None:
        """`emphasis` is the weight of the words of a conclusion beside those of the reasoning."""
        self.vocabulary, self.emphasis = vocabulary, emphasis

    def row(self, sample: Sample, image_tokens: Callable[[str], int]) -> Row:
        """`image_tokens` tells how many tokens an image is, by its content hash."""
        asked = messages_of(sample)
        prompt = build_prompt(asked, self.vocabulary, image_tokens)
        end = self.vocabulary.end
        if sample.kind == "caption":
            told = with_embedding([*asked, {"role": "assistant", "content": sample.reply}])
            ids = [*build_prompt(told, self.vocabulary, image_tokens).ids, end]
            begin = _common(prompt.ids, ids)
            weights = [1.0] * (len(ids) - begin)
            embedding = len(ids) - 2
        else:
            written, weights = self._reply(sample.reply)
            ids, begin, embedding = [*prompt.ids, *written, end], len(prompt.ids), None
        total = sum(weights)
        return Row(ids, [0.0] * begin + [weight / total for weight in weights], prompt.image_urls, embedding)

    def padded(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Ids (n, longest) int64, padded on the right, and weights of the *next* token, (n, longest - 1) float32."""
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self.vocabulary.pad)
        weights = torch.zeros(len(rows), longest)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = torch.tensor(row.ids)
            weights[i, : len(row.ids)] = torch.tensor(row.weights)
        return ids, weights[:, 1:]

    def _reply(self, reply: str) -> tuple[list[int], list[float]]:
        """A reply's tokens, and the weight of each and of the end behind them."""
        told = self.vocabulary.tokenizer.encode(reply, add_special_tokens=False)
        spans = [match.span() for match in _VERDICT.finditer(reply)]
        weights = [
            self.emphasis if any(begin < right and left < end for begin, end in spans) else 1.0
            for left, right in told.offsets
        ]
        return list(told.ids), [*weights, 1.0]


def messages_of(sample: Sample) -> list[Message]:
    """A sample's question as a chat, content hashes in place of images."""
    return list(sample.question.messages(lambda item: {"type": "image_url", "image_url": {"url": item}}))


def _common(prompt: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens the two begin with alike: all of the prompt, unless a token reaches over its end."""
    for place, (a, b) in enumerate(zip(prompt, ids, strict=False)):
        if a != b:
            return place
    return min(len(prompt), len(ids))
