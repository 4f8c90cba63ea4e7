"""Where items lie on a map: their embeddings in two dimensions, like near like.

    python -m graphs.layout < vectors > positions

t-SNE on the first 50 principal components. It takes a core for a minute or so, most of it with the interpreter's lock
held: whoever has others waiting runs this module as a process (``apart``), which ends when its stdin does.
"""

from __future__ import annotations

import io
import math
import os
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.float32]

SAMPLE = 8_000
"""Of more items, so many are laid out, and each of the others lies amid those of them that are nearest to it."""
ALL = 10_000
"""Up to so many are laid out together."""
_DIMENSIONS = 50
_ROUNDS = 500
_NEAREST = 3
_DISC = 0.004
"""From one to the next of those that are embedded alike."""
_GOLDEN = math.pi * (3 - math.sqrt(5))
_ROWS = 2048
_LENGTH = struct.Struct("<Q")


class LayoutFailed(Exception):
    """The process that lays out has ended without a layout; says how."""


def layout(
    vectors: npt.NDArray[np.integer[Any] | np.floating[Any]], *, most: int = ALL, sample: int = SAMPLE
) -> Positions:
    """(n, 2) positions between 0 and 1 of embeddings (n, d), the same for the same embeddings.

    Rows of zeros, which say nothing, have no position: their rows are NaN.
    """
    places = np.full((len(vectors), 2), np.nan, dtype=np.float32)
    known = np.flatnonzero(np.any(vectors != 0, axis=1))
    if not len(known):
        return places
    rows = np.asarray(vectors[known], dtype=np.float32)
    chance = np.random.default_rng(0)
    laid = np.arange(len(rows))
    if len(rows) > most:
        laid = np.sort(chance.choice(len(rows), sample, replace=False))
    components = _components(rows, laid)
    found = np.empty((len(rows), 2), dtype=np.float32)
    found[laid] = _neighbours_kept(components[laid], chance)
    others = np.setdiff1d(np.arange(len(rows)), laid, assume_unique=True)
    if len(others):
        found[others] = _amid(components[others], components[laid], found[laid], chance)
    places[known] = _side_by_side(_in_square(found), rows)
    return places


def is_sampled(items: int) -> bool:
    """Whether of so many items some are laid out only by their neighbours."""
    return items > ALL


def _components(rows: npt.NDArray[np.float32], laid: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """The first principal components of what is laid out, for all rows."""
    from sklearn.decomposition import PCA

    if not np.ptp(rows[laid], axis=0).any():  # all alike
        return np.zeros((len(rows), 2), dtype=np.float32)
    count = min(_DIMENSIONS, len(laid), rows.shape[1])
    exact = rows.shape[1] <= 1024
    found = PCA(count, svd_solver="covariance_eigh" if exact else "randomized", random_state=0).fit(rows[laid])
    return np.concatenate([found.transform(rows[at : at + _ROWS]) for at in range(0, len(rows), _ROWS)]).astype(
        np.float32
    )


def _neighbours_kept(components: npt.NDArray[np.float32], chance: np.random.Generator) -> Positions:
    """Positions of a few thousand rows, in no unit."""
    from sklearn.manifold import TSNE

    begin = np.zeros((len(components), 2), dtype=np.float32)
    begin[:, : components.shape[1]] = components[:, :2]
    spread = float(begin[:, 0].std())
    begin = begin / spread if spread > 0 else begin
    begin += chance.normal(scale=1e-2, size=begin.shape).astype(np.float32)  # for what is alike in both
    if len(components) < 8 or spread == 0:
        return begin
    method = TSNE(
        init=begin * 1e-4,
        perplexity=min(max(len(components) / 20, 5.0), 30.0, (len(components) - 1) / 3),
        max_iter=_ROUNDS,
        random_state=0,
        n_jobs=1,
    )
    return np.asarray(method.fit_transform(components), dtype=np.float32)


def _amid(
    rows: npt.NDArray[np.float32], laid: npt.NDArray[np.float32], places: Positions, chance: np.random.Generator
) -> Positions:
    """For each row the middle of the nearest that are laid out, a little aside so that none hides another."""
    squares = np.einsum("ij,ij->i", laid, laid)
    aside = float(places.std()) * 0.01
    out = np.empty((len(rows), 2), dtype=np.float32)
    for at in range(0, len(rows), _ROWS):
        some = rows[at : at + _ROWS]
        away = squares[None, :] - 2 * (some @ laid.T)
        nearest = np.argpartition(away, min(_NEAREST, len(laid)) - 1, axis=1)[:, :_NEAREST]
        out[at : at + _ROWS] = places[nearest].mean(axis=1)
    out += chance.normal(scale=aside, size=out.shape).astype(np.float32)
    return out


def _in_square(places: Positions) -> Positions:
    """Moved and scaled, the same both ways, into the middle of the unit square."""
    low, high = places.min(axis=0), places.max(axis=0)
    extent = float((high - low).max())
    if extent <= 0:
        return np.full_like(places, 0.5)
    moved: Positions = np.clip((places - (low + high) / 2) / extent + 0.5, 0, 1).astype(np.float32)
    return moved


def _side_by_side(places: Positions, rows: npt.NDArray[np.float32]) -> Positions:
    """Items with one and the same embedding (a caption that fits them all) in a disc, not on top of each other."""
    alike: dict[bytes, list[int]] = {}
    for at, row in enumerate(rows):
        alike.setdefault(row.tobytes(), []).append(at)
    for some in alike.values():
        if len(some) > 1:
            turn = np.arange(len(some))
            away = _DISC * np.sqrt(turn)
            disc = np.stack([away * np.cos(_GOLDEN * turn), away * np.sin(_GOLDEN * turn)], axis=1)
            places[some] = places[some].mean(axis=0) + disc
    return np.clip(places, 0, 1)


# -- as a process of its own ------------------------------------------------------------------------------------------


def apart(vectors: npt.NDArray[Any]) -> Positions:
    """The same as ``layout``, by a process of its own on one core, with everybody else going first.

    Raises:
        LayoutFailed: it ended without a layout.
    """
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # The child imports what this process imports, and nothing that happens to lie in the current folder (-P).
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    command = [sys.executable, "-P", "-m", "graphs.layout"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            _send(child.stdin, vectors)
            places: Positions = _receive(child.stdout)
        except (OSError, ValueError) as error:
            with suppress(OSError):
                child.stdin.close()
            child.kill()
            raise LayoutFailed(f"the process that draws it ended with status {child.wait()}") from error
    return places


def _send(stream: Any, array: npt.NDArray[Any]) -> None:
    payload = io.BytesIO()
    np.save(payload, array, allow_pickle=False)
    stream.write(_LENGTH.pack(payload.tell()))
    stream.write(payload.getbuffer())
    stream.flush()


def _receive(stream: Any) -> npt.NDArray[Any]:
    """Raises ValueError where the stream ends too early."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise ValueError("nothing came")
    (length,) = _LENGTH.unpack(head)
    payload = stream.read(length)
    if len(payload) < length:
        raise ValueError("it broke off")
    received: npt.NDArray[Any] = np.load(io.BytesIO(payload), allow_pickle=False)
    return received


def main() -> None:
    """Lay out what stdin brings."""
    from threadpoolctl import threadpool_limits

    os.nice(10)
    vectors = _receive(sys.stdin.buffer)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    with threadpool_limits(1):
        places = layout(vectors)
    _send(sys.stdout.buffer, places)


def _end_with_stdin() -> None:
    """Whoever wanted the layout is gone when the other end of our stdin is."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
