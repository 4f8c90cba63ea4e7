"""Reading an answer's body: its content coding undone, and never more of it than we take.

The decoders of httpx know no bound: a bomb of a few kilobytes, or one packed twice, becomes gigabytes in one step.
"""

from __future__ import annotations

import zlib
from typing import Any

_GZIP_OR_ZLIB, _RAW = 47, -15
"""zlib's `wbits`."""


async def read_body(response: Any, most: int) -> bytes:
    """The body of an `httpx` response that was opened as a stream.

    Raises:
        ValueError: it has more than `most` bytes, or can't be decoded; in words for a user.
    """
    coding = response.headers.get("content-encoding", "").strip().lower()
    inflate = _Inflate() if coding in ("gzip", "x-gzip", "deflate") else None
    if inflate is None and coding not in ("", "identity"):
        raise ValueError(f"a content encoding that was not asked for ({coding[:40]!r})")
    came, body = 0, bytearray()
    async for piece in response.aiter_raw():
        came += len(piece)
        body += piece if inflate is None else inflate(piece, most + 1 - len(body))
        if max(came, len(body)) > most:
            raise ValueError(f"more than {most / (1 << 20):g} MB")
    if inflate is not None and came and not inflate.ended:
        raise ValueError("half a compressed body")
    return bytes(body)


class _Inflate:
    """gzip, or deflate with or without zlib's head: servers disagree about which it is."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._begun = False

    @property
    def ended(self) -> bool:
        return self._stream.eof

    def __call__(self, piece: bytes, most: int) -> bytes:
        try:
            out = self._stream.decompress(piece, most)
        except zlib.error:
            if self._begun:
                raise ValueError("a broken compressed body") from None
            self._begun, self._stream = True, zlib.decompressobj(_RAW)
            return self(piece, most)
        self._begun = True
        return out
