"""A model without weights: it answers from what it is asked, and remembers how it was called."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Words:
    text: str
    prompt_tokens: int = 7
    completion_tokens: int = 3
    finish_reason: str = "stop"


class FakeModel:
    name = "fake-vlm"
    embedding_width = 8
    beta = 14.3
    threshold = 0.6
    criteria = ("color",)

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[str]]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def generate(self, conversations: list[Any], max_new_tokens: int, temperature: float = 0.0) -> list[Words]:
        asked = self._enter("generate", conversations)
        return [Words(f"you said {text} <CONCLUSION> NO </CONCLUSION>") for text in asked]

    def embed(self, conversations: list[Any]) -> np.ndarray:
        asked = self._enter("embed", conversations)
        rows = np.ones((len(asked), self.embedding_width), dtype=np.float32)
        rows[:, 0] = [len(text) for text in asked]
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def _enter(self, verb: str, conversations: list[Any]) -> list[str]:
        self.threads.add(threading.get_ident())
        asked = [words(conversation) for conversation in conversations]
        self.batches.append((verb, asked))
        self.entered.set()
        assert self.gate.wait(20)
        for text in asked:
            if "bad" in text:
                raise ValueError(f"can't read {text!r}")
            if "crash" in text:
                raise RuntimeError("secret inside of the model")
        return asked


def words(conversation: list[dict[str, Any]]) -> str:
    content = conversation[0]["content"]
    return content if isinstance(content, str) else content[0]["text"]


def load(model_path: Path | None, threads: int | None) -> FakeModel:
    return FakeModel()


def load_broken(model_path: Path | None, threads: int | None) -> FakeModel:
    from storage.errors import UsageError

    raise UsageError(f"the model {model_path} can't be loaded (half of it): install or export it again")


def load_crashing(model_path: Path | None, threads: int | None) -> FakeModel:
    raise KeyError("vision_tower.weight")


def load_dying(model_path: Path | None, threads: int | None) -> FakeModel:
    import os
    import sys

    print("Killed by a grumpy kernel", file=sys.stderr, flush=True)
    os._exit(9)
