"""From an untrusted image to the pixels of the tower (NumPy and Pillow only)."""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings

import numpy as np
from PIL import Image

from serving.images import on_white
from serving.llava.errors import MessageError

MOST_BYTES = 32 * 1024 * 1024
MOST_PIXELS = 50_000_000
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_DATA = re.compile(r"data:image/[a-zA-Z0-9.+-]+;base64,")


def read_image(url: str) -> Image.Image:
    """The image in a base64 `data:` URL, decoded as RGB or RGBA.

    Raises MessageError for any other URL, for what is no image, and for more than 50 million pixels, which is checked
    before anything is decoded.
    """
    head = _DATA.match(url[:100])
    if head is None:
        raise MessageError("image_url.url must be a data:image/...;base64, URL; the server fetches nothing")
    if len(url) > MOST_BYTES * 4 // 3 + 200:
        raise MessageError(f"the image is larger than {MOST_BYTES // 2**20} MiB; send a smaller one")
    try:
        payload = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise MessageError("the image is not valid base64") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(payload), formats=_FORMATS)
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise MessageError(
                    f"the image has {width} x {height} pixels; at most {MOST_PIXELS // 10**6} million are read"
                )
            image.load()
            return image
    except MessageError:
        raise
    except Image.DecompressionBombError:
        raise MessageError(f"the image has too many pixels; at most {MOST_PIXELS // 10**6} million are read") from None
    # Decoders of damaged files raise whatever they like (OSError, SyntaxError, struct.error, ...).
    except Exception as error:  # noqa: BLE001
        raise MessageError(f"the image cannot be decoded ({type(error).__name__}); send a PNG or JPEG") from None


def to_pixels(image: Image.Image, size: int) -> np.ndarray:
    """The whole image as RGB, scaled to (size, size, 3) uint8 with an antialiasing filter."""
    rgb = on_white(image)
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)
