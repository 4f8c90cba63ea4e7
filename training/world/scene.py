"""Puts a sprite into a scene: background, shadow, pose, light, camera."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from training.world import cards, fruit
from training.world.labels import COLORS, RANKS, SPECIES, SUITS, Kind
from training.world.wild import wild_card

TEXTURES = 96
_TEXTURE_SIZE = 288
_LEVELS = (96, 208, 288)

Pose = tuple[float, float, float, float, float, float]


def render(kind: Kind, seed: int, size: int = 208, wild: bool = False) -> tuple[Image.Image, dict[str, str]]:
    """Draw the image that belongs to `seed`: (RGB image of size x size pixels, its labels).

    The labels, independent of each other and uniform, and everything else follow from the seed; the seed of
    `training.world.image_seed` keeps examples, training and evaluation apart. `wild` draws a card of a design of its
    own instead of one of the clean decks (`training.world.wild`); fruit knows no such difference. Wild cards also
    depend on the fonts at hand (`training.world.letters`). Raises ValueError for another kind.
    """
    rng = np.random.default_rng(seed)
    if kind == "cards" and wild:
        labels = {"suit": SUITS[rng.integers(len(SUITS))], "rank": RANKS[rng.integers(len(RANKS))]}
        ground = _background(int(rng.integers(TEXTURES)), size, rng)
        return wild_card(labels["suit"], labels["rank"], size, ground, rng), labels
    if kind == "cards":
        labels = {"suit": SUITS[rng.integers(len(SUITS))], "rank": RANKS[rng.integers(len(RANKS))]}
        look = (labels["suit"], labels["rank"], int(rng.integers(cards.DECKS)))
        extent = size * float(rng.uniform(0.76, 0.93))
        width = extent * cards.ASPECT
        angle = float(rng.uniform(-10, 10))
    elif kind == "fruit":
        labels = {"species": SPECIES[rng.integers(len(SPECIES))], "color": COLORS[rng.integers(len(COLORS))]}
        look = (labels["species"], labels["color"], int(rng.integers(fruit.VARIANTS)))
        extent = width = size * float(rng.uniform(0.68, 0.95))
        angle = float(rng.uniform(-10, 10))
    else:
        raise ValueError(f"no such kind of image: {kind!r}; the world has 'cards' and 'fruit'")
    level = next((at for at in _LEVELS if at >= extent * 0.98), _LEVELS[-1])
    sprite, shadow = _sprite(kind, *look, level)
    room_x, room_y = max(0.0, size - width) / 2, max(0.0, size - extent) / 2
    center = (
        size / 2 + float(rng.uniform(-1, 1)) * (room_x * 0.85),
        size / 2 + float(rng.uniform(-1, 1)) * (room_y * 0.85),
    )
    picture = _background(int(rng.integers(TEXTURES)), size, rng)
    drop = size * float(rng.uniform(0.01, 0.035))
    softness = _pose(shadow, extent / sprite.height, angle, (center[0] + drop, center[1] + drop), size)
    darkness = float(rng.uniform(0.25, 0.6))
    mask = softness.point([int(v * darkness) for v in range(256)])
    picture.paste((0, 0, 0), (0, 0), mask)
    placed = _pose(sprite, extent / sprite.height, angle, center, size)
    picture.paste(placed, (0, 0), placed)
    return _photograph(picture, rng), labels


@lru_cache(maxsize=8192)
def _sprite(kind: Kind, first: str, second: str, variant: int, level: int) -> tuple[Image.Image, Image.Image]:
    """The sprite at `level` pixels high and its blurred outline (L), which serves as its shadow."""
    if kind == "cards":
        whole = cards.card_sprite(cards.deck(variant), first, second)
    else:
        whole = fruit.fruit_sprite(first, second, variant)
    sprite = whole.resize((round(whole.width * level / whole.height), level), Image.Resampling.LANCZOS)
    return sprite, sprite.getchannel("A").filter(ImageFilter.GaussianBlur(level * 0.015))


def _pose(sprite: Image.Image, scale: float, angle: float, center: tuple[float, float], size: int) -> Image.Image:
    """The sprite scaled, turned by `angle` degrees and centred in a frame of size x size."""
    a = math.radians(angle)
    cos, sin = math.cos(a) / scale, math.sin(a) / scale
    cx, cy = sprite.width / 2, sprite.height / 2
    back = (cos, sin, cx - cos * center[0] - sin * center[1], -sin, cos, cy + sin * center[0] - cos * center[1])
    return sprite.transform((size, size), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)


@lru_cache(maxsize=TEXTURES)
def _texture(number: int) -> Image.Image:
    """A background of _TEXTURE_SIZE pixels: plain, gradient, wood, felt or speckle."""
    rng = np.random.default_rng([13, number])
    n = _TEXTURE_SIZE
    y, x = np.mgrid[0:n, 0:n] / n
    family = number % 5
    base = rng.uniform(40, 235, 3)
    base = base.mean() + (base - base.mean()) * rng.uniform(0.2, 0.8)
    if family == 0:
        out = np.broadcast_to(base, (n, n, 3)).copy()
    elif family == 1:
        other = np.clip(base + rng.normal(0, 45, 3), 20, 245)
        a = rng.uniform(0, 2 * math.pi)
        t = np.clip(0.5 + (x - 0.5) * math.cos(a) + (y - 0.5) * math.sin(a), 0, 1)[..., None]
        out = base * (1 - t) + other * t
    elif family == 2:
        wood = np.array([rng.uniform(110, 190), 0, 0])
        wood[1], wood[2] = wood[0] * rng.uniform(0.66, 0.78), wood[0] * rng.uniform(0.40, 0.58)
        wobble = sum(np.sin(2 * math.pi * (x * rng.uniform(0.5, 2) + rng.random())) for _ in range(3))
        grain = np.sin(2 * math.pi * (y * rng.uniform(8, 20) + 0.35 * wobble)) + 0.6 * _smooth(rng, n, 3, 40)
        planks = np.where((y * 4) % 1 < 0.02, 0.6, 1.0) if rng.random() < 0.5 else np.ones_like(y)
        out = wood * ((1 + 0.07 * grain) * planks)[..., None]
    elif family == 3:
        felt = np.array(
            [(20, 105, 60), (25, 60, 120), (120, 25, 40), (70, 70, 75)][int(rng.integers(4))]
        ) * rng.uniform(0.8, 1.2)
        out = felt * (1 + 0.06 * rng.normal(0, 1, (n, n)) + 0.05 * _smooth(rng, n, 12, 12))[..., None]
    else:
        out = base + 14 * _smooth(rng, n, 14, 14)[..., None] + rng.normal(0, 1, (n, n, 1)) * rng.uniform(2, 8)
    return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))


def _smooth(rng: np.random.Generator, n: int, rows: int, columns: int) -> np.ndarray:
    """Smooth noise (n, n), about unit variance."""
    coarse = Image.fromarray(rng.normal(0, 1, (rows, columns)).astype(np.float32))
    return np.asarray(coarse.resize((n, n), Image.Resampling.BICUBIC))


@lru_cache(maxsize=2 * TEXTURES)
def _scaled_texture(number: int, size: int) -> Image.Image:
    side = round(size * 1.3)
    return _texture(number).resize((side, side), Image.Resampling.BICUBIC)


def _background(number: int, size: int, rng: np.random.Generator) -> Image.Image:
    """A random piece of a texture, perhaps mirrored or turned, size x size."""
    whole = _scaled_texture(number, size)
    left, top = (int(rng.integers(whole.width - size + 1)) for _ in range(2))
    piece = whole.crop((left, top, left + size, top + size))
    turn = int(rng.integers(8))
    return piece.transpose(Image.Transpose(turn)) if turn < 7 else piece


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """A bank of unit noise; a frame takes a random stretch of it."""
    return np.random.default_rng(17).standard_normal(1 << 20, dtype=np.float32)


@lru_cache(maxsize=4)
def _plane(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    return axis[None, :, None], axis[:, None, None]


def _photograph(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light that falls off across the frame, a mild tint, brightness, slight blur and sensor noise."""
    size = picture.width
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.1, 0.6)) * size / 96))
    x, y = _plane(size)
    slope = rng.uniform(-0.16, 0.16, 2).astype(np.float32)
    gain = (rng.uniform(0.78, 1.10) * rng.uniform(0.955, 1.045, 3)).astype(np.float32)
    out = np.asarray(picture, dtype=np.float32) * (gain * (1 + slope[0] * x + slope[1] * y))
    bank = _noise()
    count = size * size * 3
    start = int(rng.integers(len(bank) - count % len(bank)))
    sigma = np.float32(rng.uniform(0, 6))
    out += np.take(bank, np.arange(start, start + count), mode="wrap").reshape(size, size, 3) * sigma
    return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))
