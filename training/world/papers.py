"""What a card is printed on, and stains, scratches and grain: a small bank of textures, drawn once in a process."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops

GRAINS = 48
_SIDE = 256

Color = tuple[int, int, int]


@lru_cache(maxsize=GRAINS)
def grain(number: int) -> Image.Image:
    """Texture (L, 256 x 256), mean about 128, from fine speckle to large stains and scratches."""
    rng = np.random.default_rng([19, number])
    n = _SIDE
    out = np.zeros((n, n), np.float32)
    for octave in range(1, 8):
        side = min(n, 2**octave + 1)
        weight = float(rng.uniform(0, 1)) ** 1.5 * (0.9 if octave < 6 else 0.5)
        stretch = int(rng.choice([1, 1, 1, 4]))
        coarse = Image.fromarray(rng.normal(0, 1, (side, max(2, side // stretch))).astype(np.float32))
        out += weight * np.asarray(coarse.resize((n, n), Image.Resampling.BICUBIC))
    out /= out.std() + 1e-6
    if number % 4 == 1:
        # Cracks: the level lines of smooth noise.
        out = out * 0.4 - 2.2 * np.exp(-((out / 0.12) ** 2))
    if number % 4 == 2:
        out = np.where(rng.random((n, n)) < 0.02, -3.0, out)
    return Image.fromarray(np.clip(128 + 42 * out, 0, 255).astype(np.uint8))


@lru_cache(maxsize=4)
def _rim(size: tuple[int, int]) -> np.ndarray:
    """1 at the edges of a sheet, 0 inside."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    inside = np.minimum(np.minimum(x, size[0] - 1 - x) / size[0], np.minimum(y, size[1] - 1 - y) / size[1])
    return np.asarray(np.clip(1 - inside / 0.22, 0, 1) ** 2, np.float32)


def piece(number: int, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A random piece of a grain (L), mirrored or turned, scaled to `size`."""
    whole = grain(number)
    side = int(rng.integers(110, _SIDE + 1))
    left, top = (int(rng.integers(_SIDE - side + 1)) for _ in range(2))
    turn = int(rng.integers(4))
    cut = whole.resize(size, Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    return cut.transpose(Image.Transpose(turn)) if turn < 2 else cut


def sheet(size: tuple[int, int], color: Color, strength: float, rim: float, rng: np.random.Generator) -> Image.Image:
    """A sheet (RGB) of one colour. `strength` is how far its grain goes, in shares of full light; `rim` darkens the
    edges."""
    if strength < 0.01 and rim == 0:
        return Image.new("RGB", size, color)
    spread = np.asarray(piece(int(rng.integers(GRAINS)), size, rng), np.float32) / 128 - 1
    gain = 1 + strength * np.minimum(spread, 0.5)
    if rim:
        gain = gain * (1 - rim * _rim(size))
    base = np.asarray(color, np.float32) + (12 * strength if sum(color) < 200 else 0)
    # Stains are browner than the sheet: red suffers least.
    tint = np.array([0.75, 1.0, 1.25], np.float32) if rng.random() < 0.6 else np.ones(3, np.float32)
    out = base * np.exp(np.log(np.maximum(gain, 0.05))[..., None] * tint)
    return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))


def printed(face: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """The face with grain over its print as well: worn, scanned from newsprint or cloth."""
    over = piece(int(rng.integers(GRAINS)), face.size, rng)
    scale = [max(0, min(255, round(255 * (1 + strength * (min(v, 150) - 150) / 90)))) for v in range(256)]
    return ImageChops.multiply(face, Image.merge("RGB", [over.point(scale)] * 3))
