"""The folder that a training goes into: of which training it is, and whose it is now (`OUT/training`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.artefacts import write_file
from storage.errors import UsageError
from storage.filelock import FileLock
from storage.items import Collection
from training.recipe import MAY_CHANGE

ORDER, LABELS, LOCK = "order.json", "labels.json", "lock"
"""What is trained; what labels said of each item, by content hash; held while a process trains."""
_BEGUN = ("state.safetensors", "held_out.json")
_TAKEN = "another process trains into {out} now: wait for it, or give another --out"


def check_folder(out: Path, told: Mapping[str, Any]) -> None:
    """That a training which is told of so may go into `out`. One that was ordered and has learnt nothing makes room.

    Raises:
        UsageError: `out` holds another training, or something else, or lies in the collection; or somebody trains into
            it.
    """
    collection = Path(told["collection"])
    if collection.is_dir() and out.resolve().is_relative_to(collection):
        raise UsageError(
            f"--out {out} lies in the collection, and what is written there would be taken for items: give a folder "
            "beside it"
        )
    folder = out / "training"
    if FileLock(folder / LOCK).held():
        raise UsageError(_TAKEN.format(out=out))
    path = folder / ORDER
    if not path.exists():
        # Of several processes another one may have made `training` just now.
        if out.exists() and (not out.is_dir() or any(p != folder for p in out.iterdir())):
            raise UsageError(f"{out} exists and holds no training: give another --out, or empty it")
        return
    begun = _read(path)
    other = [name for name in told if name != "recipe" and begun.get(name) != told[name]]
    before, now = begun.get("recipe"), told["recipe"]
    before = before if isinstance(before, dict) else {}
    if settings := [name for name in now if name not in MAY_CHANGE and before.get(name) != now[name]]:
        other.append(f"recipe ({', '.join(settings)})")
    if not other:
        return
    if not _is_blank(folder):
        raise UsageError(
            f"{out} holds a training with another {' and '.join(other)}: give the same to go on with it, or "
            "another --out"
        )


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Nobody else trains into `out` meanwhile.

    Raises:
        UsageError: somebody does.
    """
    lock = FileLock(out / "training" / LOCK)
    try:
        lock.path.parent.mkdir(parents=True, exist_ok=True)
        is_ours = lock.acquire()
    except OSError as error:
        raise UsageError(f"{out} can't be written ({error.strerror}): give another --out") from None
    if not is_ours:
        raise UsageError(_TAKEN.format(out=out))
    try:
        yield
    finally:
        lock.release()


def begin(out: Path, told: Mapping[str, Any], values: Mapping[str, str], found: Collection) -> None:
    """Write down of which training `out` is from now on, once it is held.

    Args:
        values: what labels say, by content hash; empty where a model teaches.

    Raises:
        UsageError: labels say something else of an item than when it was first learnt from, or what they said can't be
            read.
    """
    folder = out / "training"
    order, path = folder / ORDER, folder / LABELS
    if order.exists() and _is_blank(folder) and _read(order) != told:
        for name in (LABELS, "held_out_items.json", "traversals.jsonl"):
            (folder / name).unlink(missing_ok=True)
    before = _read(path) if path.exists() else {}
    others = [
        item
        for item in found.items
        if item.content_hash in before and before[item.content_hash] != values.get(item.content_hash)
    ]
    if others:
        was, now = (said[others[0].content_hash] for said in (before, values))
        raise UsageError(
            f"the labels of {len(others)} items have changed since this training began, that of {others[0].name} from "
            f"{was!r} to {now!r}: put them back to go on, or give another --out"
        )
    if values:
        write_file(path, json.dumps({**before, **values}, indent=1).encode())
    write_file(order, json.dumps(told, indent=1).encode())


def _is_blank(folder: Path) -> bool:
    """Whether nothing is measured or learnt yet."""
    return not any((folder / name).exists() for name in _BEGUN)


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read ({error}): give another --out") from None
    if not isinstance(told, dict):
        raise UsageError(f"{path} is damaged: give another --out")
    return told
