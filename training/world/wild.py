"""Cards as they are met with: scans that fill the frame and are stretched to a square, and photographs on tables.

The clean world of `render` is what examples are made of; this wilder one is for training, so that a model meets more
than it will be asked about. Labels keep their meaning, though a few cards are hard to read.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from training.world.faces import draw_face
from training.world.papers import GRAINS, piece
from training.world.shapes import rounded_rectangle

Color = tuple[int, int, int]
Point = tuple[float, float]


def wild_card(suit: str, rank: str, size: int, background: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One card (RGB, size x size pixels) of a random design, scanned or photographed on `background`."""
    chance = rng.random()
    face, look = draw_face(suit, rank, max(96, round(size * 1.6)), rng)
    if chance < 0.66:
        picture = _scanned(face, look.radius, size, rng)
    elif chance < 0.78:
        picture = _cropped(face, size, rng)
    else:
        picture = _photographed(face, look.radius, size, background, rng)
    return _aged(picture, rng)


def _edge_color(rng: np.random.Generator) -> Color:
    kind = rng.random()
    if kind < 0.55:
        return (255, 255, 255)
    if kind < 0.75:
        return (0, 0, 0)
    return (int(rng.integers(256)), int(rng.integers(256)), int(rng.integers(256)))


def _scanned(face: Image.Image, radius: float, size: int, rng: np.random.Generator) -> Image.Image:
    """The whole card, stretched to the frame but for a thin margin, perhaps slightly askew."""
    around = _edge_color(rng)
    rounded = rounded_rectangle(face.size, radius * face.height)
    card = Image.composite(face, Image.new("RGB", face.size, around), rounded)
    if rng.random() < 0.25:
        shade: Color = (40, 40, 40) if sum(around) > 380 else (200, 200, 200)
        ImageDraw.Draw(card).rounded_rectangle((0, 0, face.width - 1, face.height - 1), radius * face.height,
                                               outline=shade, width=int(rng.integers(1, 3)))  # fmt: skip
    spread = 0.0 if rng.random() < 0.35 else 0.05
    m = rng.uniform(-0.3 * spread, spread, 4)
    w, h = face.size
    corners = np.array([(-m[0], -m[1]), (-m[0], 1 + m[3]), (1 + m[2], 1 + m[3]), (1 + m[2], -m[1])])
    if rng.random() < 0.3:
        corners += rng.uniform(-0.03, 0.03, (4, 2))
    if rng.random() < 0.12:
        # Not stretched: the card keeps its shape, with margins at the sides.
        corners[:, 0] = 0.5 + (corners[:, 0] - 0.5) / float(rng.uniform(0.7, 0.95))
    return _quad(card, corners * (w, h), size, around)


def _quad(card: Image.Image, corners: np.ndarray, size: int, around: Color) -> Image.Image:
    """The quadrilateral of `card` as a square of size x size; what lies outside the card is `around`."""
    room = round(card.height * 0.3)
    wide = Image.new("RGB", (card.width + 2 * room, card.height + 2 * room), around)
    wide.paste(card, (room, room))
    flat = [float(v) + room for point in corners for v in point]
    return wide.transform((size, size), Image.Transform.QUAD, flat, Image.Resampling.BILINEAR)


