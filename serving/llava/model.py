"""The LLaVA-Qwen2 model with its embedding head, as the built-in server runs it."""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration

from serving.llava.errors import MessageError
from serving.llava.images import read_image, to_pixels
from serving.llava.network import EmbeddingHead, greedy, states_at, to_tensor
from serving.llava.prompt import Message, Prompt, Vocabulary, build_prompt, with_embedding

LONGEST_PROMPT = 4096
_ROWS = 32
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
        network: LlavaForConditionalGeneration,
        head: EmbeddingHead,
        vocabulary: Vocabulary,
        about: Mapping[str, Any],
    ) -> None:
        self.network, self.head, self.vocabulary = network, head, vocabulary
        self.network.train(False)
        self.head.train(False)
        self.name: str = about["name"]
        self.criteria: tuple[str, ...] = tuple(about["criteria"])
        self.embedding_width: int = head.projection.shape[1]
        self.beta: float = float(head.beta.detach())
        self.threshold: float = float(about["threshold"])
        self._seen: OrderedDict[bytes, Tensor] = OrderedDict()

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> LlavaQwen2:
        """Read a weights folder. Weights are stored in bfloat16 and computed with in float32. `threads` is torch's
        for the process.

        Raises FileNotFoundError when the folder lacks a file, ValueError when its files do not belong together.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        about = json.loads((path / "partita.json").read_text(encoding="utf-8"))
        if about.get("format") != 1:
            raise ValueError(f"{path} holds weights of format {about.get('format')}; this version reads format 1")
        network = LlavaForConditionalGeneration(LlavaConfig.from_pretrained(str(path)))
        network.load_state_dict({name: _float(t) for name, t in load_file(path / "model.safetensors").items()})
        weights = {name: _float(t) for name, t in load_file(path / "head.safetensors").items()}
        head = EmbeddingHead(*weights["projection"].shape)
        head.load_state_dict(weights)
        return cls(network, head, Vocabulary.load(path / "tokenizer.json"), about)

    @property
    def image_tokens(self) -> int:
        """Tokens an image becomes."""
        return int(self.network.config.image_seq_length)

    def generate(
        self, conversations: Sequence[Sequence[Message]], max_new_tokens: Sequence[int] | int, temperature: float = 0.0
    ) -> list[Generation]:
        """A reply to each conversation. Several candidates in one question are judged one by one, their conclusions
        joined in order.

        Raises MessageError (a ValueError) when a conversation has no image, too many tokens or a part the model
        cannot read.
        """
        limits = [max_new_tokens] * len(conversations) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        pieces = [_by_candidate(messages) for messages in conversations]
        prompts = [[self._prompt(piece) for piece in group] for group in pieces]
        flat = [prompt for group in prompts for prompt in group]
        each = [max(1, limit // len(group)) for group, limit in zip(pieces, limits, strict=True) for _ in group]
        rows: list[list[int]] = [[] for _ in flat]
        for chunk in _chunks(flat):
            features = self._features([url for i in chunk for url in flat[i].image_urls])
            made = greedy(
                self.network,
                [flat[i].ids for i in chunk],
                features,
                [each[i] for i in chunk],
                self.vocabulary.end,
                self.vocabulary.pad,
            )
            for i, row in zip(chunk, made, strict=True):
                rows[i] = row
        out: list[Generation] = []
        at = 0
        for group in prompts:
            part, own = rows[at : at + len(group)], each[at : at + len(group)]
            at += len(group)
            texts = [self.vocabulary.decode(row) for row in part]
            if len(group) > 1:
                texts = [f"Candidate {j}: {text}" for j, text in enumerate(texts, 1)]
            out.append(
                Generation(
                    text="\n".join(texts),
                    prompt_tokens=sum(len(prompt.ids) for prompt in group),
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
        prompts = [self._prompt(with_embedding(messages)) for messages in conversations]
        out = np.empty((len(prompts), self.embedding_width), np.float32)
        with torch.inference_mode():
            for chunk in _chunks(prompts):
                features = self._features([url for i in chunk for url in prompts[i].image_urls])
                states = states_at(self.network, [prompts[i].ids for i in chunk], features, self.vocabulary.pad)
                out[chunk] = self.head(states).numpy()
        return out

    def _prompt(self, messages: Sequence[Message]) -> Prompt:
        prompt = build_prompt(messages, self.vocabulary, self.image_tokens)
        if not prompt.image_urls:
            raise MessageError("the question shows no image; the built-in model answers questions about images only")
        if len(prompt.ids) > LONGEST_PROMPT:
            raise MessageError(
                f"the question has {len(prompt.ids)} tokens and this model reads at most {LONGEST_PROMPT}: "
                "show fewer images or less text"
            )
        return prompt

    @torch.inference_mode()
    def _features(self, urls: Sequence[str]) -> Tensor:
        """Tower tokens (n, tokens, width) of images, which are looked at once and kept for a while: representatives
        come again and again."""
        names = [hashlib.blake2b(url.encode(), digest_size=16).digest() for url in urls]
        fresh = {name: url for name, url in zip(names, urls, strict=True) if name not in self._seen}
        found: dict[bytes, Tensor] = {name: self._seen[name] for name in names if name in self._seen}
        vision: Any = self.network.config.vision_config
        size = int(vision.image_size)
        todo = list(fresh.items())
        for at in range(0, len(todo), _ROWS):
            part = todo[at : at + _ROWS]
            pixels = np.stack([to_pixels(read_image(url), size) for _, url in part])
            tokens = self.network.model.vision_tower(to_tensor(pixels)).last_hidden_state
            found.update({name: row for (name, _), row in zip(part, tokens, strict=True)})
        for name in names:
            self._seen[name] = found[name]
            self._seen.move_to_end(name)
        while len(self._seen) > 8192:
            self._seen.popitem(last=False)
        return torch.stack([found[name] for name in names])


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _chunks(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Places of prompts of similar length, a few at a time, so that little of a batch is padding."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
    return [order[at : at + _ROWS] for at in range(0, len(order), _ROWS)]


def _by_candidate(messages: Sequence[Message]) -> list[Sequence[Message]]:
    """The question once for each candidate, in order; unchanged when it has at most one (CONTRACT 4)."""
    content = messages[-1].get("content") if messages else None
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
