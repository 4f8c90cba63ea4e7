"""Pictures on cards: court figures in many styles, and illustrations that mean nothing.

Drawn coarse, once in a process, from a bank; a card takes one, mirrored and recoloured. Their only purpose is that
nothing but index and pips tells a card.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

COURTS = 72
ILLUSTRATIONS = 160
_W, _H = 120, 150

Color = tuple[int, int, int]

_PLAIN: tuple[Color, ...] = (
    (200, 30, 40), (30, 60, 150), (235, 190, 40), (20, 20, 25), (250, 250, 245), (40, 120, 70), (240, 215, 180),
    (120, 70, 40), (90, 160, 210), (150, 60, 130),
)  # fmt: skip


def _palette(rng: np.random.Generator) -> list[Color]:
    """Colours of one picture: the classic few, greys, or any."""
    kind = rng.random()
    if kind < 0.5:
        order = rng.permutation(len(_PLAIN))[: int(rng.integers(3, 7))]
        return [_PLAIN[i] for i in order]
    if kind < 0.75:
        return [(v, v, v) for v in (255, 255, 20, int(rng.integers(60, 220)))]
    return [tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in range(int(rng.integers(3, 7)))]  # type: ignore[misc]


@lru_cache(maxsize=3 * COURTS)
def court(rank: str, number: int) -> Image.Image:
    """A jack, queen or king (RGB, 120 x 150 pixels): the upper half of a mirrored card, or a whole bust."""
    rng = np.random.default_rng([23, number, len(rank), ord(rank[0])])
    colors = _palette(rng)
    line: Color = (15, 15, 20) if rng.random() < 0.8 else colors[0]
    art = rng.random()
    face: Color = (255, 255, 255) if rng.random() < 0.5 else (240, 210, 180)
    bare = art < 0.3
    paper: Color = (255, 255, 255) if rng.random() < 0.6 else colors[int(rng.integers(len(colors)))]
    picture = Image.new("RGB", (_W, _H), paper)
    draw = ImageDraw.Draw(picture)
    thick = int(rng.integers(1, 4))

    def color() -> Color:
        return (255, 255, 255) if bare and rng.random() < 0.8 else colors[int(rng.integers(len(colors)))]

    def shape(points: list[tuple[float, float]], fill: Color | None = None) -> None:
        at = [(x * _W, y * _H) for x, y in points]
        draw.polygon(at, fill=fill or color())
        draw.line([*at, at[0]], fill=line, width=thick)

    def ball(x: float, y: float, rx: float, ry: float, fill: Color) -> None:
        draw.ellipse(((x - rx) * _W, (y - ry) * _H, (x + rx) * _W, (y + ry) * _H), fill=fill, outline=line, width=thick)

    u = rng.uniform
    x, y, r = float(u(0.4, 0.6)), float(u(0.34, 0.46)), float(u(0.10, 0.17))
    broad = float(u(0.38, 0.6))
    shoulder = y + r * 1.15
    # Robe: a body, panels, bands and rows of ornaments.
    shape([(x - 0.12, shoulder), (x + 0.12, shoulder), (x + broad, shoulder + 0.18), (x + broad, 1.0),
           (x - broad, 1.0), (x - broad, shoulder + 0.18)])  # fmt: skip
    for _ in range(int(rng.integers(3, 13))):
        a, b, wide = float(u(x - broad, x + broad)), float(u(x - broad, x + broad)), float(u(0.03, 0.13))
        shape(
            [(a, shoulder + float(u(0.05, 0.3))), (a + wide, shoulder + float(u(0.05, 0.3))), (b + wide, 1.0), (b, 1.0)]
        )
    for _ in range(int(rng.integers(1, 9))):
        begin, step, fill = (float(u(x - broad, x + broad)), float(u(shoulder + 0.1, 1.0))), u(-0.06, 0.06, 2), color()
        for k in range(int(rng.integers(3, 9))):
            ball(begin[0] + step[0] * k, begin[1] + step[1] * k, 0.022, 0.018, fill)
    for _ in range(int(rng.integers(0, 8))):
        a0, b0 = float(u(0, 1)), float(u(shoulder, 1))
        for k in range(int(rng.integers(2, 7))):
            draw.line([(a0 * _W + 4 * k, b0 * _H), (a0 * _W + 4 * k + 14, b0 * _H + 22)], fill=line, width=thick)
    hair = colors[int(rng.integers(len(colors)))]
    long = float(u(0.2, 0.35) if rank == "queen" else u(0.02, 0.2))
    if rng.random() < 0.85:
        shape([(x - r * 1.35, y - r), (x + r * 1.35, y - r), (x + r * 1.7, y + long), (x - r * 1.7, y + long)], hair)
    ball(x, y, r, r * 1.05, face)
    if (rank == "king" and rng.random() < 0.85) or rng.random() < 0.03:
        shape([(x - r, y + r * 0.25), (x + r, y + r * 0.25), (x + r * 0.5, y + r * float(u(1.3, 2.2))),
               (x - r * 0.5, y + r * float(u(1.3, 2.2)))], hair)  # fmt: skip
    for side in (-1, 1):
        dot = (x + side * r * 0.4) * _W, (y - r * 0.1) * _H
        draw.ellipse((dot[0] - 2, dot[1] - 2, dot[0] + 2, dot[1] + 2), fill=line)
    draw.line([(x * _W, (y - 0.02) * _H), (x * _W - 2, (y + r * 0.4) * _H)], fill=line, width=1)
    draw.line(
        [((x - 0.03) * _W, (y + r * 0.6) * _H), ((x + 0.03) * _W, (y + r * 0.6) * _H)], fill=(180, 30, 30), width=2
    )
    brow, high = y - r * 0.75, float(u(0.10, 0.22))
    if rank == "jack":
        shape(
            [
                (x - r * 1.5, brow),
                (x - r * 1.3, brow - high * 0.6),
                (x + r * 1.3, brow - high * 0.6),
                (x + r * 1.5, brow),
            ]
        )
        if rng.random() < 0.6:
            shape([(x + r, brow - 0.02), (x + r * 2.2, brow - high), (x + r * 1.6, brow - 0.01)])
    else:
        points = int(rng.integers(3, 6)) if rank == "king" else int(rng.integers(3, 7))
        width, high = r * float(u(1.0, 1.6)), high * (1.0 if rank == "king" else 0.7)
        rim = [(x - width, brow)]
        for k in range(points):
            rim += [(x - width * 1.2 + 2.4 * width * (k + 0.5) / points, brow - high),
                    (x - width + 2 * width * (k + 1) / points, brow - high * 0.3)]  # fmt: skip
        shape([*rim, (x + width, brow)], colors[0] if rng.random() < 0.5 else (230, 185, 50))
    for side in (-1, 1):
        if rng.random() < 0.6:
            a, b = x + side * float(u(0.22, 0.42)), float(u(0.05, 0.4))
            draw.line([(a * _W, b * _H), ((a + float(u(-0.08, 0.08))) * _W, _H)], fill=line, width=thick + 3)
            ball(a, b, 0.05, 0.045, color())
            ball(a, float(u(0.6, 0.8)), 0.05, 0.04, face)
    return picture


@lru_cache(maxsize=ILLUSTRATIONS)
def illustration(number: int) -> Image.Image:
    """A picture without meaning (RGB, 120 x 150): scribbles, silhouettes, a rosette, a clouded scene, ornaments."""
    rng = np.random.default_rng([29, number])
    colors = _palette(rng)
    paper: Color = (255, 255, 255)
    picture = Image.new("RGB", (_W, _H), paper)
    draw = ImageDraw.Draw(picture)

    def color() -> Color:
        return colors[int(rng.integers(len(colors)))]

    family = number % 6
    if family == 0:
        # A silhouette: discs along a path, and lines.
        for _ in range(int(rng.integers(3, 9))):
            at, radius, fill = rng.uniform(0.25, 0.75, 2), float(rng.uniform(0.05, 0.22)), color()
            step = rng.uniform(-0.07, 0.07, 2)
            for k in range(int(rng.integers(1, 7))):
                cx, cy = at + k * step
                draw.ellipse(
                    ((cx - radius) * _W, (cy - radius) * _H, (cx + radius) * _W, (cy + radius) * _H), fill=fill
                )
                radius *= 0.85
    elif family == 1:
        fold, ink = int(rng.integers(4, 13)), color()
        for ring in range(int(rng.integers(2, 6))):
            reach, size, fill = 0.46 * (1 - ring * 0.18), float(rng.uniform(0.03, 0.16)), color()
            for k in range(fold):
                a = 2 * math.pi * (k + 0.5 * (ring % 2)) / fold
                cx, cy = 0.5 + reach * 0.8 * math.cos(a), 0.5 + reach * 0.7 * math.sin(a)
                box = ((cx - size) * _W, (cy - size) * _H, (cx + size) * _W, (cy + size) * _H)
                draw.ellipse(box, fill=fill if rng.random() < 0.5 else None, outline=ink, width=2)
    elif family == 2:
        for _ in range(int(rng.integers(8, 40))):
            points = np.cumsum(rng.normal(0, 0.09, (5, 2)), 0) + rng.uniform(0.2, 0.8, 2)
            line = [(float(a) * _W, float(b) * _H) for a, b in points]
            draw.line(line, fill=color(), width=int(rng.integers(1, 5)), joint="curve")
    elif family == 3:
        scene = np.zeros((_H, _W, 3), np.float32)
        for side in (3, 6, 14, 40):
            layer = rng.normal(0, 1, (side, side, 3)).astype(np.float32) * float(rng.uniform(0.2, 1)) / side**0.3
            layer = layer * float(rng.uniform(0, 1)) + layer.mean(2, keepdims=True)
            large = [Image.fromarray(layer[..., c]).resize((_W, _H), Image.Resampling.BICUBIC) for c in range(3)]
            scene += np.stack([np.asarray(part) for part in large], 2)
        tone = np.asarray(color(), np.float32) * 0.5 + 70
        return Image.fromarray(np.clip(tone + 70 * scene, 0, 255).astype(np.uint8)).filter(ImageFilter.SHARPEN)
    elif family == 4:
        for _ in range(int(rng.integers(4, 16))):
            at = rng.uniform(0.05, 0.95, 2)
            spread = rng.normal(0, 0.14, (int(rng.integers(3, 6)), 2)) + at
            draw.polygon([(float(a) * _W, float(b) * _H) for a, b in spread], fill=color(),
                         outline=(20, 20, 20) if rng.random() < 0.5 else None)  # fmt: skip
    else:
        # Tendrils, mirrored left and right.
        half, ink = Image.new("RGB", (_W // 2, _H), paper), color()
        pen = ImageDraw.Draw(half)
        for _ in range(int(rng.integers(5, 18))):
            cx, cy, radius = float(rng.uniform(0, 60)), float(rng.uniform(0, _H)), float(rng.uniform(5, 30))
            begin = float(rng.uniform(0, 360))
            pen.arc((cx - radius, cy - radius, cx + radius, cy + radius), begin, begin + float(rng.uniform(90, 330)),
                    fill=ink, width=int(rng.integers(2, 6)))  # fmt: skip
            pen.ellipse((cx - 4, cy - 4, cx + 4, cy + 4), fill=ink)
        picture.paste(half, (0, 0))
        picture.paste(ImageOps.mirror(half), (_W // 2, 0))
    return picture


def recolored(picture: Image.Image, ink: Color, paper: Color, rng: np.random.Generator) -> Image.Image:
    """The picture as it is, with its colours changed about, or in ink and paper alone."""
    kind = rng.random()
    if kind < 0.3:
        return picture
    if kind < 0.6:
        bands = picture.split()
        order = rng.permutation(3)
        return Image.merge("RGB", [bands[i] for i in order])
    if kind < 0.7:
        return Image.blend(picture, Image.new("RGB", picture.size, paper), float(rng.uniform(0.2, 0.7)))
    return ImageOps.colorize(picture.convert("L"), ink, paper)
