"""A session's items as content parts of a message: each is read, bounded and re-encoded once, not once per call."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from agents.questions import ContentPart
from serving.images import encode_image, image_part, text_part
from storage.errors import CollectionError
from storage.items import Item, read_bytes

_CACHE_BYTES = 256 * 2**20


class Gallery:
    """Content parts by content hash; the most recently used 256 MiB of them stay in memory."""

    def __init__(self, items: Iterable[Item], longest_side: int) -> None:
        self._items = {item.content_hash: item for item in items}
        self._longest_side = longest_side
        self._kept: OrderedDict[str, tuple[ContentPart, int]] = OrderedDict()
        self._bytes = 0

    async def part(self, content_hash: str) -> ContentPart:
        """The content part of an item.

        Raises:
            CollectionError: the file is gone or has changed since the session began.
        """
        if content_hash in self._kept:
            self._kept.move_to_end(content_hash)
            return self._kept[content_hash][0]
        item = self._items[content_hash]
        if item.text is not None:
            return text_part(item.text)
        part, size = await asyncio.to_thread(self._encode, item)
        if content_hash not in self._kept:
            self._kept[content_hash] = (part, size)
            self._bytes += size
        while self._bytes > _CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][1]
        return part

    def _encode(self, item: Item) -> tuple[ContentPart, int]:
        try:
            jpeg = encode_image(read_bytes(item), self._longest_side)
        except CollectionError as e:
            raise CollectionError(f"{item.name}: {str(e).removeprefix(item.name).lstrip()}") from e
        return image_part(jpeg), len(jpeg) * 4 // 3
