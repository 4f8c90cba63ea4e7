"""Suit symbols of many hands: every call draws the outline anew, fills it in one of several styles, and gives a sprite.

A sprite (RGBA) is drawn large once for a deck and scaled down wherever the symbol is printed.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from training.world.shapes import Point

MASTER = 128
"""Height of a drawn symbol in pixels, before it is scaled to its place."""

Color = tuple[int, int, int]


def pip_outline(suit: str, rng: np.random.Generator) -> Image.Image:
    """Mask (L, MASTER pixels high) of a suit symbol with a random outline: lobes, waist, stem and width vary."""
    n = MASTER
    width = round(n * float(rng.uniform(0.84, 1.16)) * {"diamonds": 0.8, "spades": 0.94}.get(suit, 1.0))
    mask = Image.new("L", (width, n), 0)
    draw = ImageDraw.Draw(mask)

    def fill(points: list[Point]) -> None:
        draw.polygon([(x * (width - 1), y * (n - 1)) for x, y in points], fill=255)

    if suit == "hearts":
        fill(_heart(rng))
    elif suit == "diamonds":
        fill(_diamond(rng))
    elif suit == "clubs":
        _club(rng, mask, draw)
        fill(_stem(rng, 0.55))
    else:
        body = float(rng.uniform(0.74, 0.92))
        fill([(x, body * (1 - y)) for x, y in _heart(rng, pointed=True)])
        fill(_stem(rng, body - 0.3))
    return mask


def _curve(a: Point, b: Point, c: Point, d: Point) -> list[Point]:
    """Points of a cubic Bezier curve."""
    t = np.linspace(0, 1, 14)[:, None]
    p = [np.array(q) for q in (a, b, c, d)]
    told = (1 - t) ** 3 * p[0] + 3 * (1 - t) ** 2 * t * p[1] + 3 * (1 - t) * t**2 * p[2] + t**3 * p[3]
    return [(float(x), float(y)) for x, y in told]


def _heart(rng: np.random.Generator, pointed: bool = False) -> list[Point]:
    """A heart in the unit square; `pointed`, as a spade's body turned upside down, has a flatter notch."""
    u = rng.uniform
    notch = float(u(0.04, 0.22) if pointed else u(0.10, 0.30))
    side = float(u(0.24, 0.40))
    lobe, belly, tip = float(u(-0.14, -0.02)), float(u(0.10, 0.34)), float(u(0.02, 0.34))
    left = _curve((0.5, notch), (float(u(0.36, 0.47)), lobe), (0.0, float(u(-0.14, 0.0))), (0.0, side))
    left += _curve((0.0, side), (0.0, side + belly), (0.5 - tip, float(u(0.66, 0.88))), (0.5, 1.0))
    low = min(y for _, y in left)
    left = [(x, (y - low) / (1 - low)) for x, y in left]
    return left + [(1 - x, y) for x, y in left[::-1]]


def _diamond(rng: np.random.Generator) -> list[Point]:
    """A rhomb in the unit square, with sides that are straight, hollow or full."""
    bend = float(rng.choice([0.0, rng.uniform(-0.10, 0.28)]))
    t = np.linspace(0, math.pi / 2, 10)[:-1]
    power = 2.0 / (1.0 - bend) if bend < 0 else 2.0 * (1 + bend)
    c, s = np.cos(t) ** power, np.sin(t) ** power
    quarter = list(zip(c, s, strict=True))
    around = quarter + [(-b, a) for a, b in quarter] + [(-a, -b) for a, b in quarter] + [(b, -a) for a, b in quarter]
    return [(float(0.5 + 0.5 * x), float(0.5 + 0.5 * y)) for x, y in around]


def _club(rng: np.random.Generator, mask: Image.Image, draw: ImageDraw.ImageDraw) -> None:
    """Three lobes, round or oval, close together or apart, and what joins them."""
    w, h = mask.size
    ry, squash = float(rng.uniform(0.19, 0.275)), float(rng.uniform(0.85, 1.1))
    rx = min(0.26, ry * squash)
    low = float(rng.uniform(0.50, 0.62))
    for x, y in ((0.5, ry), (rx, low), (1 - rx, low)):
        draw.ellipse(((x - rx) * w, (y - ry) * h, (x + rx) * w - 1, (y + ry) * h), fill=255)
    core = float(rng.uniform(0.07, 0.16))
    draw.ellipse(((0.5 - core) * w, (0.45 - core) * h, (0.5 + core) * w, (0.45 + core) * h), fill=255)
    if rng.random() < 0.5:
        thin = float(rng.uniform(0.03, 0.09))
        draw.polygon([(w * 0.5, h * (low - thin)), (w * 0.5, h * (low + thin)), (w * rx, h * (low + thin * 0.6)),
                      (w * rx, h * (low - thin * 0.6))], fill=255)  # fmt: skip
        draw.polygon([(w * 0.5, h * (low - thin)), (w * 0.5, h * (low + thin)), (w * (1 - rx), h * (low + thin * 0.6)),
                      (w * (1 - rx), h * (low - thin * 0.6))], fill=255)  # fmt: skip


