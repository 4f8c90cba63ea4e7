"""Fruit: silhouettes with soft shading, any species in any colour."""

from __future__ import annotations

import colorsys
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.world.shapes import Point, heart_outline

VARIANTS = 12
HEIGHT = 224

# Hue ranges in degrees, saturation and value ranges. The gaps between the hues are what keeps a colour decidable.
_HUES = {
    "red": (-8.0, 4.0),
    "orange": (22.0, 31.0),
    "yellow": (48.0, 57.0),
    "green": (92.0, 140.0),
    "purple": (266.0, 292.0),
}
_DEPTH = {
    "red": ((0.82, 0.95), (0.72, 0.90)),
    "orange": ((0.85, 0.97), (0.92, 1.0)),
    "yellow": ((0.72, 0.90), (0.94, 1.0)),
    "green": ((0.60, 0.85), (0.55, 0.80)),
    "purple": ((0.55, 0.78), (0.48, 0.72)),
}


def fruit_sprite(species: str, color: str, variant: int) -> Image.Image:
    """One fruit (RGBA, square, HEIGHT pixels)."""
    rng = np.random.default_rng([11, variant, sum(map(ord, species)), sum(map(ord, color))])
    n = HEIGHT
    body, extras = Image.new("L", (n, n), 0), Image.new("RGBA", (n, n), (0, 0, 0, 0))
    behind = Image.new("RGBA", (n, n), (0, 0, 0, 0))
    bumps: list[tuple[float, float, float]] = []
    draw, top, back = ImageDraw.Draw(body), ImageDraw.Draw(extras), ImageDraw.Draw(behind)
    stem = (int(rng.integers(85, 120)), int(rng.integers(55, 80)), int(rng.integers(20, 45)))
    leaf = (int(rng.integers(50, 90)), int(rng.integers(120, 160)), int(rng.integers(40, 70)))
    grow = float(rng.uniform(0.95, 1.04))

    def p(*points: Point) -> list[Point]:
        return [(n / 2 + (x - 0.5) * n * grow, n / 2 + (y - 0.5) * n * grow) for x, y in points]

    def ball(onto: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, fill: int | tuple[int, ...]) -> None:
        (a, b), (c, d) = p((x - rx, y - ry), (x + rx, y + ry))
        onto.ellipse((a, b, c, d), fill=fill)

    if species == "apple":
        ball(draw, 0.36, 0.58, 0.27, 0.33, 255)
        ball(draw, 0.64, 0.58, 0.27, 0.33, 255)
        ball(draw, 0.50, 0.62, 0.30, 0.27, 255)
        bumps = [(0.5, 0.58, 0.44)]
        top.line(p((0.5, 0.34), (0.53, 0.22), (0.58, 0.12)), fill=(*stem, 255), width=int(n * 0.035))
        top.polygon(_leaf(p((0.55, 0.22), (0.80, 0.12))), fill=(*leaf, 255))
    elif species == "banana":
        bend = float(rng.uniform(0.9, 1.1))
        angles = np.linspace(math.radians(8), math.radians(150), 40)
        outer = [(0.47 + 0.44 * math.cos(a), 0.20 + 0.60 * bend * math.sin(a)) for a in angles]
        taper = [0.23 * math.sin((a - angles[0]) / (angles[-1] - angles[0]) * math.pi) ** 0.7 for a in angles]
        inner = [
            (0.47 + 0.38 * math.cos(a), 0.16 + (0.60 * bend - t) * math.sin(a))
            for a, t in zip(angles[::-1], taper[::-1], strict=True)
        ]
        draw.polygon(p(*outer, *inner), fill=255)
        bumps = [(0.45, 0.62, 0.5)]
        back.line(p((0.90, 0.30), (0.88, 0.14)), fill=(*stem, 255), width=int(n * 0.055))
        ball(top, 0.105, 0.475, 0.028, 0.028, (*stem, 255))
    elif species == "pear":
        ball(draw, 0.5, 0.68, 0.29, 0.27, 255)
        ball(draw, 0.5, 0.36, 0.155, 0.18, 255)
        draw.polygon(p((0.355, 0.31), (0.645, 0.31), (0.745, 0.54), (0.77, 0.6), (0.23, 0.6), (0.255, 0.54)), fill=255)
        bumps = [(0.5, 0.66, 0.36)]
        top.line(p((0.5, 0.21), (0.52, 0.06)), fill=(*stem, 255), width=int(n * 0.035))
        top.polygon(_leaf(p((0.52, 0.14), (0.74, 0.08))), fill=(*leaf, 255))
    elif species == "cherry":
        r = float(rng.uniform(0.185, 0.205))
        bumps = [(0.28, 0.72, r * 1.25), (0.70, 0.76, r * 1.25)]
        for x, y, _ in bumps:
            ball(draw, x, y, r, r, 255)
            back.line(p((x, y - r * 0.8), ((x + 0.56) / 2 + (0.03 if x > 0.5 else -0.03), 0.36), (0.56, 0.08)),
                      fill=(80, 120, 45, 255), width=int(n * 0.025), joint="curve")  # fmt: skip
        back.polygon(_leaf(p((0.56, 0.08), (0.90, 0.16))), fill=(*leaf, 255))
    elif species == "grapes":
        r = 0.108
        for row, count in enumerate((4, 5, 4, 3, 2, 1)):
            for k in range(count):
                x = 0.5 + (k - (count - 1) / 2) * 0.165 + float(rng.normal(0, 0.006))
                bumps.append((x, 0.27 + row * 0.128, r))
                ball(draw, *bumps[-1][:2], r, r, 255)
        back.line(p((0.5, 0.2), (0.53, 0.03)), fill=(*stem, 255), width=int(n * 0.04))
        back.polygon(_leaf(p((0.52, 0.10), (0.82, 0.04))), fill=(*leaf, 255))
    else:
        outline = heart_outline(0.66 * n * grow, 0.74 * n * grow)
        draw.polygon([(x + n / 2 - 0.33 * n * grow, y + n / 2 - 0.30 * n * grow) for x, y in outline], fill=255)
        bumps = [(0.5, 0.5, 0.45)]
        for row, count in enumerate((3, 4, 3, 2, 1)):
            for k in range(count):
                x, y = 0.5 + (k - (count - 1) / 2) * 0.15, 0.38 + row * 0.115
                ball(top, x, y, 0.014, 0.020, (250, 225, 130, 255))
        for angle in (-75, -38, 0, 38, 75):
            a = math.radians(angle)
            top.polygon(_leaf(p((0.5, 0.24), (0.5 + 0.27 * math.sin(a), 0.25 - 0.15 * math.cos(a)))), fill=(*leaf, 255))
    return _shaded(body, behind, extras, bumps, _tone(color, rng), species, grow)


