"""What a process that works on a session tells others while it does, and hears from them: how far it is; pause.

Both go through the session's row, so they work wherever the database is seen from, and in a notebook, whose thread gets
no signals.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from graphs.progress import Progress
from storage.database import Database
from storage.errors import DatabaseError
from storage.sessions import tell_progress, wished

EVERY = 1.0
"""Seconds between two looks."""


@dataclass(slots=True)
class Live:
    """A session that this process works on, as others see it."""

    db: Database
    session: str
    """Its id."""
    progress: Progress
    expected: float | None = None
    """Chat calls that are likely in all, where that is known."""

    @contextmanager
    def heeded(self, on_pause: Callable[[], None]) -> Iterator[None]:
        """Tell and hear, in a thread, until the block ends; nothing that goes wrong with that stops the work.

        Args:
            on_pause: called in the thread when somebody asks for a pause, and again until the block ends.
        """
        over = threading.Event()
        thread = threading.Thread(target=self._look, args=(on_pause, over), name="partita live", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def far(self) -> dict[str, Any]:
        """How far the session is. ``calls`` are all of the session, ``earlier`` those of earlier processes among them;
        the rest is as in `graphs.asking.Progress`."""
        p = self.progress
        return {
            "stage": p.stage,
            "part": p.part,
            "done": p.done,
            "total": p.total,
            "calls": p.earlier + p.calls,
            "earlier": p.earlier,
            "expected": None if self.expected is None else round(self.expected),
            "cost": round(p.cost, 6),
            "clusters": p.clusters,
            "unknown": p.unknown,
            "retries": p.retries,
        }

    def _look(self, on_pause: Callable[[], None], over: threading.Event) -> None:
        told: dict[str, Any] | None = None
        while True:
            try:
                if wished(self.db, self.session) == "pause":
                    on_pause()
                if (far := self.far()) != told:
                    at = datetime.now(UTC).isoformat(timespec="milliseconds")
                    tell_progress(self.db, self.session, far | {"at": at})
                    told = far
            except DatabaseError:
                pass  # busy for a moment, or out of reach: the work itself will say so
            if over.wait(EVERY):
                return