def _stem(rng: np.random.Generator, top: float) -> list[Point]:
    """The foot of a club or spade: a triangle, a flared stalk or a straight one."""
    foot, neck = float(rng.uniform(0.10, 0.26)), float(rng.uniform(0.015, 0.07))
    kind = rng.random()
    if kind < 0.3:
        left = [(0.5 - neck, top), (0.5 - foot, 1.0)]
    elif kind < 0.85:
        waist = float(rng.uniform(0.80, 0.95))
        left = [(0.5 - neck, top), *_curve((0.5 - neck, top + 0.1), (0.5 - neck, waist),
                                          (0.5 - neck - 0.03, 0.98), (0.5 - foot, 1.0))]  # fmt: skip
    else:
        left = [(0.5 - neck, top), (0.5 - neck, 0.93), (0.5 - foot, 0.94), (0.5 - foot, 1.0)]
    return left + [(1 - x, y) for x, y in left[::-1]]


PIP_STYLES = ("solid", "outline", "edged", "rings", "worn", "graded", "hatched", "pattern")


def pip_sprite(
    mask: Image.Image, style: str, ink: Color, other: Color, grain: Image.Image, rng: np.random.Generator
) -> Image.Image:
    """The symbol in one of PIP_STYLES as a sprite (RGBA); worn and patterned ones are cut from `grain` (L)."""
    room = round(MASTER * 0.02)
    size = (mask.width + 2 * room, mask.height + 2 * room)
    whole = Image.new("L", size, 0)
    whole.paste(mask, (room, room))
    sprite = Image.new("RGB", size, ink)
    alpha = whole
    if style == "outline":
        alpha = ImageChops.subtract(whole, _eroded(whole, float(rng.uniform(2.5, 7))))
    elif style == "edged":
        sprite.paste(other, (0, 0), _eroded(whole, float(rng.uniform(2, 6))))
    elif style == "rings":
        inner = _eroded(whole, float(rng.uniform(3, 6)))
        alpha = ImageChops.subtract(whole, inner)
        alpha = ImageChops.add(alpha, _eroded(whole, float(rng.uniform(9, 14))))
    elif style == "worn":
        cut = grain.resize(size).point([min(255, max(0, round((v - 90) * 4))) for v in range(256)])
        alpha = ImageChops.multiply(whole, cut)
    elif style == "graded":
        shade = Image.linear_gradient("L").resize(size)
        if rng.random() < 0.5:
            shade = ImageChops.invert(shade)
        sprite = Image.composite(Image.new("RGB", size, _mixed(ink, other, 0.6)), sprite, shade)
    elif style == "hatched":
        alpha = ImageChops.multiply(whole, _stripes(size, rng))
        if rng.random() < 0.6:
            alpha = ImageChops.lighter(alpha, ImageChops.subtract(whole, _eroded(whole, 3.5)))
    elif style == "pattern":
        inner = _eroded(whole, float(rng.uniform(3, 7)))
        cut = grain.resize(size).point([255 if v > 128 else 0 for v in range(256)])
        sprite.paste(other, (0, 0), ImageChops.multiply(inner, cut))
    sprite.putalpha(alpha)
    return sprite


def _eroded(mask: Image.Image, by: float) -> Image.Image:
    """The mask without a rim of about `by` pixels."""
    return mask.filter(ImageFilter.GaussianBlur(by)).point([max(0, min(255, (v - 205) * 8)) for v in range(256)])


def _stripes(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    a = float(rng.uniform(0, math.pi))
    wave = np.sin((x * math.cos(a) + y * math.sin(a)) * float(rng.uniform(0.35, 0.8)))
    return Image.fromarray(np.clip(128 + 500 * (wave + float(rng.uniform(-0.2, 0.6))), 0, 255).astype(np.uint8))


def _mixed(a: Color, b: Color, share: float) -> Color:
    return (
        round(a[0] + (b[0] - a[0]) * share), round(a[1] + (b[1] - a[1]) * share), round(a[2] + (b[2] - a[2]) * share)
    )  # fmt: skip
