"""What a model folder says of its model in `partita.json`; read without torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import UsageError

ABOUT = "partita.json"
SUPERVISED = "supervised"
"""Stands in the name of a model that learnt from labels: so whatever it answers says it, wherever it is served."""


def is_supervised(name: str) -> bool:
    """Whether a model's name says that it learnt from labels; "unsupervised" does not."""
    return re.search(rf"\b{SUPERVISED}\b", name) is not None


@dataclass(frozen=True)
class About:
    """What a folder says of its model in `partita.json`."""

    name: str
    criteria: tuple[str, ...] = ()
    """What it was trained to see; empty: anything."""
    threshold: float | None = None
    """τ of METHOD 3; None for a head that nobody trained."""
    one_candidate: bool = False
    """It was trained on questions about one candidate: several are put to it one by one."""
    base: str | None = None
    """A checkpoint's base folder, relative to its own."""


def read_about(folder: Path) -> About:
    """`partita.json`; for a folder without one, its name.

    Raises:
        UsageError: it can't be read, or is of a format that this version does not know.
    """
    path = folder / ABOUT
    if not path.is_file():
        return About(folder.resolve().name)
    try:
        told = read_object(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"the model in {folder} is damaged ({error}): copy or export it again") from None
    if told.get("format") not in (1, 2):
        raise UsageError(f"{folder} holds weights of format {told.get('format')!r}; this version reads 1 and 2")
    threshold = told.get("threshold")
    return About(
        name=str(told.get("name") or folder.resolve().name),
        criteria=tuple(map(str, told.get("criteria") or ())),
        threshold=float(threshold) if isinstance(threshold, int | float) else None,
        one_candidate=bool(told.get("one_candidate", told["format"] == 1)),
        base=str(told["base"]) if told.get("base") else None,
    )


def reads_texts(folder: Path) -> bool:
    """Whether the model judges texts too; one with partita-mini's vision tower knows nothing but what it sees."""
    try:
        vision = read_object(folder / "config.json").get("vision_config") or {}
    except (OSError, ValueError):
        return True  # a LoRA checkpoint, or what loading it will tell
    return not isinstance(vision, dict) or vision.get("model_type") != "partita_tower"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    told = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(told, dict):
        raise UsageError(f"{path} is no JSON object: copy or export the model again")
    return told
