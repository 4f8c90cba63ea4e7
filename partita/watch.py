"""What the one who runs a session can watch while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from graphs.progress import Progress
from partita.estimate import Estimate


@dataclass(slots=True)
class Watch:
    """Progress, and whom to tell what; everything is optional."""

    progress: Progress = field(default_factory=Progress)
    on_scan: Callable[[int, int], None] | None = None
    """Called with (files read, files)."""
    on_named: Callable[[str], None] | None = None
    """Called with the session's name as soon as it is recorded."""
    on_expected: Callable[[Estimate], None] | None = None
    """Called before the first call with what the session is expected to take in all."""
    on_note: Callable[[str], None] | None = None
    """Called with a line about a retry."""
