"""Collections: what there is to cluster, each item checked once and named for good (CONTRACT 3).

A collection is a folder of images, or a `.csv`, `.jsonl` or `.parquet` table with a `file` column (images, relative
to the table) or a `text` column. `scan` reads every item, really decodes every image, and hashes its content; what
can't be used is listed under `failed` and never stops the rest. Nothing outside the collection's folder is read,
whatever a table or a link says.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from storage.errors import CollectionError
from storage.images import MAX_PIXELS, Undecodable, opened, quiet
from storage.rows import TABLE_SUFFIXES, read_rows

Kind = Literal["image", "text"]
Progress = Callable[[int, int], None]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".pbm"}
)
MAX_BYTES = 512 * 1024 * 1024

_ELSEWHERE = re.compile(
    r"[\s\x00-\x20]*(?:[a-z][a-z0-9+.-]*:(?://|\\\\|%2f%2f)"
    r"|(?:file|data|blob|https?|s?ftps?|smb|nfs|s3|gs|gopher|ldap|jar)(?::|%3a))",
    re.IGNORECASE,
)
"""Nothing is ever fetched; this is to say so, of all that some program or other would take for a URL."""
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")


@dataclass(frozen=True, slots=True)
class Item:
    """One usable item: `name` is unique in its collection, `path` is where an image lies, `text` what a text says."""

    name: str
    content_hash: str
    kind: Kind
    text: str | None = None
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class FailedItem:
    """One item that can't be used, and why, in words for the user."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Collection:
    """What `scan` found. `root` is the folder that names are relative to (a table's own folder)."""

    root: Path
    items: tuple[Item, ...]
    failed: tuple[FailedItem, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemRow:
    """An item as the database holds it; `why` is set for a failed one, `node` for one that is in the graph."""

    position: int
    name: str
    content_hash: str | None
    kind: Kind | None
    text: str | None
    node: int | None
    why: str | None


def scan(
    path: str | Path, progress: Progress | None = None, *, max_pixels: int = MAX_PIXELS, threads: int = 4
) -> Collection:
    """Read and check the collection at `path`; `progress(done, total)` is called from this thread.

    Items of a folder are sorted by name, those of a table keep its order. An image of more than `max_pixels` pixels
    is refused before it is decoded.

    Raises:
        CollectionError: there is no such collection, its table is damaged or has no usable column, or fewer than two
            items are usable.
    """
    source = Path(path)
    try:
        root = source.resolve(strict=True)
    except (OSError, RuntimeError):
        raise CollectionError(
            f"There is no collection at {source}: give a folder of images, or a .csv, .jsonl or .parquet file."
        ) from None
    if _printable(str(root)) != str(root):
        raise CollectionError(f"The path {_printable(str(root))} is not valid UTF-8: rename the folder.")
    if root.is_dir():
        found = _scan_folder(root, progress, max_pixels, threads)
        sought = f"images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {source} and its sub-folders"
    elif root.suffix.lower() in TABLE_SUFFIXES or source.suffix.lower() in TABLE_SUFFIXES:
        found = _scan_table(root, source, progress, max_pixels, threads)
        sought = f"rows of {source}"
    else:
        raise CollectionError(
            f"{source} is no collection: give a folder of images, or a .csv, .jsonl or .parquet file"
            + (" (for one image: the folder that holds it)." if root.suffix.lower() in IMAGE_SUFFIXES else ".")
        )
    return _enough(found, source, sought)


def read_bytes(item: Item, root: Path | None = None) -> bytes:
    """The item's content again (UTF-8 for a text), checked against the hash taken when the session started.

    With `root`, nothing is read that a link has meanwhile taken out of that folder.

    Raises:
        CollectionError: the file is gone, can't be read, or is not the file it was.
    """
    if item.path is None:
        content = (item.text or "").encode()
    else:
        try:
            status = item.path.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                raise _changed(item)  # reading a pipe or a device may have no end
            if root is not None and not _inside(root.resolve(), item.path):
                raise _changed(item)
            content = item.path.read_bytes()
        except OSError as error:
            raise CollectionError(
                f"{item.name} can't be read any more ({error.strerror or error}): "
                f"put it back at {item.path}, or start a new session."
            ) from error
    if hashlib.sha256(content).hexdigest() != item.content_hash:
        raise _changed(item)
    return content


def _changed(item: Item) -> CollectionError:
    return CollectionError(
        f"{item.name} has changed since the session started: put the old file back, or start a new session."
    )


def collection_from_rows(root: str | Path, rows: Iterable[ItemRow]) -> Collection:
    """The collection of a stored session. `root` is the collection's path as the session records it, folder or table.

    Items are not touched: `read_bytes` checks each one when it is needed. A path that is gone was a table if it has a
    table's suffix.
    """
    root = Path(root)
    is_table = root.suffix.lower() in TABLE_SUFFIXES if not root.exists() else not root.is_dir()
    folder = root.parent if is_table else root
    items: list[Item] = []
    failed: list[FailedItem] = []
    for row in sorted(rows, key=lambda row: row.position):
        if row.content_hash is None or row.kind is None:
            failed.append(FailedItem(row.name, row.why or "unusable"))
        else:
            path = folder / row.name if row.kind == "image" else None
            items.append(Item(row.name, row.content_hash, row.kind, row.text, path))
    return Collection(folder, tuple(items), tuple(failed))


def _enough(found: Collection, source: Path, sought: str) -> Collection:
    first = f" First: {found.failed[0].name}: {found.failed[0].why}." if found.failed else ""
    if not found.items and not found.failed:
        raise CollectionError(f"There is nothing to cluster in {source}: looked for {sought}.")
    if not found.items:
        raise CollectionError(f"None of the {len(found.failed)} {sought} can be used.{first}")
    if len(found.items) == 1:
        raise CollectionError(
            f"Only one usable item in {source} ({found.items[0].name}); clustering needs at least two "
            f"(looked at {sought}; {len(found.failed)} can't be used).{first}"
        )
    return found


# -- folders ----------------------------------------------------------------------------------------------------------


def _scan_folder(root: Path, progress: Progress | None, max_pixels: int, threads: int) -> Collection:
    failed: list[FailedItem] = []
    names: list[str] = []
    for relative, why in sorted(_walk(root)):
        if why is not None:
            failed.append(FailedItem(_printable(relative), why))
        elif _printable(relative) != relative:
            failed.append(FailedItem(_printable(relative), "its name is not valid UTF-8: rename it"))
        else:
            names.append(relative)
    items, bad = _read_images(root, names, progress, max_pixels, threads)
    return Collection(root, tuple(items), tuple(sorted([*failed, *bad], key=lambda item: item.name)))


def _walk(root: Path) -> Iterator[tuple[str, str | None]]:
    """Names of the image files under `root`, with a reason for what can't be looked into; hidden ones are skipped."""
    unreadable: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=unreadable.append):
        inside = os.path.relpath(folder, root)
        prefix = "" if inside == os.curdir else Path(inside).as_posix() + "/"
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            linked = Path(folder, name)
            # A link to a folder inside the collection adds nothing, and walking it could go round in circles.
            if linked.is_symlink() and not _inside(root, linked):
                yield prefix + name, "it is a link that leads outside the collection"
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield prefix + name, None
    for error in unreadable:
        where = os.path.relpath(error.filename, root)
        if where == os.curdir:
            raise CollectionError(f"{root} can't be read ({error.strerror}): check its permissions.")
        yield Path(where).as_posix(), f"the folder can't be read ({error.strerror})"


