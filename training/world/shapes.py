"""Outlines drawn into masks: suit symbols, letters, rounded rectangles. All coordinates are in pixels of the mask."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

Point = tuple[float, float]


def heart_outline(width: float, height: float) -> list[Point]:
    """The classic heart curve scaled to fill (width, height)."""
    t = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    x = (x - x.min()) / (x.max() - x.min()) * (width - 1)
    y = (y - y.min()) / (y.max() - y.min()) * (height - 1)
    return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]


@lru_cache(maxsize=64)
def suit_mask(suit: str, height: int, plump: float = 1.0) -> Image.Image:
    """Mask (L) of a suit symbol, `height` pixels high; `plump` widens it."""
    scale = 3
    h = height * scale
    w = int(h * {"hearts": 0.98, "diamonds": 0.78, "clubs": 1.0, "spades": 0.92}[suit] * plump)
    mask = Image.new("L", (w, h), 0)
    draw = ImageDraw.Draw(mask)
    if suit == "hearts":
        draw.polygon(heart_outline(w, h), fill=255)
    elif suit == "diamonds":
        bend = 0.07
        corners = [(w / 2, 0), (w - 1, h / 2), (w / 2, h - 1), (0, h / 2)]
        points: list[Point] = []
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
            points += [a, (middle[0] + (w / 2 - middle[0]) * bend * 2, middle[1] + (h / 2 - middle[1]) * bend * 2)]
        draw.polygon(points, fill=255)
    elif suit == "clubs":
        r = 0.265 * h
        for cx, cy in ((w / 2, r), (r * w / h, 0.56 * h), (w - r * w / h, 0.56 * h)):
            draw.ellipse((cx - r * w / h, cy - r, cx + r * w / h, cy + r), fill=255)
        draw.ellipse((w * 0.36, h * 0.36, w * 0.64, h * 0.64), fill=255)
        draw.polygon([(w * 0.5, h * 0.4), (w * 0.71, h - 1), (w * 0.29, h - 1)], fill=255)
    else:
        top = int(h * 0.80)
        draw.polygon([(x, top - 1 - y) for x, y in heart_outline(w, top)], fill=255)
        draw.polygon([(w * 0.5, h * 0.45), (w * 0.72, h - 1), (w * 0.28, h - 1)], fill=255)
    return mask.resize((max(1, w // scale), height), Image.Resampling.BOX)


@lru_cache(maxsize=256)
def glyph_mask(text: str, height: int, stroke: int = 0, aspect: float = 1.0, shear: float = 0.0) -> Image.Image:
    """Mask (L) of a text cut to its ink, `height` pixels high; `stroke` in hundredths of the height thickens it."""
    font = ImageFont.load_default(200)
    canvas = Image.new("L", (520, 420), 0)
    ImageDraw.Draw(canvas).text((80, 60), text, fill=255, font=font, stroke_width=stroke)
    if shear:
        canvas = canvas.transform(
            canvas.size, Image.Transform.AFFINE, (1, shear, -shear * 200, 0, 1, 0), Image.Resampling.BILINEAR
        )
    box = canvas.getbbox()
    assert box is not None, f"no ink in {text!r}"
    ink = canvas.crop(box)
    squeeze = 0.74 if len(text) > 1 else 1.0
    width = max(1, round(ink.width / ink.height * height * aspect * squeeze))
    return ink.resize((width, height), Image.Resampling.LANCZOS)


def rounded_rectangle(size: tuple[int, int], radius: float, inset: float = 0) -> Image.Image:
    """Antialiased mask (L) of a rounded rectangle filling `size` less `inset`."""
    w, h = size
    mask = Image.new("L", (w * 2, h * 2), 0)
    box = (inset * 2, inset * 2, w * 2 - 1 - inset * 2, h * 2 - 1 - inset * 2)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius * 2, fill=255)
    return mask.resize(size, Image.Resampling.BOX)


def stamp(image: Image.Image, mask: Image.Image, center: Point, color: tuple[int, int, int]) -> None:
    """Paint `mask` in `color` onto the picture, centred at `center`."""
    image.paste(color, (round(center[0] - mask.width / 2), round(center[1] - mask.height / 2)), mask)


def turned(mask: Image.Image) -> Image.Image:
    """The mask rotated by half a turn."""
    return mask.transpose(Image.Transpose.ROTATE_180)


def intersect(a: Image.Image, b: Image.Image) -> Image.Image:
    """The smaller of two masks, pixel by pixel."""
    return ImageChops.darker(a, b)
