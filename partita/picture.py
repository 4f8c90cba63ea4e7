"""A partition as one picture: a row of thumbnails for every cluster, of cards with their beginnings for texts."""

from __future__ import annotations

import io
import os
import unicodedata
from contextlib import suppress
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from partita.excerpts import excerpt
from partita.result import Result
from storage.artefacts import write_file
from storage.errors import UsageError

_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
_INK, _FAINT, _PAPER, _CARD = (32, 32, 36), (120, 120, 128), (250, 250, 248), (255, 255, 255)
_MARGIN, _GAP, _LABEL = 24, 6, 150
_WIDE = 3
"""Thumbnails that a card takes the place of."""
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")
"""Fonts of many alphabets, of which most machines have one; Pillow's own has little more than ASCII."""


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
        UsageError: there is no partition yet, or an image is gone.
    """
    result.require_clusters()
    root = collection if collection.is_dir() else collection.parent
    shown = result.clusters[:40]
    title, text = _font(22), _font(15)
    width = 2 * _MARGIN + _LABEL + columns * (thumbnail + _GAP)
    height = 2 * _MARGIN + 44 + len(shown) * (thumbnail + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    heading = f"{result.items} items by “{result.criterion}”"
    draw.text((_MARGIN, _MARGIN), _drawable(heading, title), font=title, fill=_INK)
    for row, cluster in enumerate(shown):
        top = _MARGIN + 44 + row * (thumbnail + _GAP)
        draw.text((_MARGIN, top + thumbnail // 2 - 18), _drawable(_short(cluster.name), text), font=text, fill=_INK)
        draw.text((_MARGIN, top + thumbnail // 2 + 2), f"{cluster.size} items", font=text, fill=_FAINT)
        step = _WIDE if result.texts else 1
        for column, item in zip(range(0, columns, step), cluster.items, strict=False):
            left = _MARGIN + _LABEL + column * (thumbnail + _GAP)
            if item in result.texts:
                _draw_card(draw, result.texts[item], (left, top), step * (thumbnail + _GAP) - _GAP, thumbnail)
            else:
                sheet.paste(_thumbnail(root / item, thumbnail), (left, top))
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    try:
        write_file(to, out.getvalue())
    except OSError as e:
        raise UsageError(f"{to}: {e.strerror or e}; choose another place for the picture") from None
    return to


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


@cache
def _font(size: int) -> _Font:
    for name in _FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def _drawable(text: str, font: _Font) -> str:
    """The text without its accents, if the font is Pillow's own, which has none."""
    if isinstance(font, ImageFont.FreeTypeFont) and isinstance(font.path, str):
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _thumbnail(path: Path, side: int) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * side, 2 * side))
            return ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (side, side))
    except OSError:
        raise UsageError(f"{path}: is no image any more; put it back to have it drawn") from None


def _draw_card(draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], width: int, height: int) -> None:
    left, top = at
    font = _font(11)
    draw.rectangle((left, top, left + width, top + height), fill=_CARD, outline=(222, 222, 220))
    lines, room = _wrapped(draw, _drawable(excerpt(text, 600), font), font, width - 24), (height - 8) // 13
    if len(lines) > room:
        lines[room - 1] += " …"  # there is room for it beside the longest line
    for number, line in enumerate(lines[:room]):
        draw.text((left + 6, top + 4 + 13 * number), line, font=font, fill=_INK)


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: _Font, width: int) -> list[str]:
    """The text in lines that fit; broken between words, or anywhere in a word that is too long or has no blanks."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if draw.textlength(longer, font) <= width:
            lines[-1] = longer
            continue
        lines.append("")
        for character in word:
            if draw.textlength(lines[-1] + character, font) > width:
                lines.append("")
            lines[-1] += character
    return [line for line in lines if line]
