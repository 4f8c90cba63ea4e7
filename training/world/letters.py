"""Index letters of a card in the fonts that are at hand, made bolder, thinner, wider, slanted or uneven.

Pillow brings one font. Those that matplotlib ships (open licences) are used where it is installed; nothing else of it
is touched.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_HEIGHT = 96
_FILES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic", "DejaVuSansMono",
    "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBol",
    "STIXGeneralItalic", "STIXGeneralBolIta", "cmr10", "cmb10", "cmss10", "cmtt10", "cmti10",
)  # fmt: skip


@lru_cache(maxsize=1)
def fonts() -> tuple[str | None, ...]:
    """The fonts at hand: None is Pillow's own, the others are files."""
    found = find_spec("matplotlib")
    if found is None or found.origin is None:
        return (None,)
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    return (None, *(str(folder / f"{name}.ttf") for name in _FILES if (folder / f"{name}.ttf").is_file()))


@lru_cache(maxsize=2048)
def _letter(text: str, font: str | None, stroke: int) -> Image.Image:
    """Mask (L) cut to its ink."""
    face = ImageFont.load_default(_HEIGHT) if font is None else ImageFont.truetype(font, _HEIGHT)
    canvas = Image.new("L", (_HEIGHT * 3, _HEIGHT * 2), 0)
    ImageDraw.Draw(canvas).text((_HEIGHT // 2, _HEIGHT // 4), text, fill=255, font=face, stroke_width=stroke)
    box = canvas.getbbox()
    assert box is not None, f"no ink in {text!r}"
    return canvas.crop(box)


class Letters:
    """The lettering of one deck: a font and what is done to it, drawn from `rng` once."""

    def __init__(self, rng: np.random.Generator) -> None:
        known = fonts()
        self.font = known[int(rng.integers(len(known)))]
        self.stroke = int(rng.choice([0, 0, 1, 2, 3, 5]))
        self.thin = float(rng.uniform(1.0, 2.5)) if self.stroke == 0 and rng.random() < 0.15 else 0.0
        self.aspect = float(rng.uniform(0.66, 1.15))
        self.shear = float(rng.uniform(-0.05, 0.3)) if rng.random() < 0.2 else 0.0
        self.hollow = rng.random() < 0.06
        self.slab = float(rng.uniform(0.05, 0.12)) if rng.random() < 0.12 else 0.0
        self.squeeze = float(rng.uniform(0.6, 0.95))
        self.taper = float(rng.uniform(-0.12, 0.12)) if rng.random() < 0.2 else 0.0

    def mask(self, text: str, height: int) -> Image.Image:
        """Mask (L) of a text, `height` pixels high."""
        ink = _letter(text, self.font, self.stroke)
        if self.thin:
            ink = ink.filter(ImageFilter.GaussianBlur(self.thin)).point([max(0, (v - 150) * 5) for v in range(256)])
        if self.hollow:
            core = ink.filter(ImageFilter.GaussianBlur(2.0)).point([max(0, (v - 190) * 8) for v in range(256)])
            ink = ink.copy()
            ink.paste(0, (0, 0), core)
        if self.slab and text in "AKJ":
            ink = self._with_slab(ink)
        if self.shear or self.taper:
            w, h = ink.size
            lean, inset = self.shear * h, self.taper * w
            wide = Image.new("L", (round(w + abs(lean)), h), 0)
            wide.paste(ink, (0, 0))
            start = max(0.0, -lean)
            corners = (-start - lean + inset, 0, -start, h, wide.width - start, h, wide.width - start - lean - inset, 0)
            ink = wide.transform(wide.size, Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
            ink = ink.crop(ink.getbbox() or (0, 0, w, h))
        squeeze = self.squeeze if len(text) > 1 else 1.0
        width = max(3, round(ink.width / ink.height * height * self.aspect * squeeze))
        return ink.resize(
            (width, height), Image.Resampling.BOX if height < ink.height / 2 else Image.Resampling.HAMMING
        )

    def _with_slab(self, ink: Image.Image) -> Image.Image:
        """The letter on a bar, as slab serifs are."""
        bar = max(2, round(self.slab * ink.height))
        out = Image.new("L", (ink.width + 2 * bar, ink.height), 0)
        out.paste(ink, (bar, 0))
        draw = ImageDraw.Draw(out)
        bottom = ink.crop((0, ink.height - bar, ink.width, ink.height)).getbbox()
        if bottom is not None:
            draw.rectangle((bottom[0], ink.height - bar, min(out.width, bottom[2] + 2 * bar), ink.height), fill=255)
        return out
