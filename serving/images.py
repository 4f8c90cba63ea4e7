"""How an item becomes content parts of a question (CONTRACT 4).

An image is encoded once, when it is first needed, and the part is used again in every question about it
(ARCHITECTURE 11): `image_part(encode_image(path.read_bytes()))`.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from storage.errors import CollectionError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 80_000_000
"""Larger images are refused before anything of them is decoded: 80 million pixels take 240 MB."""

_JPEG = {"quality": 90, "subsampling": 0, "optimize": False, "progressive": False}
_ORIENTATION = 0x0112
_TURN = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation → `Image.Transpose` that sets it upright."""


def encode_image(payload: bytes, longest_side: int = 768) -> bytes:
    """The image as the model gets it: a JPEG with no metadata, at most `longest_side` pixels long, never enlarged.

    The EXIF orientation is applied, transparency is laid on white, of an animation the first frame is taken. The same
    payload gives the same bytes.

    Raises:
        CollectionError: not an image, a broken one, or one of more than `MAX_PIXELS`; the message says which.
    """
    from PIL import Image, UnidentifiedImageError

    if longest_side < 1:
        raise ValueError(f"longest_side is {longest_side}: it must be at least 1 pixel")
    if not payload:
        raise CollectionError("the file is empty: put the image back or take the file out of the collection")
    try:
        with Image.open(io.BytesIO(payload)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise _too_large(f"{width}×{height}")
            image.draft(None, (2 * longest_side, 2 * longest_side))  # JPEG decodes faster when it may decode less
            turn = _TURN.get(image.getexif().get(_ORIENTATION, 1))
            flat = _on_white(image)
            flat.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
            if turn is not None:
                flat = flat.transpose(Image.Transpose(turn))
    except CollectionError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        raise _too_large("far too many") from None
    except UnidentifiedImageError:
        raise CollectionError(
            "not an image that can be read: save it as PNG, JPEG or WebP, or take it out of the collection"
        ) from None
    except Exception as fault:  # noqa: BLE001 decoders raise what they like: OSError, SyntaxError, struct.error, …
        raise CollectionError(f"a broken image ({_one_line(fault)}): save it again or take it out") from None
    flat.info.clear()  # Pillow would write a comment again
    out = io.BytesIO()
    flat.save(out, "JPEG", **_JPEG)
    return out.getvalue()


def image_part(jpeg: bytes) -> dict[str, Any]:
    """An `image_url` content part with the JPEG in a `data:` URL."""
    return {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()}}


def text_part(text: str) -> dict[str, Any]:
    """A `text` content part."""
    return {"type": "text", "text": text}


def _on_white(image: Image.Image) -> Image.Image:
    """RGB, whatever the mode: transparency on white, 16 and 32 bits a channel scaled to 8."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A"))
        return flat
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.mode.startswith("I;16"):
        values = values / 257
    elif values.max(initial=0) > 255:
        values = values * (255 / values.max())
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def _too_large(size: str) -> CollectionError:
    return CollectionError(f"{size} pixels, the limit is {MAX_PIXELS // 1_000_000} million: make the image smaller")


def _one_line(fault: Exception) -> str:
    return " ".join(str(fault).split())[:120] or type(fault).__name__
