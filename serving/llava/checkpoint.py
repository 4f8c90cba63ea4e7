"""Reading a LLaVA-Qwen2 from a folder, in whichever form it comes; nothing is fetched, nothing is unpickled.

| form | what lies there |
|---|---|
| partita-mini | `partita.json` of format 1, `head.safetensors` |
| exported | `partita.json` of format 2, the head in `2_Dense` (`serving.llava.export`) |
| checkpoint | `adapter_config.json` (LoRA over a base folder), `head.safetensors`, `partita.json` of format 2 |
| published | LLaVA or LLaVA-OneVision over Qwen2, as transformers stores it or as its authors first did; no head |

A published model gets `<embedding>` and a fresh head, so that it can be trained, and embeds after a fashion.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer
from torch import Tensor
from transformers import (
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionForConditionalGeneration,
)
from transformers.utils import logging

from serving.llava import published
from serving.llava.about import About, read_about, read_object
from serving.llava.network import EmbeddingHead, Network, vectors_of, width_of
from serving.llava.prompt import EMBEDDING, IMAGE, Vocabulary
from serving.llava.sight import Processor, processor_of
from storage.errors import UsageError

EMBEDDING_WIDTH = 768
"""Of a fresh head (METHOD 2)."""
_CLASSES: dict[str, Any] = {
    "llava": LlavaForConditionalGeneration,
    "llava_onevision": LlavaOnevisionForConditionalGeneration,
}


@dataclass(frozen=True)
class Checkpoint:
    """A model with everything that belongs to it."""

    network: Network
    head: EmbeddingHead
    vocabulary: Vocabulary
    process: Processor
    about: About


@dataclass(frozen=True)
class Unmerged:
    """A LoRA checkpoint as training goes on with it."""

    checkpoint: Checkpoint
    """Its network has the adapter inside."""
    adapter: Any
    """peft's model around that network; what it trains takes gradients."""
    base: Path
    """The folder of the base model."""


def read_checkpoint(
    folder: Path, *, base: Path | None = None, dtype: torch.dtype | None = None, seed: int = 0
) -> Checkpoint:
    """The model in a folder, LoRA merged.

    Args:
        base: a checkpoint's base model, where it no longer lies where the checkpoint says.
        dtype: of the network; None: as it is stored. The head is float32 always, and so is partita-mini.
        seed: of a fresh head's weights.

    Raises:
        UsageError: it is none of the forms, or lacks a part.
    """
    told: Any = logging
    told.disable_progress_bar()  # nothing to wait for but the disk
    if base is not None and not (folder / "adapter_config.json").is_file():
        raise UsageError(f"{folder} is no LoRA checkpoint, so that it has no base model: leave --base out")
    with _readable(folder):
        return _read(folder, base, dtype, seed)


def read_unmerged(folder: Path, *, dropout: float = 0.0, dtype: torch.dtype | None = None) -> Unmerged:
    """The LoRA checkpoint in a folder with its adapter apart, to be trained further; `dropout` is of the adapter.

    Raises:
        UsageError: as `read_checkpoint`.
    """
    told: Any = logging
    told.disable_progress_bar()
    with _readable(folder):
        about = read_about(folder)
        adapter, vocabulary, process, below = _under_lora(folder, None, about, dtype, trainable=True, dropout=dropout)
        network = adapter.get_base_model()
        head = _head(folder, network, 0)
        return Unmerged(Checkpoint(network, head, vocabulary, process, about), adapter, below)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """What goes wrong with a folder, in words that say what to do."""
    try:
        yield
    except FileNotFoundError as error:
        missing = Path(str(error.filename or error)).name
        way_out = (
            "; a training there has a model when its first epoch is done" if (folder / "training").is_dir() else ""
        )
        raise UsageError(f"{folder} holds no model that can be read: {missing} is missing{way_out}") from None
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the model in {folder} is damaged ({error}): copy or export it again") from None
    # What transformers and torch make of settings and weights that do not belong together.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, UserWarning) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(
            f"the model in {folder} can't be read ({why}): its files do not belong together, or are not safetensors"
        ) from error


def _read(folder: Path, base: Path | None, dtype: torch.dtype | None, seed: int = 0) -> Checkpoint:
    about = read_about(folder)
    if (folder / "adapter_config.json").is_file():
        network, vocabulary, process = _adapted(folder, base, about, dtype)
    else:
        config = read_object(folder / "config.json")
        vocabulary = read_vocabulary(folder)
        network = _network(folder, config, dtype)
        process = processor_of(network, folder)
    fit_vocabulary(network, vocabulary)
    network.train(False).requires_grad_(False)
    return Checkpoint(network, _head(folder, network, seed), vocabulary, process, about)


