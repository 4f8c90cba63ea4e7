"""A partition as one picture: a row of thumbnails for every cluster."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from partita.result import Result
from storage.artefacts import write_file
from storage.errors import UsageError

_INK, _FAINT, _PAPER = (32, 32, 36), (120, 120, 128), (250, 250, 248)
_MARGIN, _GAP, _LABEL = 24, 6, 150


def check_picture(to: Path) -> None:
    """Refuse a place that no PNG can be written to.

    Raises:
        UsageError: the name ends otherwise, or the folder can't be written to.
    """
    if to.suffix.lower() != ".png":
        raise UsageError(f"--picture {to}: it is drawn as PNG; give a name that ends in .png")
    if not os.access(to.absolute().parent, os.W_OK):
        raise UsageError(f"--picture {to}: there is no such folder, or it can't be written to")


def write_picture(result: Result, collection: Path, to: Path, *, thumbnail: int = 88, columns: int = 9) -> Path:
    """Write a contact sheet of the clusters as PNG.

    Raises:
        UsageError: there is no partition yet, or the items are texts.
    """
    result.require_clusters()
    root = collection if collection.is_dir() else collection.parent
    shown = result.clusters[:40]
    title, text = ImageFont.load_default(22), ImageFont.load_default(15)
    width = 2 * _MARGIN + _LABEL + columns * (thumbnail + _GAP)
    height = 2 * _MARGIN + 44 + len(shown) * (thumbnail + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), f"{result.items} items by “{result.criterion}”", font=title, fill=_INK)
    for row, cluster in enumerate(shown):
        top = _MARGIN + 44 + row * (thumbnail + _GAP)
        draw.text((_MARGIN, top + thumbnail // 2 - 18), _short(cluster.name), font=text, fill=_INK)
        draw.text((_MARGIN, top + thumbnail // 2 + 2), f"{cluster.size} items", font=text, fill=_FAINT)
        for column, item in enumerate(cluster.items[:columns]):
            at = (_MARGIN + _LABEL + column * (thumbnail + _GAP), top)
            sheet.paste(_thumbnail(root / item, thumbnail), at)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    try:
        write_file(to, out.getvalue())
    except OSError as e:
        raise UsageError(f"{to}: {e.strerror or e}; choose another place for the picture") from None
    return to


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


def _thumbnail(path: Path, side: int) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * side, 2 * side))
            return ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (side, side))
    except OSError:
        raise UsageError(f"{path}: is no image any more, or the items are texts; there is nothing to draw") from None
