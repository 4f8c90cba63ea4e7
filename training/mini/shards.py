"""Rendered images with their labels, in shards on disk that a worker process draws ahead of the training."""

from __future__ import annotations

import io
import os
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from serving.llava.images import to_pixels
from training.world import COLORS, RANKS, SPECIES, SUITS, Kind, Purpose, image_seed, render

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "rank": ("none", *RANKS), "suit": ("none", *SUITS), "species": ("none", *SPECIES), "color": ("none", *COLORS),
    "kind": ("none", "cards", "fruit"),
}  # fmt: skip
"""What image token i tells, in order: value 0 means that the question does not apply."""

Shard = tuple[np.ndarray, np.ndarray]
"""Images (n, S, S, 3) uint8 and attributes (n, 5) int64 in the order of ATTRIBUTES."""


WILD = 0.78
"""Share of wild cards among the cards of a training stream."""


def view(purpose: Purpose, seed: int, index: int, image_size: int, wild: float = WILD) -> tuple[np.ndarray, list[int]]:
    """Image `index` of a stream as the tower sees it, (S, S, 3) uint8, with its attributes.

    `wild` is the share of the cards that `training.world.wild` draws; the rest are clean, and some of those are drawn
    larger, stored as JPEG and scaled down, as users' images are.
    """
    at = image_seed(purpose, seed, index)
    rng = np.random.default_rng([at, 1])
    kind: Kind = "cards" if rng.random() < 0.75 else "fruit"
    large = rng.random() < 0.2
    quality = int(rng.integers(55, 96) if large else rng.integers(75, 96)) if rng.random() < 0.4 else None
    side = int(rng.choice([192, 208, 224])) if large else image_size
    if kind == "cards" and rng.random() < wild:
        picture, labels = render(kind, at, image_size, wild=True)
    else:
        picture, labels = render(kind, at, side)
        if quality is not None:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=quality)
            picture = Image.open(buffer)
    told = {"kind": kind, **labels}
    return to_pixels(picture, image_size), [names.index(told.get(name, "none")) for name, names in ATTRIBUTES.items()]


def views(purpose: Purpose, seed: int, start: int, count: int, image_size: int, wild: float = WILD) -> Shard:
    """`count` images of a stream from `start` on; see `view`."""
    images = np.empty((count, image_size, image_size, 3), np.uint8)
    attributes = np.empty((count, len(ATTRIBUTES)), np.int64)
    for i in range(count):
        images[i], attributes[i] = view(purpose, seed, start + i, image_size, wild)
    return images, attributes


def _write_shard(path: Path, purpose: Purpose, seed: int, start: int, count: int, image_size: int) -> None:
    if path.exists():
        return
    images, attributes = views(purpose, seed, start, count, image_size)
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        np.savez(file, images=images, attributes=attributes)
    draft.replace(path)


class ShardStream:
    """Shards of the training stream, drawn ahead in another process. Their content depends on the seed alone."""

    def __init__(
        self, folder: Path, purpose: Purpose, seed: int, count: int, image_size: int, ahead: int = 6, workers: int = 2
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.purpose, self.seed, self.count, self.image_size, self.ahead = (
            folder,
            purpose,
            seed,
            count,
            image_size,
            ahead,
        )
        self.pool = ProcessPoolExecutor(workers, get_context("spawn"), os.nice, (5,))
        self.pending: dict[int, Future[None]] = {}

    def __enter__(self) -> ShardStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def get(self, number: int) -> Shard:
        """Shard `number`; the next few are ordered as well."""
        for n in range(number, number + self.ahead + 1):
            if n not in self.pending:
                order = (self._path(n), self.purpose, self.seed, n * self.count, self.count, self.image_size)
                self.pending[n] = self.pool.submit(_write_shard, *order)
        self.pending[number].result()
        with np.load(self._path(number)) as file:
            return file["images"], file["attributes"]

    def drop(self, number: int) -> None:
        """Forget a shard that no later step draws from."""
        self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"
