"""How an item becomes content parts of a question (CONTRACT 4).

An image is encoded once, when it is first needed, and the part is used again in every question about it
(ARCHITECTURE 11): `image_part(encode_image(path.read_bytes()))`.
"""

from __future__ import annotations

import base64
import hashlib
import io
from typing import TYPE_CHECKING, Any

from serving.bodies import EncodedPart
from storage.errors import CollectionError
from storage.images import Undecodable, opened

if TYPE_CHECKING:
    from PIL import Image

_JPEG = {"subsampling": 0, "optimize": False, "progressive": False}
_ORIENTATION = 0x0112
_TURN = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation → `Image.Transpose` that sets it upright."""


def encode_image(payload: bytes, longest_side: int = 768, *, quality: int = 90) -> bytes:
    """The image as the model gets it: a JPEG with no metadata, at most `longest_side` pixels long, never enlarged.

    The EXIF orientation is applied, transparency is laid on white, of an animation the first frame is taken. The same
    payload gives the same bytes.

    Whatever `storage.items.scan` accepts is encoded.

    Raises:
        CollectionError: not an image, a broken one, or one of too many pixels; the message says which.
    """
    from PIL import Image

    if longest_side < 1:
        raise ValueError(f"longest_side is {longest_side}: it must be at least 1 pixel")
    try:
        with opened(payload) as image:
            image.draft(None, (2 * longest_side, 2 * longest_side))  # JPEG decodes faster when it may decode less
            image.load()
            turn = _turn(image)
            flat = on_white(image)
            flat.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    except Undecodable as why:
        raise CollectionError(f"{why}; put a good image there, or take the file out of the collection") from None
    if turn is not None:
        flat = flat.transpose(Image.Transpose(turn))
    flat.info.clear()  # Pillow would write a comment again
    out = io.BytesIO()
    flat.save(out, "JPEG", quality=quality, **_JPEG)
    return out.getvalue()


def image_part(jpeg: bytes) -> EncodedPart:
    """An `image_url` content part with the JPEG in a `data:` URL, and its identity."""
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    part = EncodedPart(type="image_url", image_url={"url": url})
    part.identity = hashlib.sha256(jpeg).hexdigest()
    return part


def text_part(text: str) -> dict[str, Any]:
    """A `text` content part."""
    return {"type": "text", "text": text}


def _turn(image: Image.Image) -> int | None:
    """The `Image.Transpose` that sets the image upright; a broken EXIF block tells no orientation."""
    try:
        return _TURN.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - struct.error, SyntaxError, ValueError, …
        return None


def on_white(image: Image.Image) -> Image.Image:
    """RGB, whatever the mode: transparency on white, 16 and 32 bits a channel scaled to 8."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A"))
        return flat
    return _from_lab(image) if image.mode == "LAB" else image.convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    """The one mode that `convert` can't turn into RGB."""
    from PIL import ImageCms

    flat = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert flat is not None
    return flat


def _eight_bits(image: Image.Image) -> Image.Image:
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    grey = np.empty(values.shape, dtype=np.uint8)
    if image.mode.startswith("I;16"):
        scale = 1 / 257
    else:
        highest = float(np.nan_to_num(values).max(initial=0))
        scale = 255 / highest if highest > 255 else 1.0
    for top in range(0, len(values), 256):  # in strips: a large image in float64 would take gigabytes
        strip = np.nan_to_num(values[top : top + 256]).astype(np.float64)
        grey[top : top + 256] = (strip * scale).clip(0, 255).round()
    return Image.fromarray(grey)
