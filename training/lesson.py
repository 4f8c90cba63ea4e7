"""From samples to what the language model reads and is to write; prompts are built by serving's own functions.

A caption is read as serving reads it to embed it: prompt, caption, `<embedding>`. To be written are the caption and
then `<|im_end|>`: where the model stops, serving puts `<embedding>`, whose state nothing but H(u) is read from. So
captions end with `<embedding>` (METHOD 8) for every base alike. partita-mini and published models stop there already;
to have them write the token first would unlearn that, and tie the state at it to the word that follows. An assessment
is prompt and reply, and `<|im_end|>` is to be written after it.
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
    """What is read."""
    targets: list[int]
    """What is to be written after each of them."""
    weights: list[float]
    """Of each target; 0 in the prompt. They add up to 1, however long the reply is."""
    images: list[str]
    """Content hashes in the order of their placeholders."""
    embedding: int | None
    """Where `<embedding>` stands, at which H(u) is read: a caption's last place."""


class Lesson:
    """Turns samples into rows."""

    def __init__(self, vocabulary: Vocabulary, emphasis: float) -> None:
        """`emphasis` is the weight of the words of a conclusion beside those of the reasoning."""
        self.vocabulary, self.emphasis = vocabulary, emphasis

    def row(self, sample: Sample, image_tokens: Callable[[str], int]) -> Row:
        """`image_tokens` tells how many tokens an image is, by its content hash."""
        asked = messages_of(sample)
        prompt = build_prompt(asked, self.vocabulary, image_tokens)
        begin, embedding = len(prompt.ids) - 1, None
        if sample.kind == "caption":
            told = with_embedding([*asked, {"role": "assistant", "content": sample.reply}])
            ids = build_prompt(told, self.vocabulary, image_tokens).ids
            begin, embedding = _common(prompt.ids, ids) - 1, len(ids) - 1
            weights = [*[1.0] * (embedding - begin), 0.0]
        else:
            written, weights = self._reply(sample.reply)
            ids = [*prompt.ids, *written]
        targets = [*ids[1:], self.vocabulary.end]
        if embedding:
            targets[embedding - 1] = self.vocabulary.end
        total = sum(weights)
        weights = [0.0] * begin + [weight / total for weight in weights]
        return Row(ids, targets, weights, prompt.image_urls, embedding)

    def padded(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and targets, int64, and weights, float32, (n, longest) each, padded on the right."""
        longest = max(len(row.ids) for row in rows)
        ids, targets = (torch.full((len(rows), longest), self.vocabulary.pad) for _ in range(2))
        weights = torch.zeros(len(rows), longest)
        for i, row in enumerate(rows):
            for whole, part in ((ids, row.ids), (targets, row.targets), (weights, row.weights)):
                whole[i, : len(part)] = torch.tensor(part)
        return ids, targets, weights

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
