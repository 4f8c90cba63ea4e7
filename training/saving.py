"""The folder that a training leaves, which serving and export read (the forms: `serving.llava.checkpoint`).

| trained | what is written |
|---|---|
| LoRA | the adapter and what was trained in full beside it, in PEFT's form; `partita.json` names the base |
| partita-mini whole | format 1 |
| a published model whole | transformers' form with its image processor's settings |

Each with `head.safetensors`, `tokenizer.json` and `partita.json`. All of it is written to a draft beside its place;
once that is whole and on the disk, file by file takes its place. A kill in between is made good by `complete`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from serving.llava.about import About
from serving.llava.checkpoint import Checkpoint
from serving.llava.network import EmbeddingHead
from serving.llava.prompt import Vocabulary
from storage.artefacts import settle
from storage.errors import UsageError
from training.trainable import Trainable

_READY = ".ready"
"""A draft that is whole."""


def save(trained: Trainable, folder: Path, about: About) -> None:
    """Write a model to `folder`, in place of the one that lies there; other files there stay.

    Raises:
        UsageError: it can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        complete(folder)
        for left in folder.glob(".draft-*"):  # by a kill
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder))
        try:
            _write(trained, draft, folder, about)
            for path in draft.iterdir():
                path.chmod(0o644)
                settle(path)
            settle(draft)
            draft.rename(folder / _READY)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        complete(folder)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{folder} can't be written ({error}): make room, or name another folder") from None


def complete(folder: Path) -> None:
    """Have a draft that is whole take its place; nothing where there is none. One that is not may be somebody's work.

    Raises OSError.
    """
    ready = folder / _READY
    if ready.is_dir():
        for path in sorted(ready.iterdir()):
            path.replace(folder / path.name)
        settle(folder)
        ready.rmdir()


def write_parts(
    network_state: Mapping[str, Tensor], head: EmbeddingHead, vocabulary: Vocabulary, config: Any, folder: Path
) -> None:
    """partita-mini's files but `partita.json`: settings, weights, head, tokenizer."""
    config.save_pretrained(str(folder))
    save_file(
        {name: t.detach().cpu().clone().contiguous() for name, t in network_state.items()},
        str(folder / "model.safetensors"),
    )
    _write_head(head, vocabulary, folder)


def _write(trained: Trainable, draft: Path, folder: Path, about: About) -> None:
    read = trained.checkpoint
    told: dict[str, Any] = {"format": 2, "name": about.name}
    if trained.adapter is not None:
        base = os.path.relpath(Path(str(trained.base)).resolve(), folder.resolve())
        _write_adapter(trained.adapter, base, draft)
        _write_head(read.head, read.vocabulary, draft)
        told["base"] = base
    elif trained.built_in:
        told["format"] = 1
        write_parts(read.network.state_dict(), read.head, read.vocabulary, read.network.config, draft)
    else:
        _write_published(read, draft)
    told |= {
        "criteria": list(about.criteria),
        "one_candidate": about.one_candidate,
        "embedding_width": int(read.head.projection.shape[1]),
        "beta": float(read.head.beta.detach()),
        "threshold": about.threshold,
    }
    _json(draft / "partita.json", told)


def _write_adapter(adapter: Any, base: str, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    weights = get_peft_model_state_dict(adapter, save_embedding_layers=False)  # they are in `modules_to_save`
    kept = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
    save_file(kept, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    settings = adapter.peft_config["default"].to_dict()
    settings |= {"base_model_name_or_path": base, "inference_mode": True}
    for name, value in settings.items():
        if isinstance(value, set):
            settings[name] = sorted(value)
    _json(folder / "adapter_config.json", settings)


def _write_published(read: Checkpoint, folder: Path) -> None:
    network: Any = read.network
    network.save_pretrained(str(folder))
    (folder / "generation_config.json").unlink(missing_ok=True)
    for path, told in read.process.settings().items():
        _json(folder / path, told)
    _write_head(read.head, read.vocabulary, folder)


def _write_head(head: EmbeddingHead, vocabulary: Vocabulary, folder: Path) -> None:
    weights = {name: t.detach().cpu().clone().contiguous() for name, t in head.state_dict().items()}
    save_file(weights, str(folder / "head.safetensors"))
    vocabulary.tokenizer.save(str(folder / "tokenizer.json"))


def _json(path: Path, told: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(told, indent=1, default=str) + "\n", encoding="utf-8")
