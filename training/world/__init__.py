"""The rendered world of the built-in model: playing cards and fruit (NumPy and Pillow only)."""

from training.world.examples import write_examples
from training.world.labels import COLORS, CRITERIA, CRITERIA_OF, RANKS, SPECIES, SUITS, Kind, Purpose, image_seed
from training.world.scene import render

__all__ = [
    "COLORS", "CRITERIA", "CRITERIA_OF", "RANKS", "SPECIES", "SUITS",
    "Kind", "Purpose", "image_seed", "render", "write_examples",
]  # fmt: skip
