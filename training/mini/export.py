"""Stage 4: the weights folder that serving reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from serving.llava.network import EmbeddingHead
from serving.llava.prompt import Vocabulary
from training.mini.config import MiniConfig
from training.mini.conversations import CRITERIA
from training.mini.shards import ATTRIBUTES
from training.saving import write_parts

NAME = "partita-mini"


def export_weights(
    config: MiniConfig, model: LlavaForConditionalGeneration, head: EmbeddingHead, words: Vocabulary, folder: Path
) -> None:
    """Write the folder anew: bfloat16 weights, with float32 for batch norm and the head; it appears whole or not at
    all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        stored = {name: _stored(name, tensor) for name, tensor in model.state_dict().items()}
        write_parts(stored, head, words, model.config, draft)
        about = {
            "format": 1,
            "name": NAME,
            "criteria": list(CRITERIA),
            "values": {c: list(ATTRIBUTES[c][1:]) for c in CRITERIA},
            "embedding_width": config.embedding_width,
            "beta": round(float(head.beta.detach()), 4),
            "threshold": config.threshold,
            "sha256": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(draft.iterdir())},
        }
        (draft / "partita.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        for path in draft.iterdir():
            path.chmod(0o644)
            with path.open("rb") as file:
                os.fsync(file.fileno())
        draft.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _stored(name: str, tensor: Tensor) -> Tensor:
    """The tensor as it is stored. Batch norm keeps float32: its statistics span more than bfloat16 tells apart."""
    norm = "vision_tower" in name and (
        name.endswith(("running_mean", "running_var")) or (tensor.ndim == 1 and "trunk" in name)
    )
    return tensor.to(torch.bfloat16) if tensor.dtype == torch.float32 and not norm else tensor
