"""The LLaVA-Qwen2 model with its embedding head, as the built-in server runs it."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from serving.llava.checkpoint import Checkpoint, read_checkpoint
from serving.llava.errors import MessageError
from serving.llava.images import read_image
from serving.llava.network import Network, greedy, states_at, width_of
from serving.llava.prompt import Message, Prompt, build_prompt, image_urls, with_embedding
from serving.llava.sight import Pixels, features
from serving.llava.tower import TowerConfig

LONGEST_PROMPT = 32_768
"""Tokens, where the model itself would read more."""
MOST_IMAGES = 128
"""In one question."""
_ROWS = 32
"""Prompts, or tiles of images, in one pass."""
_TOKENS = 65_536
"""In one pass, padding included."""
_KEPT_TOKENS = 200_000
"""Of images, which are looked at once and kept for a while."""
_CANDIDATE = re.compile(r"Candidate (\d+):")


@dataclass(frozen=True)
class Generation:
    """One reply."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    """`stop`, or `length` when the limit cut the reply."""


class LlavaQwen2:
    """Conversations in, replies or embeddings out; many at a time.

    Decoding is greedy whatever the temperature: a small model gains nothing from sampling, and equal questions get
    equal answers, so that a resumed session goes on exactly as it would have. Not safe for threads: one caller at a
    time.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device | str = "cpu",
        pixels: Callable[[str], Pixels] | None = None,
    ) -> None:
        """`pixels` gives the pixels of the image that a message's URL names; None: URLs are `data:` URLs."""
        network: Any = checkpoint.network
        self.network: Network = network.to(device)
        self.head = checkpoint.head.to(device)
        self.network.train(False)
        self.head.train(False)
        self.vocabulary = checkpoint.vocabulary
        process = checkpoint.process
        self._pixels = pixels or (lambda url: process(read_image(url)))
        self._about = checkpoint.about
        self.name = checkpoint.about.name
        self.criteria = checkpoint.about.criteria
        self.embedding_width: int = self.head.projection.shape[1]
        self.beta = float(self.head.beta.detach())
        self.threshold = checkpoint.about.threshold
        self._longest = min(LONGEST_PROMPT, int(self.network.config.get_text_config().max_position_embeddings))
        self._built_in = isinstance(self.network.config.vision_config, TowerConfig)
        self._seen: OrderedDict[bytes, Tensor] = OrderedDict()
        self._kept = 0

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> LlavaQwen2:
        """Read a model folder of any form that `serving.llava.checkpoint` knows.

        On a GPU in bfloat16 where there is one, otherwise in float32: bfloat16 is slower on CPUs. `threads` is torch's
        for the process.

        Raises UsageError when the folder lacks a file or its files do not belong together.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        gpu = torch.cuda.is_available()
        read = read_checkpoint(path, dtype=torch.bfloat16 if gpu else torch.float32)
        return cls(read, "cuda" if gpu else "cpu")

    def generate(
        self, conversations: Sequence[Sequence[Message]], max_new_tokens: Sequence[int] | int, temperature: float = 0.0
    ) -> list[Generation]:
        """A reply to each conversation. Several candidates in one question are judged one by one where the model was
        trained so, their conclusions joined in order.

        Raises MessageError (a ValueError) when a conversation has too many tokens or images, a part the model cannot
        read, or nothing that this model knows.
        """
        limits = [max_new_tokens] * len(conversations) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        pieces = [_by_candidate(messages) if self._about.one_candidate else [messages] for messages in conversations]
        asked = self._asked([piece for group in pieces for piece in group])
        flat = [prompt for prompt, _ in asked]
        each = [max(1, limit // len(group)) for group, limit in zip(pieces, limits, strict=True) for _ in group]
        rows: list[list[int]] = [[] for _ in flat]
        for chunk in _chunks(flat):
            made = greedy(
                self.network,
                [flat[i].ids for i in chunk],
                self._together([asked[i][1] for i in chunk]),
                [each[i] for i in chunk],
                self.vocabulary.end,
                self.vocabulary.pad,
            )
            for i, row in zip(chunk, made, strict=True):
                rows[i] = row
        out: list[Generation] = []
        at = 0
        for group in pieces:
            mine = flat[at : at + len(group)]
            part, own = rows[at : at + len(group)], each[at : at + len(group)]
            at += len(group)
            texts = [self.vocabulary.decode(row) for row in part]
            if len(group) > 1:
                texts = [f"Candidate {j}: {text}" for j, text in enumerate(texts, 1)]
            out.append(
                Generation(
                    text="\n".join(texts),
                    prompt_tokens=sum(len(prompt.ids) for prompt in mine),
                    completion_tokens=sum(map(len, part)),
                    finish_reason="length" if any(len(r) >= n for r, n in zip(part, own, strict=True)) else "stop",
                )
            )
        return out

    def embed(self, conversations: Sequence[Sequence[Message]]) -> np.ndarray:
        """H(u) of METHOD 2, (n, embedding_width) float32 with unit rows, read at the `<embedding>` token.

        The last message is the assistant's `<description> <embedding>`; the token is added where it is missing.
        Raises MessageError as `generate`.
        """
        if not conversations:
            return np.zeros((0, self.embedding_width), np.float32)
        asked = self._asked([with_embedding(messages) for messages in conversations])
        prompts = [prompt for prompt, _ in asked]
        out = np.empty((len(prompts), self.embedding_width), np.float32)
        with torch.inference_mode():
            for chunk in _chunks(prompts):
                seen = self._together([asked[i][1] for i in chunk])
                states = states_at(self.network, [prompts[i].ids for i in chunk], seen, self.vocabulary.pad)
                out[chunk] = self.head(states).cpu().numpy()
        return out

    def _asked(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[Prompt, list[Tensor]]]:
        """Every conversation's prompt, and what its images look like to the language model, in order."""
        urls = [image_urls(messages) for messages in conversations]
        for shown in urls:
            if not shown and self._built_in:
                raise MessageError(
                    "the question shows no image; the built-in model answers questions about images only"
                )
            if len(shown) > MOST_IMAGES:
                raise MessageError(f"the question shows {len(shown)} images; at most {MOST_IMAGES} are looked at")
        seen = self._look([url for shown in urls for url in shown])
        prompts = [build_prompt(messages, self.vocabulary, lambda url: len(seen[url])) for messages in conversations]
        for prompt in prompts:
            if len(prompt.ids) > self._longest:
                raise MessageError(
                    f"the question has {len(prompt.ids)} tokens and this model reads at most {self._longest}: "
                    "show fewer images or less text"
                )
        return [(prompt, [seen[url] for url in prompt.image_urls]) for prompt in prompts]

    def _together(self, images: Sequence[Sequence[Tensor]]) -> Tensor:
        flat = [image for row in images for image in row]
        return torch.cat(flat) if flat else torch.empty((0, width_of(self.network)), device=self.network.device)

    @torch.inference_mode()
    def _look(self, urls: Sequence[str]) -> dict[str, Tensor]:
        """Tokens (n, width) of images, which are looked at once and kept for a while: representatives come again and
        again."""
        names = {url: hashlib.blake2b(url.encode(), digest_size=16).digest() for url in urls}
        found = {url: self._seen[name] for url, name in names.items() if name in self._seen}
        fresh = [url for url in names if url not in found]
        waiting: list[tuple[str, Pixels]] = []
        for number, url in enumerate(fresh, 1):
            waiting.append((url, self._pixels(url)))
            if number == len(fresh) or sum(len(pixels.values) for _, pixels in waiting) >= _ROWS:
                seen = features(self.network, [pixels for _, pixels in waiting])
                found.update(zip((url for url, _ in waiting), seen, strict=True))
                waiting = []
        for url, name in names.items():
            self._kept += 0 if name in self._seen else len(found[url])
            self._seen[name] = found[url]
            self._seen.move_to_end(name)
        while self._kept > _KEPT_TOKENS and len(self._seen) > 1:
            self._kept -= len(self._seen.popitem(last=False)[1])
        return found


