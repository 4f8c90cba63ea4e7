"""The losses of METHOD 8, in one forward pass of network and head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.llava.checkpoint import Checkpoint
from serving.llava.network import input_vectors
from serving.llava.sight import Pixels, features
from storage.errors import UsageError
from training.lesson import Lesson, Row
from training.samples import Sample


class Losses(nn.Module):
    """Network and head as one module, so that several processes exchange the gradients of both."""

    def __init__(self, checkpoint: Checkpoint, lesson: Lesson, bfloat16: bool) -> None:
        """`bfloat16`: products are computed in it; the head and the losses are float32 always."""
        super().__init__()
        self.network, self.head = checkpoint.network, checkpoint.head
        self._lesson, self._bfloat16 = lesson, bfloat16
        self._longest = int(self.network.config.get_text_config().max_position_embeddings)

    def forward(
        self, samples: Sequence[Sample], pixels: Mapping[str, Pixels], paired: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy (n,) of what each sample's reply should be; β·H(u)·H(v) (n / 2,) where captions come in pairs.

        Args:
            pixels: of every image that the samples show, by content hash.

        Raises:
            UsageError: a sample is longer than the model reads.
        """
        losses, embedded = self.read(samples, pixels)
        if not paired:
            return losses, losses.new_zeros(0)
        return losses, self.head.beta * (embedded[::2] * embedded[1::2]).sum(-1)

    def read(self, samples: Sequence[Sample], pixels: Mapping[str, Pixels]) -> tuple[Tensor, Tensor]:
        """Cross-entropy (n,) as `forward` gives it, and H (captions, width) of the captions among the samples."""
        with torch.autocast(self.network.device.type, torch.bfloat16, enabled=self._bfloat16):
            names = list(dict.fromkeys(item for sample in samples for _, item in sample.question.items))
            seen = dict(zip(names, features(self.network, [pixels[name] for name in names]), strict=True))
            rows = [self._lesson.row(sample, lambda name: len(seen[name])) for sample in samples]
            hidden, losses = self._rows(rows, torch.cat([seen[name] for row in rows for name in row.images]))
        captions = [(i, row.embedding) for i, row in enumerate(rows) if row.embedding is not None]
        if not captions:
            return losses, losses.new_zeros(0)
        where = torch.tensor(captions, dtype=torch.long, device=hidden.device)
        return losses, self.head(hidden[where[:, 0], where[:, 1]])

    def _rows(self, rows: Sequence[Row], seen: Tensor) -> tuple[Tensor, Tensor]:
        """States (n, longest, width) and the cross-entropy (n,) of rows."""
        if (most := max(len(row.ids) for row in rows)) > self._longest:
            raise UsageError(
                f"a sample has {most} tokens and the model reads at most {self._longest}: lower `representatives`"
            )
        ids, targets, weights = (part.to(self.network.device) for part in self._lesson.padded(rows))
        # Padding stands on the right, where causal attention does not see it; no mask is needed.
        vectors = input_vectors(self.network, ids, seen)
        hidden: Tensor = self.network.model.language_model(inputs_embeds=vectors, use_cache=False).last_hidden_state
        asked = weights > 0
        logits = self.network.lm_head(hidden[asked])
        losses = torch.zeros_like(weights)
        losses[asked] = F.cross_entropy(logits.float(), targets[asked], reduction="none") * weights[asked]
        return hidden, losses.sum(1)
