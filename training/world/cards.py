"""Playing cards: decks of several designs, drawn once as sprites (RGBA) and cached by the scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from training.world.labels import RANKS
from training.world.shapes import Point, glyph_mask, rounded_rectangle, stamp, suit_mask, turned

DECKS = 24
HEIGHT = 288
ASPECT = 0.70

Color = tuple[int, int, int]

INDEX = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
_COLUMN, _THIRD = 0.25, 1 / 3
# Pip positions in a unit box, x from the left and y from the top, after the usual layouts.
PIP_PLACES: dict[int, list[Point]] = {
    1: [(0.5, 0.5)],
    2: [(0.5, 0.0), (0.5, 1.0)],
    3: [(0.5, 0.0), (0.5, 0.5), (0.5, 1.0)],
    4: [(0, 0), (1, 0), (0, 1), (1, 1)],
    5: [(0, 0), (1, 0), (0.5, 0.5), (0, 1), (1, 1)],
    6: [(0, 0), (1, 0), (0, 0.5), (1, 0.5), (0, 1), (1, 1)],
    7: [(0, 0), (1, 0), (0, 0.5), (1, 0.5), (0, 1), (1, 1), (0.5, 0.25)],
    8: [(0, 0), (1, 0), (0, 0.5), (1, 0.5), (0, 1), (1, 1), (0.5, 0.25), (0.5, 0.75)],
    9: [(0, 0), (1, 0), (0, _THIRD), (1, _THIRD), (0, 1 - _THIRD), (1, 1 - _THIRD), (0, 1), (1, 1), (0.5, 0.5)],
    10: [(0, 0), (1, 0), (0, _THIRD), (1, _THIRD), (0, 1 - _THIRD), (1, 1 - _THIRD), (0, 1), (1, 1),
         (0.5, 1 / 6), (0.5, 5 / 6)],
}  # fmt: skip


@dataclass(frozen=True)
class Deck:
    """The look of one deck."""

    layout: Literal["classic", "jumbo", "modern", "poster"]
    """classic: indices and pips; jumbo: large indices and one pip; modern: large rank over suit; poster: huge rank,
    corner suits."""
    inks: dict[str, Color]
    """Ink of each suit: two-colour or four-colour."""
    paper: Color
    border: Color | None
    """A thin frame inside the edge."""
    stroke: int
    aspect: float
    shear: float
    plump: float
    radius: float
    """Corner radius as a share of the height."""


def deck(number: int) -> Deck:
    """The deck with that number, 0 <= number < DECKS."""
    rng = np.random.default_rng([7, number])
    red: Color = (int(rng.integers(185, 230)), int(rng.integers(10, 45)), int(rng.integers(20, 55)))
    black: Color = (int(rng.integers(10, 35)),) * 3
    inks = {"hearts": red, "diamonds": red, "clubs": black, "spades": black}
    if rng.random() < 0.3:
        inks |= {"diamonds": (20, 80, 200), "clubs": (15, 125, 50)}
    layouts: tuple[Literal["classic", "jumbo", "modern", "poster"], ...] = ("classic", "jumbo", "modern", "poster")
    white = int(rng.integers(236, 256))
    return Deck(
        layout=layouts[number % 4],
        inks=inks,
        paper=(white, white - int(rng.integers(0, 6)), white - int(rng.integers(0, 18))),
        border=(90, 100, 140) if rng.random() < 0.3 else None,
        stroke=int(rng.integers(0, 12)),
        aspect=float(rng.uniform(0.82, 1.08)),
        shear=float(rng.choice([0.0, 0.0, 0.12])),
        plump=float(rng.uniform(0.92, 1.08)),
        radius=float(rng.uniform(0.03, 0.06)),
    )


def card_sprite(look: Deck, suit: str, rank: str) -> Image.Image:
    """One card (RGBA, HEIGHT pixels high, upright)."""
    h, w = HEIGHT, int(HEIGHT * ASPECT)
    ink = look.inks[suit]
    face = Image.new("RGB", (w, h), look.paper)
    if look.border is not None:
        ImageDraw.Draw(face).rounded_rectangle(
            (7, 7, w - 8, h - 8), look.radius * h * 0.7, outline=look.border, width=3
        )
    number = RANKS.index(rank) + 1
    index = INDEX[number - 1]

    def glyph(height: float) -> Image.Image:
        return glyph_mask(index, int(height * h), look.stroke, look.aspect, look.shear)

    def pip(height: float) -> Image.Image:
        return suit_mask(suit, int(height * h), look.plump)

    def corners(glyph_height: float, pip_height: float, margin: float, both: bool = True) -> None:
        mark, small = glyph(glyph_height), pip(pip_height)
        column = margin * h + max(mark.width, small.width) / 2
        top = margin * h + mark.height / 2
        below = margin * h + mark.height + 0.03 * h + small.height / 2
        for mask, y in ((mark, top), (small, below)):
            stamp(face, mask, (column, y), ink)
            if both:
                stamp(face, turned(mask), (w - column, h - y), ink)

    if look.layout == "classic":
        corners(0.195, 0.12, 0.035)
        if number <= 10:
            _pips(face, number, pip(0.30 if number == 1 else 0.155), ink)
        else:
            _figure(face, rank, pip(0.12), ink)
    elif look.layout == "jumbo":
        corners(0.28, 0.16, 0.04)
        stamp(face, pip(0.22), (w / 2, h / 2), ink)
    elif look.layout == "modern":
        mark, big = glyph(0.40), pip(0.32)
        stamp(face, mark, (w / 2, h * 0.29), ink)
        stamp(face, big, (w / 2, h * 0.71), ink)
    else:
        stamp(face, glyph(0.50), (w / 2, h * 0.5), ink)
        for x, y, mask in ((0.2, 0.13, pip(0.17)), (0.8, 0.87, turned(pip(0.17)))):
            stamp(face, mask, (w * x, h * y), ink)
    face.putalpha(rounded_rectangle((w, h), look.radius * h))
    return face


def _pips(face: Image.Image, number: int, mask: Image.Image, ink: Color) -> None:
    w, h = face.size
    for x, y in PIP_PLACES[number]:
        center = (w * (0.36 + 0.28 * x), h * (0.16 + 0.68 * y))
        stamp(face, turned(mask) if y > 0.5 else mask, center, ink)


def _figure(face: Image.Image, rank: str, pip: Image.Image, ink: Color) -> None:
    """A court card: a bust, above and mirrored below, in a frame."""
    w, h = face.size
    box = (int(w * 0.29), int(h * 0.12), int(w * 0.71), int(h * 0.88))
    panel = Image.new("RGB", (box[2] - box[0], (box[3] - box[1]) // 2), (250, 240, 205))
    draw = ImageDraw.Draw(panel)
    pw, ph = panel.size
    gold, robe, skin, hair = (
        (225, 170, 30),
        (40, 70, 160) if ink[0] < 100 else (190, 40, 50),
        (245, 205, 170),
        (110, 70, 35),
    )
    draw.polygon([(0, ph), (pw * 0.1, ph * 0.66), (pw * 0.9, ph * 0.66), (pw, ph)], fill=robe)
    draw.polygon([(pw * 0.42, ph), (pw * 0.5, ph * 0.62), (pw * 0.58, ph)], fill=gold)
    if rank == "queen":
        draw.ellipse((pw * 0.20, ph * 0.22, pw * 0.80, ph * 0.80), fill=hair)
    draw.ellipse((pw * 0.32, ph * 0.26, pw * 0.68, ph * 0.68), fill=skin)
    if rank == "king":
        draw.pieslice((pw * 0.30, ph * 0.36, pw * 0.70, ph * 0.84), 0, 180, fill=hair)
        draw.polygon([(pw * 0.24, ph * 0.32), (pw * 0.18, ph * 0.04), (pw * 0.38, ph * 0.16), (pw * 0.5, 0),
                      (pw * 0.62, ph * 0.16), (pw * 0.82, ph * 0.04), (pw * 0.76, ph * 0.32)], fill=gold)  # fmt: skip
    elif rank == "queen":
        draw.polygon([(pw * 0.32, ph * 0.30), (pw * 0.36, ph * 0.10), (pw * 0.5, ph * 0.20), (pw * 0.64, ph * 0.10),
                      (pw * 0.68, ph * 0.30)], fill=gold)  # fmt: skip
    else:
        draw.polygon(
            [(pw * 0.22, ph * 0.34), (pw * 0.30, ph * 0.14), (pw * 0.78, ph * 0.14), (pw * 0.78, ph * 0.34)], fill=robe
        )
        draw.line([(pw * 0.7, ph * 0.2), (pw * 0.95, ph * 0.02)], fill=gold, width=6)
    for x in (0.43, 0.57):
        draw.ellipse((pw * x - 3, ph * 0.44 - 3, pw * x + 3, ph * 0.44 + 3), fill=(30, 30, 30))
    face.paste(panel, box[:2])
    face.paste(panel.transpose(Image.Transpose.ROTATE_180), (box[0], box[1] + ph))
    ImageDraw.Draw(face).rectangle((box[0], box[1], box[2] - 1, box[1] + 2 * ph), outline=(90, 80, 60), width=3)
    stamp(face, pip, (box[0] + pip.width * 0.55, box[1] + pip.height * 0.6), ink)
    stamp(face, turned(pip), (box[2] - pip.width * 0.55, box[3] - pip.height * 0.6), ink)