def _chunks(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Places of prompts of similar length, a few at a time, so that little of a batch is padding."""
    chunks: list[list[int]] = []
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids)):
        last = chunks[-1] if chunks else []
        if not last or len(last) >= _ROWS or (len(last) + 1) * len(prompts[i].ids) > _TOKENS:
            chunks.append([i])
        else:
            last.append(i)
    return chunks


def _by_candidate(messages: Sequence[Message]) -> list[Sequence[Message]]:
    """The question once for each candidate, in order; unchanged when it has at most one (CONTRACT 4)."""
    last = messages[-1] if messages else None
    content = last.get("content") if isinstance(last, Mapping) else None
    if not isinstance(content, Sequence) or isinstance(content, str):
        return [messages]
    places = [
        i
        for i, part in enumerate(content)
        if isinstance(part, Mapping) and _CANDIDATE.fullmatch(str(part.get("text", "")))
    ]
    if len(places) < 2:
        return [messages]
    shared = list(content[: places[0]])
    out: list[Sequence[Message]] = []
    for begin, end in zip(places, [*places[1:], len(content)], strict=True):
        parts = [*shared, {"type": "text", "text": "Candidate 1:"}, *content[begin + 1 : end]]
        out.append([*messages[:-1], {**messages[-1], "content": parts}])
    return out
