"""A partition as a dataset that Hugging Face's `datasets` reads: ImageFolder, or JSON lines for texts.

`datasets` is not needed to write it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from partita.file_names import FolderNames, safe_name
from partita.folders import file_name, new_folder, place
from partita.members import Member, class_names

METADATA = "metadata.jsonl"
_SPLITS = re.compile(
    r"(?<![^-._ 0-9])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?![^-._ 0-9])"
)
"""Words that, in a folder's name, make another split of what lies in it; in capitals they do not."""


def write_imagefolder(members: Iterable[Member], to: Path, *, copy: bool = False) -> None:
    """Write `train/CLASS/FILE` and `train/metadata.jsonl`; texts as `train.jsonl`.

    A row has `label` (the cluster's name, `partita.members.class_names`), `cluster` (its number), `item`, `confidence`
    where there is one, and `file_name`, or `text`.

    Raises:
        UsageError, OSError: as `partita.folders.write_folders`.
    """
    members = list(members)
    labels = class_names(members)
    texts = any(member.item.text is not None for member in members)
    with new_folder(to) as folder:
        if texts:
            _write_rows(folder / "train.jsonl", [{"text": m.item.text} | _facts(m, labels) for m in members])
            return
        classes, folders, names = FolderNames([METADATA]), dict[int, Path](), dict[int, FolderNames]()
        rows = []
        (folder / "train").mkdir()
        for m in members:
            if m.cluster not in folders:
                folders[m.cluster] = folder / "train" / classes.free(_class_folder(m.name))
                folders[m.cluster].mkdir()
            name = names.setdefault(m.cluster, FolderNames()).free(file_name(m.item))
            place(m.item, folders[m.cluster] / name, copy=copy)
            rows.append({"file_name": f"{folders[m.cluster].name}/{name}"} | _facts(m, labels))
        _write_rows(folder / "train" / METADATA, rows)


def _facts(member: Member, labels: Mapping[int, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"label": labels[member.cluster], "cluster": member.cluster, "item": member.item.name}
    return facts if member.confidence is None else facts | {"confidence": member.confidence}


def _class_folder(name: str) -> str:
    return _SPLITS.sub(lambda word: word[0].upper(), safe_name(name))


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
