"""The networks of the LLaVA-Qwen2 model: how prompts become vectors, greedy decoding, the embedding head.

For transformers' LLaVA and LLaVA-OneVision classes over a Qwen2, from a tiny random one to 7 B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    DynamicCache,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    Qwen2Model,
)

from serving.llava.tower import TowerConfig

Network = LlavaForConditionalGeneration | LlavaOnevisionForConditionalGeneration
"""The classes of transformers that a LLaVA-Qwen2 comes in."""

_CACHE = "cache" if "cache" in signature(Qwen2Model.forward).parameters else "past_key_values"
"""What transformers calls it; the old name warns from 5.24 on."""


def new_model(tower: TowerConfig, text: Qwen2Config, image_token: int) -> LlavaForConditionalGeneration:
    """An untrained LLaVA with the convolution tower and a Qwen2 language model."""
    config = LlavaConfig(
        vision_config=tower, text_config=text, image_token_index=image_token, image_seq_length=tower.tokens,
        vision_feature_layer=-1, vision_feature_select_strategy="full", tie_word_embeddings=False,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def width_of(model: Network) -> int:
    """Width of the language model's states."""
    return int(model.config.get_text_config().hidden_size)


class EmbeddingHead(nn.Module):
    """METHOD 2: H = normalize(LayerNorm(h) P) with a bias-free LayerNorm, and beta = min(exp(logit_scale), 100)."""

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=False)
        self.projection = nn.Parameter(torch.randn(width, embedding_width) * width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, width) -> unit rows (n, embedding_width), computed in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return F.normalize(self.norm(hidden.float()) @ self.projection, dim=-1)

    def folded(self) -> Tensor:
        """The whole head as one matrix (width, embedding_width): H = normalize(h · folded), ARCHITECTURE 7.

        What the norm divides by cancels under the final normalisation; what it subtracts is linear.
        """
        scaled = self.norm.weight.double().unsqueeze(1) * self.projection.double()
        return (scaled - scaled.mean(0)).float()

    @classmethod
    def unfolded(cls, folded: Tensor, beta: float) -> EmbeddingHead:
        """The head that `folded` (width, embedding_width) stands for: itself behind a plain norm."""
        head = cls(*folded.shape)
        with torch.no_grad():
            head.projection.copy_(folded)
            head.logit_scale.fill_(math.log(beta))
        return head

    @property
    def beta(self) -> Tensor:
        """The factor on the cosine."""
        return self.logit_scale.exp().clamp(max=100.0)


def vectors_of(model: Network) -> tuple[Tensor, Tensor]:
    """Token embeddings and output head, (rows, width) each; one and the same where they are tied."""
    given: Any = model
    return given.get_input_embeddings().weight, given.get_output_embeddings().weight


def to_tensor(images: np.ndarray) -> Tensor:
    """(n, S, S, 3) uint8 -> (n, 3, S, S) float32 in -1..1, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def project(model: Network, seen: Tensor) -> Tensor:
    """What the language model gets (images x tokens, width) of a tower's tokens (images, tokens, tower width)."""
    projected: Tensor = model.model.multi_modal_projector(seen)
    return projected.flatten(0, 1)


def input_vectors(model: Network, ids: Tensor, features: Tensor) -> Tensor:
    """Token vectors (n, length, width) of ids (n, length); image placeholders take `features` in order.

    They are of the network's type: in training the token embeddings may be finer than what is frozen.

    `features` (tokens, width), as the projector gives them, lists the images of row 0, then of row 1, and so on.
    """
    vectors = _token_vectors(model, ids)
    mask = ids == model.config.image_token_id
    return vectors.masked_scatter(mask.unsqueeze(-1), features.to(vectors.dtype))


def _token_vectors(model: Network, ids: Tensor) -> Tensor:
    vectors: Tensor = model.get_input_embeddings()(ids)
    return vectors.to(model.dtype)


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, both (n, longest) int64, with the padding on the left."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row)
        mask[i, longest - len(row) :] = 1
    return ids, mask


@torch.inference_mode()
def greedy(
    model: Network,
    rows: Sequence[Sequence[int]],
    features: Tensor,
    limits: Sequence[int],
    end: int,
    pad: int,
) -> list[list[int]]:
    """The most probable continuation of every row, token by token, without the end token.

    A row stops at `end` or after its limit; rows that have stopped leave the batch.
    """
    ids, mask = (part.to(model.device) for part in left_padded(rows, pad))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    vectors = input_vectors(model, ids, features)
    cache = DynamicCache(config=model.config.get_text_config())
    replies: list[list[int]] = [[] for _ in rows]
    live = list(range(len(rows)))
    while live:
        hidden = model.model.language_model(
            inputs_embeds=vectors, attention_mask=mask, position_ids=positions, use_cache=True, **{_CACHE: cache}
        ).last_hidden_state[:, -1]
        chosen = model.lm_head(hidden).argmax(-1)
        keep: list[int] = []
        for place, (row, token) in enumerate(zip(live, chosen.tolist(), strict=True)):
            if token != end:
                replies[row].append(token)
                if len(replies[row]) < limits[row]:
                    keep.append(place)
        if len(keep) < len(live):
            index = torch.tensor(keep, dtype=torch.long, device=chosen.device)
            live = [live[k] for k in keep]
            if not live:
                break
            cache.batch_select_indices(index)
            chosen, mask, positions = chosen[index], mask[index], positions[index]
        vectors = _token_vectors(model, chosen.unsqueeze(1))
        mask = torch.cat([mask, mask.new_ones((len(live), 1))], 1)
        positions = positions[:, -1:] + 1
    return replies


@torch.inference_mode()
def states_at(model: Network, rows: Sequence[Sequence[int]], features: Tensor, pad: int) -> Tensor:
    """The hidden state (n, width) after the final norm at the last token of every row (METHOD 2)."""
    ids, mask = (part.to(model.device) for part in left_padded(rows, pad))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    out = model.model.language_model(
        inputs_embeds=input_vectors(model, ids, features), attention_mask=mask, position_ids=positions, use_cache=False
    )
    hidden: Tensor = out.last_hidden_state[:, -1]
    return hidden
