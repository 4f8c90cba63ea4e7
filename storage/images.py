"""Opening image files: the one place that says which of them are images to us.

`storage.items` checks an image with it before a session starts, `serving.images` reads it again for a question: what
passes the one must not fail the other.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 100_000_000
"""Larger images are refused before anything of them is decoded: 100 million pixels take 300 MB."""

# Only these decoders run, whatever a file claims to be: some of Pillow's others start programs (EPS).
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "PPM")
# Images of more pixels than this are held one at a time, so that memory stays bounded.
_LARGE = 16_000_000
_one_large = threading.Lock()


class Undecodable(Exception):
    """Bytes that are no image we can use; `str` says why, in words for the user."""


@contextmanager
def opened(content: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The image in `content`, not yet decoded: the block decodes it.

    Raises:
        Undecodable: it is no image, one of more than `max_pixels`, or a broken one, which may only show in the block.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with quiet(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise Undecodable(_too_large(max_pixels, f"{width:,} x {height:,} pixels"))
            with _one_large if width * height > _LARGE else nullcontext():
                yield image
    except Undecodable:
        raise
    except Image.DecompressionBombError:
        raise Undecodable(_too_large(max_pixels, "more pixels than Pillow opens")) from None
    except UnidentifiedImageError:
        raise Undecodable("it is not an image" if content else "the file is empty") from None
    except MemoryError:
        raise Undecodable("there is not enough memory to decode it") from None
    except Exception as error:  # noqa: BLE001 - decoders raise nearly anything on hostile data
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise Undecodable(f"it can't be decoded ({why})") from None


_guard = threading.Lock()
_catchers: list[warnings.catch_warnings[None]] = []
_inside = 0


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings: Pillow has some for odd but readable files, and with warnings as errors they would fail.

    The filter is one for all threads, so the first to come in sets it and the last to go restores it.
    """
    global _inside
    with _guard:
        if not _inside:
            _catchers.append(warnings.catch_warnings())
            _catchers[-1].__enter__()
            warnings.simplefilter("ignore")
        _inside += 1
    try:
        yield
    finally:
        with _guard:
            _inside -= 1
            if not _inside:
                _catchers.pop().__exit__(None, None, None)


def _too_large(max_pixels: int, size: str) -> str:
    return f"it has {size}; at most {max_pixels / 1e6:g} megapixels are taken: make it smaller"
