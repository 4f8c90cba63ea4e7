"""How far a session is: told by those who work on it, read by those who show it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """How far a session is; read by whoever shows it."""

    stage: str = "start"
    """What is being done: describe, relate, traverse, merge, done."""
    done: int = 0
    total: int = 0
    """Units of the stage: items described, items that had a place at once (the most so far), pairs of clusters judged
    (``total`` may shrink)."""
    calls: int = 0
    """Chat calls answered in this process."""
    earlier: int = 0
    """Those of earlier processes."""
    unknown: int = 0
    retries: int = 0
    cost: float = 0.0
    """Of all calls of the session, those of earlier processes too, in USD."""
    clusters: int = 0
    """Clusters found so far, where the policy tells."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent in each stage by this process."""
    part: str = ""
    """What the stage is a part of, where stages come again and again: ``epoch 3``."""
