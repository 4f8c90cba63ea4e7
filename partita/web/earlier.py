"""Which clusters a form means when others were found after the page was made on which it stands."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence

MOST = 4_000_000
"""Items' places that are remembered, 4 bytes each: of 5,000 items 800 partitions, which a search finds in an hour."""


class Earlier:
    """Where the items of sessions stood, by the stamps that pages have of their clusters. For any thread."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held = 0
        self._places: OrderedDict[tuple[str, str], Sequence[int]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, session_id: str, stamp: str, places: Sequence[int]) -> None:
        """Remember the number of the cluster in which each item stands (0: in none). What is oldest is forgotten."""
        with self._lock:
            self._held += len(places) - len(self._places.pop((session_id, stamp), ()))
            self._places[session_id, stamp] = places
            while self._held > self._most and len(self._places) > 1:
                _, gone = self._places.popitem(last=False)
                self._held -= len(gone)

    def places(self, session_id: str, stamp: str) -> Sequence[int] | None:
        """What was kept under a stamp; None if it is forgotten, or was never there."""
        with self._lock:
            return self._places.get((session_id, stamp))


def come_to(number: int, before: Sequence[int], now: Sequence[int]) -> int | None:
    """The number that a cluster has by now.

    It is the cluster in which more than half of its items stand, and of no other earlier cluster as many: so it may
    have grown, and of two that were united the larger goes on. None where there is no such cluster.

    Args:
        number: what it had before.
        before, now: the number of the cluster in which each item stood, and stands (0: none); items may have come
            since.
    """
    homes = Counter(home for was, home in zip(before, now, strict=False) if was == number != 0 != home)
    if not homes:
        return None
    home, held = homes.most_common(1)[0]
    origins = Counter(was for was, at in zip(before, now, strict=False) if at == home and was not in (0, number))
    is_most = 2 * held > sum(was == number for was in before)
    return home if is_most and held > max(origins.values(), default=0) else None
