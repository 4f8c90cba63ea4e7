"""Colours and shapes that tell clusters apart on a map, also for people who see colours otherwise.

Twelve colours, chosen to lie far from each other as seen with normal sight and with either of the three kinds of colour
blindness, and to stand out from the page, in light and in dark; `static/map-colours.css` has them. The next twelve
clusters have them again in another shape. The smallest of very many are grey.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from partita.web.rendering import STATIC

SHAPES = ("circle", "square", "triangle", "diamond")
COLOURS = 12
COLOURED = COLOURS * len(SHAPES)
"""So many clusters have a mark of their own, the largest ones."""
GREY = 0

Scheme = Literal["light", "dark"]


def mark(cluster: int) -> tuple[int, str]:
    """The colour, from 1, and the shape of the cluster with this number; grey for none (0) and for the smallest."""
    if not 1 <= cluster <= COLOURED:
        return GREY, SHAPES[0]
    turn, colour = divmod(cluster - 1, COLOURS)
    return colour + 1, SHAPES[turn]


@cache
def colours(scheme: Scheme) -> tuple[str, ...]:
    """Grey and the colours, as ``#rrggbb``."""
    style = (STATIC / "map-colours.css").read_text()
    light, _, dark = style.partition("@media")
    found = dict(re.findall(r"--k(\d+): (#[0-9a-f]{6})", dark if scheme == "dark" else light))
    return tuple(found[str(number)] for number in range(COLOURS + 1))
