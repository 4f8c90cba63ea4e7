"""A partition as a folder: one sub-folder for each cluster, and the pieces that other folders are made of."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from partita.file_names import FolderNames, safe_item, safe_name
from partita.members import COLUMNS, Member
from storage.errors import UsageError
from storage.items import Item, read_bytes

MANIFEST = "manifest.csv"
"""What lies beside the clusters' folders: which item each file is."""


def write_folders(members: Iterable[Member], to: Path, *, copy: bool = False) -> None:
    """Write `NUMBER NAME/` for every cluster, with its images, or its texts as .txt files, and `manifest.csv`.

    Args:
        copy: copy images into the folder instead of linking to them.

    Raises:
        UsageError: `to` is no new folder, a file is gone, or links can't be made there.
        OSError: the folder can't be written.
    """
    names: dict[int, FolderNames] = {}
    table = io.StringIO(newline="")
    manifest = csv.writer(table)
    manifest.writerow(("file", *COLUMNS))
    with new_folder(to) as folder:
        for member in members:
            inside = folder / f"{member.cluster:03d} {safe_name(member.name)}"
            inside.mkdir(exist_ok=True)
            name = names.setdefault(member.cluster, FolderNames()).free(file_name(member.item))
            place(member.item, inside / name, copy=copy)
            manifest.writerow((f"{inside.name}/{name}", *member.row))
        (folder / MANIFEST).write_text(table.getvalue(), encoding="utf-8", newline="")


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """A folder to fill, which is put at `to` when the block ends and it is whole, or not at all.

    An empty folder that is there already stays, and gets what is in it.

    Raises:
        UsageError: there is something at `to` already.
        OSError: it can't be made there.
    """
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise UsageError(f"--to {to}: is there already and not empty; choose a new folder")
    into = to if to.is_dir() else to.absolute().parent
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix=".partita-") as made:
        whole = Path(made) / "whole"
        whole.mkdir()  # with the rights of any new folder; one of tempfile's is its owner's alone
        yield whole
        if into == to:  # it may be somebody's working folder, or a drive's root: it stays
            for part in list(whole.iterdir()):
                part.rename(to / part.name)
        else:
            whole.rename(to)


def file_name(item: Item) -> str:
    """What an item's file is called in a folder."""
    return safe_item(item.name if item.text is None else f"{item.name}.txt")


def place(item: Item, target: Path, *, copy: bool) -> None:
    """Put an item at `target`: a text as a file, an image as a link to its file or a copy of it.

    Raises:
        UsageError: its file is gone, or not what it was, or the file system takes no links.
        OSError: it can't be written.
    """
    if item.path is None or copy:
        target.write_bytes(read_bytes(item))
        return
    source = item.path.resolve()
    if not source.is_file():
        raise UsageError(f"{source}: the file is gone; put it back, or export to .csv instead")
    try:
        target.symlink_to(source)
    except (OSError, NotImplementedError) as e:
        why = getattr(e, "strerror", None) or e
        raise UsageError(f"--to: no links can be made there ({why}); add --copy to copy the images") from None
