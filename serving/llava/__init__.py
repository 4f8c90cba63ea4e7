"""The LLaVA-Qwen2 model with the embedding head of METHOD 2; torch is imported when the model is first asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.llava.errors import MessageError

if TYPE_CHECKING:
    from serving.llava.model import Generation, LlavaQwen2

MINI = Path(__file__).parent / "weights" / "partita-mini"
"""The weights that are shipped."""

__all__ = ["MINI", "Generation", "LlavaQwen2", "MessageError"]


def __getattr__(name: str) -> Any:
    if name in ("Generation", "LlavaQwen2"):
        from serving.llava import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
