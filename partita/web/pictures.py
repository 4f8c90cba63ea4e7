"""Pictures of items as pages show them: read by number, made small, kept while there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from serving.images import encode_image
from storage.errors import UsageError
from storage.items import Item, read_bytes

SIDES = (192, 384, 1024)
"""Longest sides that pages ask for, in pixels, beside what the model was shown."""
SMALL_QUALITY, AS_ASKED = 82, 90
"""Of JPEGs on pages, and of those that a model is shown."""
_KEPT_BYTES = 96 * 2**20


class Pictures:
    """JPEGs by content and size; the most recently shown 96 MiB of them stay. For any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def jpeg(self, item: Item, side: int, root: Path, quality: int = SMALL_QUALITY) -> bytes:
        """An image of the collection in `root` as a JPEG without metadata, at most `side` pixels long.

        Raises:
            CollectionError: the file is gone, is another one than when the session began, or can't be read.
            UsageError: it is a text.
        """
        if item.text is not None:
            raise UsageError(f"{item.name} is a text and has no picture")
        key = item.content_hash, side, quality
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        jpeg = encode_image(read_bytes(item, root), side, quality=quality)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = jpeg
                self._bytes += len(jpeg)
            while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return jpeg
