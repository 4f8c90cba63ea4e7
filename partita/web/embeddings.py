"""The embeddings of sessions that are looked at: who is nearest to whom, and what maps are drawn from.

Policy ``evidence`` stores them as it sees them; of a session with policy ``paper`` they are made from the ledger in the
same way, once its graph is there, which needs all of them.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sqlalchemy import select

from agents.descriptions import read_description
from graphs.likeness import VECTORS, Floats, Whole, vectors_from, whole_vectors
from graphs.relational import GRAPH
from storage import artefacts
from storage.database import Database
from storage.tables import answers, items

_KEPT_BYTES = 256 * 2**20
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Embedded:
    """The embeddings of one session, by node; rows of zeros are nodes without one."""

    stamp: str
    """Other embeddings have another."""
    vectors: Whole

    @cached_property
    def _lengths(self) -> Floats:
        blocks = (self.vectors[at : at + _ROWS].astype(np.float64) for at in range(0, len(self.vectors), _ROWS))
        return np.concatenate([np.linalg.norm(block, axis=1) for block in blocks] or [np.zeros(0)])

    def nearest(self, node: int, count: int) -> list[tuple[int, float]]:
        """The nodes most like one, with their cosines, the likest first; [] for one without an embedding."""
        if not 0 <= node < len(self.vectors) or not self._lengths[node]:
            return []
        own = self.vectors[node].astype(np.float32)
        starts = range(0, len(self.vectors), _ROWS)
        dots = np.concatenate([self.vectors[at : at + _ROWS].astype(np.float32) @ own for at in starts])
        cosines = dots / np.maximum(self._lengths * self._lengths[node], 1e-12)
        cosines[(self._lengths == 0) | (np.arange(len(cosines)) == node)] = -np.inf
        order = np.argsort(-cosines, kind="stable")[:count]
        return [(int(at), float(cosines[at])) for at in order if np.isfinite(cosines[at])]


class Embeddings:
    """Embeddings by session; those of the last few stay, up to 256 MiB. For any thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._kept: OrderedDict[str, Embedded] = OrderedDict()
        self._lock = threading.Lock()

    def stamp(self, session_id: str) -> str | None:
        """What changes with the embeddings, without reading them; None while there are none."""
        if (vectors := artefacts.digest(self._db, session_id, VECTORS)) is not None:
            return vectors
        graph = artefacts.digest(self._db, session_id, GRAPH)
        # Sessions with other embeddings may have the same graph: one without an edge, for instance.
        return None if graph is None else hashlib.sha256(f"{graph} {session_id}".encode()).hexdigest()

    def of(self, session_id: str) -> Embedded | None:
        """The embeddings of a session; None while there are none."""
        stamp = self.stamp(session_id)
        if stamp is None:
            return None
        with self._lock:
            kept = self._kept.get(session_id)
        if kept is not None and kept.stamp == stamp:
            return kept
        stored = artefacts.get(self._db, session_id, VECTORS)
        vectors = vectors_from(stored) if stored is not None else _from_ledger(self._db, session_id)
        if vectors is None:
            return None
        read = Embedded(stamp, vectors)
        with self._lock:
            self._kept[session_id] = read
            self._kept.move_to_end(session_id)
            while len(self._kept) > 1 and sum(one.vectors.nbytes for one in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return read


def _from_ledger(db: Database, session_id: str) -> Whole | None:
    """The same as the search would see them; None where the ledger has none of one length."""
    nodes = select(items.c.node).where(items.c.session_id == session_id, items.c.node.is_not(None))
    query = select(answers.c.kind, answers.c.subject, answers.c.reply, answers.c.vector).where(
        answers.c.session_id == session_id, answers.c.kind.in_(("describe", "embed"))
    )
    described: dict[int, str] = {}
    embedded: dict[int, bytes] = {}
    with db.reading() as connection:
        count = max(connection.scalars(nodes), default=-1) + 1
        for kind, subject, reply, vector in connection.execution_options(yield_per=1000).execute(query):
            node = subject.get("item")
            if not isinstance(node, int) or not 0 <= node < count:
                continue
            if kind == "describe":
                described[node] = read_description(reply)
            elif vector is not None:
                embedded[node] = bytes(vector)
    # Where descriptions are embedded, items that are described alike share an answer.
    by_words = {described[node]: vector for node, vector in embedded.items() if node in described}
    for node, words in described.items():
        if node not in embedded and words.strip() and words in by_words:
            embedded[node] = by_words[words]
    widths = {len(vector) for vector in embedded.values()}
    if len(widths) != 1 or 0 in widths:
        return None
    rows = np.zeros((count, widths.pop() // 4), dtype=np.float32)
    for node, vector in embedded.items():
        rows[node] = np.frombuffer(vector, dtype="<f4")
    return whole_vectors(rows)
