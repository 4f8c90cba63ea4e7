"""From a checkpoint to a folder that others serve: `partita serve export CHECKPOINT OUT`.

Weights with LoRA merged, under the names that LLaVA-OneVision is published with and that vLLM reads; the embedding
head folded into one sentence-transformers Dense (ARCHITECTURE 7), which is all that stock vLLM knows of heads; the
tokenizer, the image processor and the chat template that say how prompts are built; `partita.json` with a hash of
every file. transformers, vLLM and the built-in server read the same folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

from serving.llava.about import SUPERVISED, is_supervised
from serving.llava.checkpoint import Checkpoint, read_checkpoint
from serving.llava.names import PUBLISHED, Names, renamed
from serving.llava.network import Network, vectors_of
from serving.llava.prompt import CHAT_TEMPLATE, END, IMAGE
from serving.llava.tower import TowerConfig
from serving.vllm import fault_of_name
from storage.artefacts import settle
from storage.errors import UsageError

MANIFEST = "partita.json"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    name: str
    bytes: int
    for_vllm: bool
    """False for partita-mini's tower, which vLLM does not have."""


def export(
    checkpoint: Path,
    out: Path,
    *,
    base: Path | None = None,
    name: str | None = None,
    dtype: torch.dtype | None = None,
    shard_size: int = 5_000_000_000,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write `out`; it appears whole or not at all.

    Args:
        base: the checkpoint's base model, where it no longer lies where the checkpoint says.
        name: the model's name at an endpoint; None keeps the checkpoint's. That of a model that learnt from labels goes
            on to say so.
        dtype: of the weights; None: as they are stored. The folded head is float32 always.
        shard_size: bytes of a weights file, at most.
        say: told what is being done.

    Raises:
        UsageError: `out` exists or can't be written, or what `read_checkpoint` raises.
    """
    if os.path.lexists(out):
        raise UsageError(f"{out} is there already: name a folder that is not, or remove it")
    with _whole_or_not_at_all(out) as draft:
        say(f"reading {checkpoint}")
        read = read_checkpoint(checkpoint, base=base, dtype=dtype)
        name = name or read.about.name
        if is_supervised(read.about.name) and not is_supervised(name):
            name += f"-{SUPERVISED}"
            say(f"the model learnt from labels, which its name goes on to say: {name}")
        if (why := fault_of_name(name)) is not None:
            raise UsageError(f"the model's name {why}: give another with --name")
        say("writing weights")
        _write_weights(read.network, draft, shard_size)
        _write_head(read, draft)
        _write_prompting(read, draft)
        total = _write_manifest(read, name, draft)
    return Exported(out, name, total, not _has_own_tower(read.network))


@contextmanager
def _whole_or_not_at_all(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` at the end. It is made first: what can't be written is found out
    before anything large is read."""
    draft: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        yield draft
        for path in draft.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        draft.chmod(0o755)
        settle(draft)
        draft.rename(out)
        settle(out.parent)
    except OSError as error:
        raise UsageError(
            f"{out} can't be written ({error.strerror or error}): make room, or name another folder"
        ) from None
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def _write_weights(network: Network, folder: Path, shard_size: int) -> None:
    names: Names = () if _has_own_tower(network) else PUBLISHED  # nobody's but ours keep their own
    weights = {renamed(name, names): tensor.contiguous() for name, tensor in network.state_dict().items()}
    config: Any = network.config
    tied = torch.equal(*vectors_of(network))
    if tied:
        weights.pop(renamed("lm_head.weight", names))
    for part in (config, config.get_text_config()):  # LoRA may have parted what was one; readers look at either
        part.tie_word_embeddings = tied
        part.__dict__.pop("auto_map", None)
    save_torch_state_dict(weights, str(folder), max_shard_size=shard_size, metadata={"format": "pt"})
    config.architectures = [type(network).__name__]
    config.dtype = network.dtype
    config.save_pretrained(str(folder))


def _write_head(read: Checkpoint, folder: Path) -> None:
    """Last token, Dense, unit length: sentence-transformers' way to say METHOD 2."""
    folded = read.head.folded()
    width, out = folded.shape
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    _write(folder / "modules.json", modules)
    text: Any = read.network.config.get_text_config()
    _write(
        folder / "sentence_bert_config.json",
        {"max_seq_length": int(text.max_position_embeddings), "do_lower_case": False},
    )
    modes = {f"pooling_mode_{mode}": False for mode in ("cls_token", "mean_tokens", "max_tokens")}
    pooling = {"word_embedding_dimension": width, **modes, "pooling_mode_lasttoken": True, "include_prompt": True}
    _write(folder / "1_Pooling" / "config.json", pooling)
    dense = {
        "in_features": width, "out_features": out, "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }  # fmt: skip
    _write(folder / "2_Dense" / "config.json", dense)
    save_file({"linear.weight": folded.T.contiguous()}, str(folder / "2_Dense" / "model.safetensors"))
    (folder / "3_Normalize").mkdir()


def _write_prompting(read: Checkpoint, folder: Path) -> None:
    """Tokenizer, image processor and chat template: what makes a prompt of messages."""
    vocabulary = read.vocabulary
    vocabulary.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    pad = str(vocabulary.tokenizer.id_to_token(vocabulary.pad))
    longest = int(read.network.config.get_text_config().max_position_embeddings)
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast" if _has_own_tower(read.network) else "Qwen2Tokenizer",
            "add_prefix_space": False, "clean_up_tokenization_spaces": False, "split_special_tokens": False,
            "bos_token": None, "eos_token": END, "pad_token": pad, "image_token": IMAGE, "model_max_length": longest,
            "processor_class": "LlavaOnevisionProcessor",
        },
    )  # fmt: skip
    _write(
        folder / "generation_config.json",
        {"eos_token_id": [vocabulary.end], "pad_token_id": vocabulary.pad, "do_sample": False},
    )
    for path, told in read.process.settings().items():
        _write(folder / path, told)


def _write_manifest(read: Checkpoint, name: str, folder: Path) -> int:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    about = {
        "format": 2,
        "name": name,
        "criteria": list(read.about.criteria),
        "one_candidate": read.about.one_candidate,
        "embedding_width": int(read.head.projection.shape[1]),
        "beta": float(read.head.beta),
        "threshold": read.about.threshold,
        "sha256": {path.relative_to(folder).as_posix(): _digest(path) for path in files},
    }
    _write(folder / MANIFEST, about)
    _digest(folder / MANIFEST)
    return sum(path.stat().st_size for path in files)


def _digest(path: Path) -> str:
    """SHA-256 of a file, which is on the disk then."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_own_tower(network: Network) -> bool:
    return isinstance(network.config.vision_config, TowerConfig)


def _write(path: Path, told: Mapping[str, Any] | list[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
