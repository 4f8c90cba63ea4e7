"""What the one who runs a session can watch while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from graphs.asking import Progress


@dataclass(slots=True)
class Watch:
    """Progress, and whom to tell what; everything is optional."""

    progress: Progress = field(default_factory=Progress)
    on_scan: Callable[[int, int], None] | None = None
    """Called with (files read, files)."""
    on_named: Callable[[str], None] | None = None
    """Called with the session's name as soon as it is recorded."""
    on_note: Callable[[str], None] | None = None
    """Called with a line about a retry."""
