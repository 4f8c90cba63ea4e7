"""The face of one card of a random design: paper, frame, indices, pips or a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageOps

from training.world.cards import INDEX, PIP_PLACES
from training.world.designs import Design, dark, draw_design
from training.world.figures import COURTS, ILLUSTRATIONS, court, illustration, recolored
from training.world.labels import RANKS
from training.world.papers import GRAINS, piece, printed, sheet
from training.world.pips import pip_outline, pip_sprite
from training.world.shapes import Point, turned

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]

_COURTS = RANKS[10:]


def draw_face(suit: str, rank: str, height: int, rng: np.random.Generator) -> tuple[Image.Image, Design]:
    """A card (RGB, about 0.7 as wide as high) and the design it follows."""
    look = draw_design(suit, rng)
    size = (round(height * float(rng.uniform(0.64, 0.74))), height)
    pen = _Pen(Image.Image(), look, suit, rank, rng)
    pen.face = sheet(size, look.paper, look.stains, look.rim, rng)
    pen.frame()
    pen.middle()
    if rng.random() < 0.12:
        pen.writing()
    pen.indices()
    face = pen.face
    if rng.random() < 0.10:
        face = printed(face, float(rng.uniform(0.2, 0.9)), rng)
    return face, look


class _Pen:
    """Draws the parts of one card, in the order they lie."""

    def __init__(self, face: Image.Image, look: Design, suit: str, rank: str, rng: np.random.Generator) -> None:
        self.face, self.look, self.rank, self.rng = face, look, rank, rng
        self.number = RANKS.index(rank) + 1
        self.outline = pip_outline(suit, rng)
        self.sprites: dict[str, Image.Image] = {}

    def pip(self, height: float, style: str | None = None) -> Image.Image:
        """The suit symbol (RGBA), `height` of the card's height. Small ones are solid in most decks."""
        style = style or self.look.pip_style
        if style not in self.sprites:
            grain = piece(int(self.rng.integers(GRAINS)), (64, 64), self.rng)
            self.sprites[style] = pip_sprite(self.outline, style, self.look.ink, self.look.other, grain, self.rng)
        whole = self.sprites[style]
        high = max(5, round(height * self.face.height))
        return whole.resize((max(4, round(whole.width * high / whole.height)), high), Image.Resampling.BOX)

    def put(self, sprite: Image.Image, center: Point) -> None:
        """Paste a sprite (RGBA) at a place in shares of width and height."""
        w, h = self.face.size
        self.face.paste(
            sprite, (round(center[0] * w - sprite.width / 2), round(center[1] * h - sprite.height / 2)), sprite
        )

    def frame(self) -> None:
        """Lines around the card, inside its edge or around its middle."""
        if self.look.frame == "none":
            return
        draw, (w, h), rng = ImageDraw.Draw(self.face), self.face.size, self.rng
        inset = float(rng.uniform(0.01, 0.05) if self.look.frame == "edge" else rng.uniform(0.09, 0.2))
        width = int(rng.integers(1, 5 if self.look.frame == "edge" else 3))
        for k in range(2 if self.look.frame == "double" else 1):
            x, y = (inset + 0.02 * k) * w * (1.0 if self.look.frame == "edge" else 1.25), (inset + 0.015 * k) * h
            draw.rounded_rectangle((x, y, w - 1 - x, h - 1 - y), float(rng.choice([0, 0.03])) * h,
                                   outline=self.look.line, width=width)  # fmt: skip

    def indices(self) -> None:
        """Letter and small pip in the corners."""
        look, (w, h), rng = self.look, self.face.size, self.rng
        mask = look.letters.mask(INDEX[self.number - 1], max(7, round(look.index_height * h)))
        letter = Image.new("RGB", mask.size, look.ink)
        letter.putalpha(mask)
        style = look.pip_style if look.pip_style in ("outline", "graded", "edged") else "solid"
        small = self.pip(look.index_pip, style)
        gap = round(float(rng.uniform(0.005, 0.03)) * h)
        if look.beside:
            block = Image.new("RGBA", (letter.width + gap + small.width, max(letter.height, small.height)))
            block.paste(letter, (0, 0))
            block.paste(small, (letter.width + gap, 0))
        else:
            block = Image.new("RGBA", (max(letter.width, small.width), letter.height + gap + small.height))
            block.paste(letter, ((block.width - letter.width) // 2, 0))
            block.paste(small, ((block.width - small.width) // 2, letter.height + gap))
        left, top = round(look.margin[0] * w), round(look.margin[1] * h)
        right, bottom = w - left - block.width, h - top - block.height
        low = block if look.upright else turned(block)
        places = {
            "two": ((block, left, top), (low, right, bottom)),
            "four": ((block, left, top), (low, right, bottom), (block, right, top), (low, left, bottom)),
            "left": ((block, right, top), (low, left, bottom)),
            "single": ((block, left, top),),
        }[look.corners]
        for sprite, x, y in places:
            self.face.paste(sprite, (x, y), sprite)

    def middle(self) -> None:
        """Pips in their places; a court; or one great pip, a picture, nothing, as some decks have it."""
        chance = self.rng.random()
        if self.number > 10:
            if chance < 0.80:
                self.court()
            elif chance < 0.9:
                self.picture()
            elif chance < 0.96:
                self.great_pip()
        elif self.number == 1:
            if chance < 0.12:
                self.picture()
            if chance < 0.9:
                self.great_pip()
        elif chance < 0.72:
            if chance < 0.08:
                self.picture()
            self.pips()
        elif chance < 0.92:
            self.picture()
        elif chance < 0.97:
            self.great_pip()

    def pips(self) -> None:
        """The pips of a number card."""
        look, rng = self.look, self.rng
        small = look.frame in ("inner", "double") and rng.random() < 0.7
        shrink = float(rng.uniform(0.5, 0.85)) if small else 1.0
        height = look.pip_height * (0.75 if small else 1.0)
        if self.number < 4 and rng.random() < 0.3:
            height *= float(rng.uniform(1.0, 1.7))
        if self.number > 6:
            height = min(height, 0.165)
        sprite = self.pip(height)
        flip = rng.random() < 0.25
        for x, y in PIP_PLACES[self.number]:
            at = (0.5 + (x - 0.5) * 2 * look.columns * shrink, 0.5 + (y - 0.5) * 2 * look.rows * shrink)
            if flip and self.number == 7:
                at = (at[0], 1 - at[1])
            self.put(turned(sprite) if look.mirrored and y > 0.5 else sprite, at)

    def great_pip(self) -> None:
        """One pip in the middle, plain, ornate, or with a picture in it."""
        rng = self.rng
        high = float(rng.uniform(0.16, 0.36) if rng.random() < 0.6 else rng.uniform(0.36, 0.66))
        styles = ("solid", "outline", "rings", "hatched", "pattern", "edged", "worn")
        style = str(rng.choice(styles)) if high > 0.25 and rng.random() < 0.6 else self.look.pip_style
        sprite = self.pip(high, style)
        if sprite.width > 0.92 * self.face.width:
            sprite = sprite.resize((round(0.9 * self.face.width), sprite.height))
        if high > 0.3 and rng.random() < 0.25:
            drawn = recolored(illustration(int(rng.integers(ILLUSTRATIONS))), self.look.ink, self.look.other, rng)
            inner = self.pip(high * 0.9, "solid").resize(sprite.size).getchannel("A")
            drawn = drawn.resize(sprite.size)
            drawn.putalpha(inner.point([v // 2 for v in range(256)]))
            sprite.alpha_composite(drawn)
        place = (0.5, 0.5 + float(rng.normal(0, 0.02)))
        self.put(sprite, place)
        if high > 0.2 and rng.random() < 0.25:
            tiny = self.pip(high * float(rng.uniform(0.25, 0.6)), "solid")
            hole = Image.new("RGB", tiny.size, self.look.other)
            hole.putalpha(tiny.getchannel("A"))
            self.put(hole, place)

    def court(self) -> None:
        """A figure, above and mirrored below or whole, in or without a frame, with pips at its corners."""
        rng, (w, h) = self.rng, self.face.size
        x, y = float(rng.uniform(0.06, 0.22)), float(rng.uniform(0.03, 0.14))
        box = (round(x * w), round(y * h), round((1 - x) * w), round((1 - y) * h))
        # Half the figures belong to any rank: what decks agree on is the index.
        rank = self.rank if rng.random() < 0.5 else _COURTS[int(rng.integers(3))]
        drawn = recolored(court(rank, int(rng.integers(COURTS))), self.look.ink, self.look.paper, rng)
        if rng.random() < 0.5:
            drawn = ImageOps.mirror(drawn)
        wide, high = box[2] - box[0], box[3] - box[1]
        if rng.random() < 0.82:
            half = drawn.resize((wide, high // 2))
            whole = Image.new("RGB", (wide, high // 2 * 2))
            whole.paste(half, (0, 0))
            whole.paste(turned(half), (0, high // 2))
        else:
            whole = drawn.resize((wide, high))
        self._lay(whole, box)
        if rng.random() < 0.6:
            line = self.look.line
            ImageDraw.Draw(self.face).rectangle(box, outline=line, width=int(rng.integers(1, 4)))
        if rng.random() < 0.8:
            sprite = self.pip(float(rng.uniform(0.08, 0.16)))
            edge = sprite.width / w * 0.55
            up = y + sprite.height / h * 0.6
            side = x + edge if rng.random() < 0.7 else 1 - x - edge
            self.put(sprite, (side, up))
            self.put(turned(sprite), (1 - side, 1 - up))

    def picture(self) -> None:
        """An illustration over the middle of the card, or over all of it."""
        rng, (w, h) = self.rng, self.face.size
        x, y = float(rng.uniform(0.0, 0.28)), float(rng.uniform(0.0, 0.28))
        box = (round(x * w), round(y * h), round((1 - x) * w), round((1 - y) * h))
        if rng.random() < 0.25:
            drawn = court(_COURTS[int(rng.integers(3))], int(rng.integers(COURTS)))
        else:
            drawn = illustration(int(rng.integers(ILLUSTRATIONS)))
        whole = recolored(drawn, self.look.ink, self.look.paper, rng).resize((box[2] - box[0], box[3] - box[1]))
        if x < 0.12:
            # Under the indices a picture is faint, or nobody could read them.
            whole = Image.blend(whole, Image.new("RGB", whole.size, self.look.paper), float(rng.uniform(0.4, 0.85)))
        self._lay(whole, box)

    def _lay(self, picture: Image.Image, box: Box) -> None:
        """Print a picture onto the paper: ink on light paper, light on dark paper, or as it is."""
        under = self.face.crop((box[0], box[1], box[0] + picture.width, box[1] + picture.height))
        chance = self.rng.random()
        if chance < 0.65 and not dark(self.look.paper):
            picture = ImageChops.multiply(under, picture)
        elif chance < 0.65:
            picture = ImageChops.screen(under, ImageOps.invert(picture))
        self.face.paste(picture, box[:2])

    def writing(self) -> None:
        """A pale line across the card, as picture agencies print it, or small print."""
        rng, (w, h) = self.rng, self.face.size
        text = "".join(chr(97 + int(c)) for c in rng.integers(0, 26, int(rng.integers(4, 11))))
        high = round(float(rng.uniform(0.04, 0.11)) * h)
        parts = [self.look.letters.mask(c, high) for c in text]
        total = sum(p.width for p in parts)
        tone = int(rng.integers(120, 256))
        y, x = round(float(rng.uniform(0.3, 0.7)) * h), round((w - total) / 2)
        force = float(rng.uniform(0.2, 0.8))
        for part in parts:
            self.face.paste((tone,) * 3, (x, y), part.point([round(v * force) for v in range(256)]))
            x += part.width + 1