def read_vocabulary(folder: Path) -> Vocabulary:
    """The folder's tokenizer, with `<image>` and `<embedding>` added where they are missing."""
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - tokenizers has no class of its own
            raise UsageError(f"{path} is no tokenizer that can be read ({error}): copy it again") from None
    elif (folder / "vocab.json").is_file():
        auto: Any = AutoTokenizer
        tokenizer = auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False).backend_tokenizer
    else:
        raise UsageError(f"{folder} has no tokenizer.json: copy the model's tokenizer there")
    added = []
    # <embedding> is an ordinary word, so that replies keep it; the blank before it belongs to it.
    for token in (
        AddedToken(IMAGE, special=True, normalized=False),
        AddedToken(EMBEDDING, special=False, normalized=False, lstrip=True),
    ):
        if tokenizer.token_to_id(token.content) is None:
            (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
            added.append(token.content)
    try:
        vocabulary = Vocabulary(tokenizer)
    except ValueError as error:
        raise UsageError(f"{folder}: {error}") from None
    if vocabulary.encode(f"so {EMBEDDING}") != (*vocabulary.encode("so"), vocabulary.embedding):
        raise UsageError(f"{folder}: {EMBEDDING} is a control token in its tokenizer; take the one that was exported")
    vocabulary.added = tuple(number for name in added if (number := tokenizer.token_to_id(name)) is not None)
    return vocabulary


def fit_vocabulary(network: Network, vocabulary: Vocabulary) -> None:
    """Give every entry of the vocabulary a row, name the image token, and put the entries that the model has never
    seen at the mean of those that it has: a published model may have spare rows, of which nobody knows what they hold.
    """
    network.config.image_token_id = vocabulary.image
    if len(vocabulary) > len(vectors_of(network)[0]):
        network.resize_token_embeddings(len(vocabulary), pad_to_multiple_of=64, mean_resizing=False)
    if not vocabulary.added:
        return
    known = min(vocabulary.added)
    with torch.no_grad():
        for vectors in vectors_of(network):
            vectors[list(vocabulary.added)] = vectors[:known].mean(0)


def _network(folder: Path, config: Mapping[str, Any], dtype: torch.dtype | None) -> Network:
    if published.is_original(config):
        weights = published.in_memory(_weights(folder))
        made = published.config_of(config, weights)
        return _loaded(LlavaOnevisionForConditionalGeneration, None, dtype, config=made, state_dict=weights)
    kind = config.get("model_type")
    vision, text = config.get("vision_config") or {}, config.get("text_config") or {}
    if kind not in _CLASSES or text.get("model_type") != "qwen2" or not vision.get("model_type"):
        raise UsageError(
            f"{folder} holds a model of type {kind!r} over {text.get('model_type', '?')!r}: LLaVA or LLaVA-OneVision "
            "over Qwen2 is needed here; any other model can be served by its own server and named with --endpoint"
        )
    if vision["model_type"] == "partita_tower":
        mini: Any = LlavaForConditionalGeneration(LlavaConfig.from_pretrained(str(folder)))
        mini.load_state_dict({name: _float(tensor) for name, tensor in _weights(folder).items()})
        network: Network = mini.to(torch.float32)  # batch norm's statistics span more than bfloat16 tells apart
        return network
    return _loaded(_CLASSES[kind], str(folder), dtype)


def _loaded(kind: Any, folder: str | None, dtype: torch.dtype | None, **more: Any) -> Network:
    """transformers' own reading, with every weight in its place."""
    if folder is None and dtype is None:
        dtype = more["state_dict"]["model.language_model.embed_tokens.weight"].dtype
    network, told = kind.from_pretrained(
        folder, dtype=dtype or "auto", local_files_only=True, use_safetensors=True, output_loading_info=True, **more
    )
    if wrong := [*told["missing_keys"], *map(str, told["mismatched_keys"]), *_strange(told["unexpected_keys"])]:
        raise UsageError(
            f"{folder or 'the folder'} holds other weights than its settings say, first {sorted(wrong)[0]!r}: copy or "
            "export the model again"
        )
    # One precision throughout: what is stored in another (a projector in float32, say) would fail in the first product.
    cast: Network = network.to(network.dtype)
    return cast


def _strange(unexpected: Iterable[str]) -> list[str]:
    """Weights left over that are not just buffers of older versions or a pooling head."""
    return [
        name for name in unexpected if not re.search(r"rotary_emb\.inv_freq|position_ids|vision_model\.head\.", name)
    ]


def _adapted(
    folder: Path, base: Path | None, about: About, dtype: torch.dtype | None
) -> tuple[Network, Vocabulary, Processor]:
    """A base model under LoRA, merged."""
    adapted, vocabulary, process, _ = _under_lora(folder, base, about, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft says of tied weights is taken care of in the export
        return adapted.merge_and_unload(), vocabulary, process


def _under_lora(
    folder: Path,
    base: Path | None,
    about: About,
    dtype: torch.dtype | None,
    *,
    trainable: bool = False,
    dropout: float = 0.0,
) -> tuple[Any, Vocabulary, Processor, Path]:
    """peft's model of a base under LoRA, and where the base lies."""
    try:
        from peft import LoraConfig, PeftModel
    except ImportError:
        raise UsageError(f"{folder} is a LoRA checkpoint: pip install 'partita[train]' to merge it") from None

    told = read_object(folder / "adapter_config.json")
    if told.get("peft_type") != "LORA":
        raise UsageError(f"{folder} holds an adapter of type {told.get('peft_type')!r}: only LoRA is merged")
    named = base or Path(about.base or told.get("base_model_name_or_path") or "")
    below = named if named.is_absolute() or base is not None else folder / named
    if not (below / "config.json").is_file() or below.resolve() == folder.resolve():
        raise UsageError(
            f"the base model of {folder} is not at {below}: put it back there, or "
            f"`partita serve export {folder} EXPORTED --base FOLDER` and use that"
        )
    if (below / "adapter_config.json").is_file():
        raise UsageError(f"the base model at {below} is a LoRA checkpoint itself: export it first, and name that")
    if not (folder / "adapter_model.safetensors").is_file():
        raise UsageError(f"{folder} has no adapter_model.safetensors: only safetensors are read")
    under = _read(below, None, dtype)
    own = folder / "tokenizer.json"
    vocabulary = read_vocabulary(folder if own.is_file() else below)
    rows, has_lora = _trained(folder / "adapter_model.safetensors")
    if not has_lora:
        raise UsageError(f"{folder}/adapter_model.safetensors holds no LoRA weights: save the adapter again")
    if rows not in (None, len(vectors_of(under.network)[0])):
        under.network.resize_token_embeddings(rows, mean_resizing=False)  # as training did
    fit_vocabulary(under.network, vocabulary)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft says of tied weights is taken care of in the export
        warnings.filterwarnings("error", message=".*[Mm]issing adapter keys")
        settings: Any = LoraConfig.from_pretrained(str(folder), local_files_only=True)
        settings.lora_dropout, settings.inference_mode = dropout, not trainable
        adapted: Any = PeftModel.from_pretrained(
            under.network, str(folder), config=settings, is_trainable=trainable, local_files_only=True
        )
    return adapted, vocabulary, under.process, below


def _trained(adapter: Path) -> tuple[int | None, bool]:
    """Rows of the token embeddings or the output head that the adapter holds whole, and whether it holds any LoRA."""
    with safe_open(adapter, "pt") as file:
        names = list(file.keys())
        whole = [name for name in names if re.search(r"(embed_tokens|lm_head)(\.modules_to_save)?\.weight$", name)]
        rows = {file.get_slice(name).get_shape()[0] for name in whole}
    return (rows.pop() if len(rows) == 1 else None), any("lora_" in name for name in names)


def _head(folder: Path, network: Network, seed: int) -> EmbeddingHead:
    width = width_of(network)
    if (folder / "head.safetensors").is_file():
        weights = {name: _float(t) for name, t in load_file(folder / "head.safetensors").items()}
        head = EmbeddingHead(*weights["projection"].shape)
        head.load_state_dict(weights)
    elif (folder / "2_Dense" / "model.safetensors").is_file():
        folded = load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"]
        beta = read_object(folder / "partita.json").get("beta") if (folder / "partita.json").is_file() else None
        head = EmbeddingHead.unfolded(_float(folded).T, float(beta or 1 / 0.07))
    else:
        state = torch.random.get_rng_state()
        torch.manual_seed(seed)
        head = EmbeddingHead(width, EMBEDDING_WIDTH)
        torch.random.set_rng_state(state)
    if head.projection.shape[0] != width:
        raise UsageError(f"the head in {folder} is for states of width {head.projection.shape[0]}, not {width}")
    return head.requires_grad_(False)


def _weights(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    named = sorted(set(read_object(index)["weight_map"].values())) if index.is_file() else None
    files = [folder / Path(name).name for name in named] if named else sorted(folder.glob("model*.safetensors"))
    if not files:
        raise FileNotFoundError(2, "missing", "model.safetensors")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