def _cropped(face: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """A part of the card that holds its upper left corner, or its middle."""
    w, h = face.size
    if rng.random() < 0.5:
        span = rng.uniform(0.55, 0.95, 2)
        left, top = rng.uniform(-0.02, 0.03, 2)
    else:
        span = rng.uniform(0.8, 0.98, 2)
        left, top = rng.uniform(0, 1 - span)
    lean = rng.uniform(-0.06, 0.06, (4, 2))
    corners = np.array([(left, top), (left, top + span[1]), (left + span[0], top + span[1]), (left + span[0], top)])
    return _quad(face, (corners + lean) * (w, h), size, _edge_color(rng))


def _photographed(
    face: Image.Image, radius: float, size: int, background: Image.Image, rng: np.random.Generator
) -> Image.Image:
    """The card on a ground, turned and in perspective, with a shadow and perhaps other cards beside or below it."""
    w, h = face.size
    grow = float(rng.uniform(0.62, 1.12))
    stretch = float(np.exp(rng.normal(0, 0.15)))
    angle = float(rng.normal(0, 14)) if rng.random() < 0.85 else float(rng.uniform(-60, 60))
    if rng.random() < 0.3:
        stretch /= 0.72
    extent = size * grow
    center = size / 2 + rng.uniform(-1, 1, 2) * size * 0.08
    picture = background
    if rng.random() < 0.35:
        for _ in range(int(rng.integers(1, 4))):
            aside = center + rng.uniform(-0.5, 0.5, 2) * size
            where = _corners(extent, w / h * stretch, angle + float(rng.normal(0, 30)), aside, 0.0, rng)
            _lay_other(picture, where, rng)
    corners = _corners(extent, w / h * stretch, angle, center, float(rng.choice([0.0, 0.08, 0.16])), rng)
    mask = rounded_rectangle(face.size, radius * h)
    back = _homography(corners, [(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)])
    alpha = mask.transform((size, size), Image.Transform.PERSPECTIVE, back, Image.Resampling.BILINEAR)
    placed = face.transform((size, size), Image.Transform.PERSPECTIVE, back, Image.Resampling.BILINEAR)
    if rng.random() < 0.8:
        drop = rng.uniform(-0.03, 0.03, 2) * size
        shadow = ImageChops.offset(alpha, round(drop[0]), round(drop[1])).filter(ImageFilter.GaussianBlur(size * 0.015))
        force = float(rng.uniform(0.2, 0.7))
        picture.paste((0, 0, 0), (0, 0), shadow.point([round(v * force) for v in range(256)]))
    picture.paste(placed, (0, 0), alpha)
    if rng.random() < 0.12:
        _cover(picture, center, extent, rng)
    return picture


def _corners(
    extent: float, aspect: float, angle: float, center: np.ndarray, tilt: float, rng: np.random.Generator
) -> list[Point]:
    """Where the corners of a card lie in the frame: upper left, upper right, lower right, lower left."""
    a = math.radians(angle)
    turn = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    box = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (extent * min(1.0, aspect) / 2, extent / 2)
    box = box + rng.uniform(-tilt, tilt, (4, 2)) * extent
    return [(float(x), float(y)) for x, y in box @ turn.T + center]


def _homography(seen: list[Point], flat: list[Point]) -> list[float]:
    """The eight numbers that Pillow's PERSPECTIVE takes: from places in the frame to places on the card."""
    rows: list[list[float]] = []
    for (x, y), (u, v) in zip(seen, flat, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    told = np.linalg.lstsq(np.array(rows), np.array(flat).reshape(-1), rcond=None)[0]
    return [float(v) for v in told]


def _lay_other(picture: Image.Image, corners: list[Point], rng: np.random.Generator) -> None:
    """Another card, of which only paper or back is seen."""
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.6:
        v = int(rng.integers(215, 256))
        draw.polygon(corners, fill=(v, v, v - int(rng.integers(0, 20))), outline=(90, 90, 90))
        return
    fill = (int(rng.integers(20, 200)), int(rng.integers(20, 80)), int(rng.integers(20, 160)))
    draw.polygon(corners, fill=(240, 240, 240), outline=(90, 90, 90))
    middle = np.mean(corners, 0)
    draw.polygon([(float(x), float(y)) for x, y in middle + (np.array(corners) - middle) * 0.88], fill=fill)


def _cover(picture: Image.Image, center: np.ndarray, extent: float, rng: np.random.Generator) -> None:
    """A thumb or another thing over an edge of the card."""
    draw, tone = ImageDraw.Draw(picture), rng.uniform(0.5, 1.0)
    skin = (round(235 * tone), round(180 * tone), round(150 * tone)) if rng.random() < 0.7 else _edge_color(rng)
    side = float(rng.choice([-1, 1]))
    x, y = center[0] + side * extent * 0.42, center[1] + float(rng.uniform(0.1, 0.5)) * extent
    r = extent * float(rng.uniform(0.06, 0.13))
    draw.ellipse((x - r, y - r, x + r, y + r * 1.4), fill=skin)
    draw.polygon(
        [(x - r, y), (x + r, y), (x + side * 4 * r + r, y + 6 * r), (x + side * 4 * r - r, y + 6 * r)], fill=skin
    )


def _aged(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """What camera, scanner and years of copying do: light, contrast, coarse pixels, blur, noise, JPEG."""
    size = picture.width
    if rng.random() < 0.25:
        coarse = round(size * float(rng.uniform(0.45, 0.95)))
        picture = picture.resize((coarse, coarse), Image.Resampling.BOX).resize((size, size), Image.Resampling.BICUBIC)
    if rng.random() < 0.25:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 1.1)) * size / 128))
    elif rng.random() < 0.25:
        picture = picture.filter(ImageFilter.UnsharpMask(1.2 * size / 128, int(rng.integers(60, 250)), 0))
    if rng.random() < 0.10:
        picture = ImageOps.grayscale(picture).convert("RGB")
    if rng.random() < 0.35:
        # Light that falls off: half a grain is as good as a lamp.
        lamp = piece(int(rng.integers(0, GRAINS, 1)[0]), (8, 8), rng).filter(ImageFilter.GaussianBlur(2))
        force = float(rng.uniform(0.1, 0.6))
        lamp = lamp.point([min(255, round(255 - force * max(0, 150 - v))) for v in range(256)])
        picture = ImageChops.multiply(
            picture, Image.merge("RGB", [lamp.resize((size, size), Image.Resampling.BICUBIC)] * 3)
        )
    if rng.random() < 0.5:
        low, high = float(rng.uniform(-15, 40)), float(rng.uniform(205, 275))
        gains = rng.normal(0, 6, 3) if rng.random() < 0.5 else np.zeros(3)
        table = [
            max(0, min(255, round(low + (high - low) * v / 255 + gains[c] * v / 128)))
            for c in range(3)
            for v in range(256)
        ]
        picture = picture.point(table)
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(25, 95)))
        picture = Image.open(buffer)
        picture.load()
    return picture
