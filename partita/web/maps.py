"""Maps of sessions: drawn once, in the background, and kept in the database beside the embeddings' hash."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphs.layout import LayoutFailed, Positions, apart, is_sampled
from partita.web.embeddings import Embedded, Embeddings
from storage import artefacts
from storage.database import Database
from storage.errors import DatabaseError, PartitaError

MAP = "map"
"""The artefact that holds a session's map."""
_KEPT = 12

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Map:
    """Where each node lies."""

    stamp: str
    """Of the embeddings that it was drawn from."""
    places: Positions
    """(nodes, 2) between 0 and 1; NaN for a node without an embedding."""

    @property
    def placed(self) -> int:
        """How many nodes have a place: none where all are embedded alike."""
        return int(np.isfinite(self.places[:, 0]).sum())

    @property
    def sampled(self) -> bool:
        """Whether some nodes were only placed amid those nearest to them."""
        return is_sampled(self.placed)

    def to_bytes(self) -> bytes:
        """To be stored with the session."""
        out = io.BytesIO()
        np.savez(out, stamp=np.frombuffer(self.stamp.encode(), dtype=np.uint8), places=self.places)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, payload: bytes) -> Map:
        """Inverse of ``to_bytes``; nothing in the payload is executed."""
        with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
            return cls(stored["stamp"].tobytes().decode(), stored["places"])


@dataclass(frozen=True, slots=True)
class Drawing:
    """How far a map is that isn't there yet."""

    state: Literal["waits", "drawn", "failed"]
    """waits: for embeddings. drawn: it is being drawn. failed: it could not be."""
    since: float = 0.0
    """Seconds."""
    why: str = ""


class Maps:
    """Maps by session; those asked for are drawn one after the other, by a process of their own. For any thread."""

    def __init__(self, db: Database, embeddings: Embeddings) -> None:
        self._db, self._embeddings = db, embeddings
        self._kept: OrderedDict[str, Map] = OrderedDict()
        self._begun: dict[str, tuple[threading.Thread, float]] = {}
        self._failed: dict[str, str] = {}
        self._lock, self._turn = threading.Lock(), threading.Lock()

    def of(self, session_id: str) -> Map | Drawing:
        """The map of a session; where there is none yet it is begun."""
        stamp = self._embeddings.stamp(session_id)
        if stamp is None:
            return Drawing("waits")
        if (there := self._there(session_id, stamp)) is not None:
            return there
        with self._lock:
            if stamp in self._failed:
                return Drawing("failed", why=self._failed[stamp])
            if stamp not in self._begun:
                # Nothing waits for it at the end: the process that draws ends when we do.
                thread = threading.Thread(target=self._draw, args=(session_id, stamp), name="map", daemon=True)
                self._begun[stamp] = thread, time.monotonic()
                thread.start()
            _, begun = self._begun[stamp]
        return Drawing("drawn", time.monotonic() - begun)

    def settle(self) -> None:
        """Wait until everything that was begun has ended."""
        with self._lock:
            threads = [thread for thread, _ in self._begun.values()]
        for thread in threads:
            thread.join()

    def _there(self, session_id: str, stamp: str) -> Map | None:
        with self._lock:
            if stamp in self._kept:
                self._kept.move_to_end(stamp)
                return self._kept[stamp]
            if stamp in self._begun:
                return None
        stored = artefacts.get(self._db, session_id, MAP)
        if stored is None or (read := Map.from_bytes(stored)).stamp != stamp:
            return None
        self._keep(read)
        return read

    def _keep(self, made: Map) -> None:
        with self._lock:
            self._kept[made.stamp] = made
            self._kept.move_to_end(made.stamp)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def _draw(self, session_id: str, stamp: str) -> None:
        try:
            with self._turn:
                embedded = self._embeddings.of(session_id)
                made = None if embedded is None else self._drawn(session_id, embedded)
            why = "" if made is not None else "the ledger holds no embeddings of one length"
        except (LayoutFailed, PartitaError) as error:
            made, why = None, str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait for the map must hear of it
            made, why = None, repr(error)
        if made is None:
            log.warning("the map of session %s could not be drawn: %s", session_id, why)
        with self._lock:
            if made is None:
                self._failed[stamp] = why
            del self._begun[stamp]

    def _drawn(self, session_id: str, embedded: Embedded) -> Map:
        made = Map(embedded.stamp, apart(embedded.vectors))
        self._keep(made)
        try:
            artefacts.put(self._db, session_id, MAP, made.to_bytes())
        except DatabaseError as error:  # it can be looked at all the same, and is drawn again the next time
            log.warning("the map of session %s could not be stored: %s", session_id, error)
        return made