def _inside(root: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except RuntimeError:  # links that go round in circles lead nowhere, which reading the file will tell
        return True


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# -- tables -----------------------------------------------------------------------------------------------------------


def _scan_table(table: Path, source: Path, progress: Progress | None, max_pixels: int, threads: int) -> Collection:
    column, values = read_rows(table, source)
    if column == "text":
        return _texts(table.parent, values, progress)
    order: dict[str, int] = {}
    failed: list[tuple[int, FailedItem]] = []
    for number, value in enumerate(values, 1):
        name, why = _file_name(value, number)
        if why is None and name in order:
            why = f"row {number} names it again: it is kept once"
        if why is None:
            order[name] = number
        else:
            failed.append((number, FailedItem(name, why)))
    items, bad = _read_images(table.parent, list(order), progress, max_pixels, threads)
    failed += [(order[item.name], item) for item in bad]
    failed.sort(key=lambda pair: pair[0])
    return Collection(table.parent, tuple(items), tuple(item for _, item in failed))


def _file_name(value: object, number: int) -> tuple[str, str | None]:
    """The item's name for one cell of a `file` column, and why it is refused, if it is."""
    if value is None or value == "" or (isinstance(value, str) and not value.strip()):
        return f"row {number}", "the row names no file"
    if not isinstance(value, str):
        return f"row {number}", f"the file name is a {type(value).__name__}, not a text"
    shown = value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    if shown != value:
        return shown, "the file name holds characters that no file name can"
    if _ELSEWHERE.match(value):
        return shown, "it is a URL: only files beside the table are read"
    if value.startswith(("/", "~")) or _DRIVE.match(value):
        return shown, "it is an absolute path: names are relative to the table"
    name = posixpath.normpath(value)
    if name == ".." or name.startswith("../"):
        return shown, "it leads outside the table's folder"
    return name, None


def _texts(root: Path, values: list[object], progress: Progress | None) -> Collection:
    items: list[Item] = []
    failed: list[FailedItem] = []
    for number, value in enumerate(values, 1):
        name = f"row {number}"
        why = None
        if value is None or (isinstance(value, str) and not value.strip()):
            why = "the text is empty"
        elif not isinstance(value, str):
            why = f"the text is a {type(value).__name__}, not a text"
        elif "\0" in value:
            why = "the text holds a NUL character"
        else:
            try:
                items.append(Item(name, hashlib.sha256(value.encode()).hexdigest(), "text", text=value))
            except UnicodeEncodeError:
                why = "the text is not valid Unicode"
        if why is not None:
            failed.append(FailedItem(name, why))
        if progress is not None and (number % 1000 == 0 or number == len(values)):
            progress(number, len(values))
    return Collection(root, tuple(items), tuple(failed))


# -- images -----------------------------------------------------------------------------------------------------------


def _read_images(
    root: Path, names: list[str], progress: Progress | None, max_pixels: int, threads: int
) -> tuple[list[Item], list[FailedItem]]:
    from PIL import Image

    Image.init()  # not thread-safe on first use
    items: list[Item] = []
    failed: list[FailedItem] = []

    def read(name: str) -> Item | FailedItem:
        return _read_image(root, name, max_pixels)

    with quiet(), ThreadPoolExecutor(max(1, min(threads, len(names)))) as pool:
        try:
            for done, item in enumerate(pool.map(read, names), 1):
                if isinstance(item, Item):
                    items.append(item)
                else:
                    failed.append(item)
                if progress is not None:
                    progress(done, len(names))
        except BaseException:  # Ctrl-C must not wait for thousands of files
            pool.shutdown(cancel_futures=True)
            raise
    return items, failed


def _read_image(root: Path, name: str, max_pixels: int) -> Item | FailedItem:
    path = root / name
    try:
        if not _inside(root, path):
            return FailedItem(name, "it is a link that leads outside the collection")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return FailedItem(name, "it is not a regular file")
        if status.st_size == 0:
            return FailedItem(name, "the file is empty")
        if status.st_size > MAX_BYTES:
            return FailedItem(name, f"the file is larger than {MAX_BYTES >> 20} MiB")
        content = path.read_bytes()
    except FileNotFoundError:
        return FailedItem(name, "a link that leads nowhere" if path.is_symlink() else "there is no such file")
    except OSError as error:
        return FailedItem(name, f"it can't be read ({error.strerror or error})")
    try:
        with opened(content, max_pixels) as image:
            width, height = image.size
            # A reduced JPEG still passes through all of its data, so a truncated one is found at an eighth of the cost.
            image.draft(None, (max(1, width // 8), max(1, height // 8)))
            image.load()
    except Undecodable as why:
        return FailedItem(name, str(why))
    return Item(name, hashlib.sha256(content).hexdigest(), "image", path=path)
