"""Decks without number: the design of one card drawn afresh, so that no colour, font or layout stands for a value."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from training.world.labels import SUITS
from training.world.letters import Letters

Color = tuple[int, int, int]

_GOLD: Color = (205, 165, 85)


@dataclass(frozen=True)
class Design:
    """What a deck looks like. Lengths are shares of the card's height unless they say otherwise."""

    paper: Color
    stains: float
    """How strong the grain of the paper is, 0 to about 1."""
    rim: float
    """How dark the edges of the paper are."""
    ink: Color
    """Ink of this card's suit."""
    other: Color
    """The second colour of pips that have two."""
    letters: Letters
    pip_style: str
    index_height: float
    index_pip: float
    """Height of the small pip at the index; 0: none."""
    corners: str
    """'two', 'four', 'left' (top right and bottom left), 'single' or 'none'."""
    upright: bool
    """Lower indices stand upright."""
    beside: bool
    """The pip stands beside the letter, not below."""
    margin: tuple[float, float]
    """Of the index from the edge, in x (share of the width) and y."""
    pip_height: float
    columns: float
    """Distance of the outer pips from the middle, as a share of the width."""
    rows: float
    """Distance of the outer pips from the middle."""
    mirrored: bool
    """Pips of the lower half stand upside down."""
    frame: str
    """'none', 'edge', 'inner' or 'double'."""
    line: Color
    radius: float
    """Corner radius."""


def dark(color: Color) -> bool:
    """Whether print on this colour should be light."""
    return 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] < 110


def _hsv(h: float, s: float, v: float) -> Color:
    r, g, b = colorsys.hsv_to_rgb(h % 1.0, min(1.0, max(0.0, s)), min(1.0, max(0.0, v)))
    return round(r * 255), round(g * 255), round(b * 255)


def _paper(rng: np.random.Generator) -> tuple[Color, float, float]:
    """Colour, grain and rim of the paper."""
    kind, u = rng.random(), rng.uniform
    if kind < 0.60:
        v = float(u(0.88, 1.0))
        return _hsv(float(u(0.08, 0.16)), float(u(0, 0.06)), v), float(rng.choice([0, 0, 0, u(0.02, 0.12)])), 0.0
    if kind < 0.77:
        stains = float(u(0.0, 0.45))
        return _hsv(float(u(0.08, 0.14)), float(u(0.08, 0.5)), float(u(0.62, 0.98))), stains, float(u(0, 0.5))
    if kind < 0.89:
        tone = float(rng.choice([0.0, 0.0, u(0, 1.0), 0.62]))
        return (
            _hsv(tone, float(rng.choice([0, u(0, 0.9)])), float(u(0.02, 0.4))),
            float(rng.choice([0, u(0, 0.5)])),
            0.0,
        )
    if kind < 0.95:
        return _hsv(0, 0, float(u(0.6, 0.95))), float(u(0, 0.5)), float(u(0, 0.3))
    return _hsv(float(u(0, 1)), float(u(0.1, 0.9)), float(u(0.4, 1.0))), float(u(0, 0.3)), 0.0


def _inks(paper: Color, rng: np.random.Generator) -> dict[str, Color]:
    """Ink of each suit: red and black, four colours, one for all, or any."""
    kind, u = rng.random(), rng.uniform
    light = dark(paper)
    red = _hsv(float(u(-0.06, 0.04)), float(u(0.6, 1.0)), float(u(0.75, 1.0) if light else u(0.5, 0.98)))
    black = _hsv(float(u(0, 1)), float(u(0, 0.25)), float(u(0.75, 1.0) if light else u(0.0, 0.28)))
    if kind < 0.48:
        return {"hearts": red, "diamonds": red, "clubs": black, "spades": black}
    if kind < 0.58:
        blue, green = _hsv(float(u(0.55, 0.66)), 0.8, 0.8), _hsv(float(u(0.28, 0.42)), 0.8, float(u(0.4, 0.8)))
        return {"hearts": red, "diamonds": blue, "clubs": green, "spades": black}
    if kind < 0.86:
        gold = _hsv(float(u(0.09, 0.15)), float(u(0.2, 0.75)), float(u(0.55, 0.95)))
        pick = rng.random()
        one = black if pick < 0.55 else red if pick < 0.72 else gold if pick < 0.86 else _hsv(float(u(0, 1)), 0.8, 0.6)
        return dict.fromkeys(SUITS, one)
    return {suit: _hsv(float(u(0, 1)), float(u(0.2, 1)), float(u(0.6, 1.0) if light else u(0, 0.6))) for suit in SUITS}


def _legible(ink: Color, paper: Color) -> Color:
    """The ink, made lighter or darker where it would vanish in the paper."""
    a, b = np.asarray(ink, float), np.asarray(paper, float)
    weights = np.array([0.3, 0.59, 0.11])
    if abs(float((a - b) @ weights)) > 55 or float(np.abs(a - b).sum()) > 230:
        return ink
    far = a + (255 - a) * 0.75 if dark(paper) else a * 0.3
    return round(far[0]), round(far[1]), round(far[2])


def draw_design(suit: str, rng: np.random.Generator) -> Design:
    """A random design for a card of this suit."""
    u = rng.uniform
    paper, stains, rim = _paper(rng)
    ink = _legible(_inks(paper, rng)[suit], paper)
    other: Color = paper if rng.random() < 0.5 else (255, 255, 255) if rng.random() < 0.4 else _GOLD
    if other != paper and rng.random() < 0.4:
        other = _hsv(float(u(0, 1)), float(u(0, 1)), float(u(0.3, 1)))
    styles = ("solid", "outline", "edged", "rings", "worn", "graded", "hatched", "pattern")
    shares = np.array([0.66, 0.07, 0.05, 0.04, 0.07, 0.05, 0.03, 0.03])
    # A large index leaves the pips less room.
    large = rng.random() < 0.2
    index = float(u(0.17, 0.27) if large else u(0.075, 0.16))
    room = float(u(0.55, 0.85)) if large else 1.0
    return Design(
        paper=paper, stains=stains, rim=rim, ink=ink, other=other, letters=Letters(rng),
        pip_style=str(rng.choice(styles, p=shares)),
        index_height=index, index_pip=index * float(u(0.5, 1.05)),
        corners=str(rng.choice(("two", "four", "left", "single"), p=(0.76, 0.17, 0.03, 0.04))),
        upright=rng.random() < 0.06, beside=rng.random() < 0.04,
        margin=(float(u(0.015, 0.075)), float(u(0.012, 0.06))),
        pip_height=float(u(0.11, 0.21)) * room, columns=float(u(0.13, 0.27)) * room, rows=float(u(0.26, 0.39)),
        mirrored=rng.random() < 0.88,
        frame=str(rng.choice(("none", "edge", "inner", "double"), p=(0.62, 0.12, 0.2, 0.06))),
        line=ink if rng.random() < 0.4 else _hsv(float(u(0, 1)), float(u(0, 0.7)), float(u(0.0, 0.8))),
        radius=float(u(0.0, 0.07)),
    )  # fmt: skip
