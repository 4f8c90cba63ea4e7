"""When a process that keeps failing is started again, and when that is given up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Restarts:
    """Counts restarts in a row: a spell of good service between two makes the second the first again."""

    most: int = 5
    """Restarts in a row; after the next failure it is given up."""
    calm: float = 600.0
    """Seconds of service after which earlier failures are forgotten."""
    first: float = 1.0
    """Seconds before the first restart; each further one waits twice as long."""
    longest: float = 60.0
    count: int = 0

    def after(self, served: float) -> float | None:
        """Seconds to wait before the next restart, after a failure that ended `served` seconds of service.

        None: it has failed too often.
        """
        if served >= self.calm:
            self.count = 0
        if self.count >= self.most:
            return None
        self.count += 1
        return min(self.first * 2.0 ** (self.count - 1), self.longest)