def _leaf(ends: list[Point]) -> list[Point]:
    (x0, y0), (x1, y1) = ends
    nx, ny = -(y1 - y0) * 0.28, (x1 - x0) * 0.28
    t = np.linspace(0, 1, 12)
    s = np.sin(t * math.pi)
    one = [(x0 + (x1 - x0) * a + nx * b, y0 + (y1 - y0) * a + ny * b) for a, b in zip(t, s, strict=True)]
    two = [(x0 + (x1 - x0) * a - nx * b, y0 + (y1 - y0) * a - ny * b) for a, b in zip(t, s, strict=True)]
    return [(float(x), float(y)) for x, y in one + two[::-1]]


def _tone(color: str, rng: np.random.Generator) -> np.ndarray:
    """An RGB triple (3,) in 0..255 inside the colour's range."""
    (s0, s1), (v0, v1) = _DEPTH[color]
    hue = float(rng.uniform(*_HUES[color])) % 360 / 360
    return np.array(colorsys.hsv_to_rgb(hue, float(rng.uniform(s0, s1)), float(rng.uniform(v0, v1)))) * 255


def _shaded(
    body: Image.Image,
    behind: Image.Image,
    extras: Image.Image,
    bumps: list[tuple[float, float, float]],
    tone: np.ndarray,
    species: str,
    grow: float,
) -> Image.Image:
    """Body in `tone`, darker towards the lower right and lit from the upper left, over `behind` and under `extras`."""
    n = body.width
    y, x = np.mgrid[0:n, 0:n] / n
    shade, shine = np.full((n, n), 0.70), np.zeros((n, n))
    for bx, by, r in bumps:
        cx, cy = 0.5 + (bx - 0.5) * grow, 0.5 + (by - 0.5) * grow
        d = np.hypot(x - cx + 0.3 * r, y - cy + 0.35 * r) / r
        near = np.hypot(x - cx, y - cy) < r * 1.02 if len(bumps) > 1 else np.ones((n, n), bool)
        shade = np.where(near, np.clip(1.10 - 0.38 * d**1.5, 0.58, 1.06), shade)
        gloss = 0.5 * np.exp(-((d / 0.22) ** 2))
        shine = np.where(near, gloss, shine)
    rgb = np.clip(tone[None, None] * shade[..., None], 0, 255)
    rgb += (255 - rgb) * shine[..., None]
    colored = Image.fromarray(rgb.astype(np.uint8))
    edge = body.filter(ImageFilter.GaussianBlur(1.2))
    picture = behind.copy()
    layer = colored.convert("RGBA")
    layer.putalpha(edge)
    picture.alpha_composite(layer)
    picture.alpha_composite(extras.filter(ImageFilter.GaussianBlur(0.6)))
    return picture
