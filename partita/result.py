"""What a session has come to: the object behind ``run --json`` (CONTRACT 3)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from storage.errors import UsageError

TEACHER = "teacher"
"""What stands for the policy of a session that holds a teacher's answers (`partita.teaching`)."""
AS_BEFORE = "the same `partita train` goes on from here"
"""How a teacher's session goes on."""


@dataclass(frozen=True, slots=True)
class ClusterResult:
    """One cluster of the partition."""

    id: int
    """From 1, the largest cluster first."""
    name: str
    size: int
    items: list[str]
    """Names of its items; representatives first."""
    confidence: list[float] | None = None
    """How probable it is that each of its items belongs here; None where the policy keeps no odds."""


@dataclass(frozen=True, slots=True)
class FailedItem:
    """An item that could not be read."""

    item: str
    why: str


@dataclass(frozen=True, slots=True)
class Result:
    """A session's status, partition and spend."""

    session: str
    status: str
    """``done``, ``paused``, ``failed``, or ``running`` while another process works on it."""
    criterion: str
    policy: str
    items: int
    """Items that can be clustered; failed ones are not among them."""
    clusters: list[ClusterResult] = field(default_factory=list)
    failed_items: list[FailedItem] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    """Finished calls by kind, and: reused answers, UNKNOWN conclusions, retries after transport faults."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent in each stage, over all processes that worked on the session."""
    why: str | None = None
    """Why the session is paused or has failed."""
    supervised: bool = False
    """Whether its model learnt from labels, or labels answered. In the JSON only if so."""
    corrections: int = 0
    """What people have corrected and not undone. In the JSON only if there is any."""
    progress: dict[str, Any] | None = None
    """How far it is, as the process told that works on it now (`partita.live.Live.far`). In the JSON only if there is
    one."""
    texts: dict[str, str] = field(default_factory=dict, repr=False)
    """What each text says, by the item's name; empty for images. Not part of the JSON."""
    placed: frozenset[str] = field(default_factory=frozenset, repr=False)
    """Items that a person placed where they stand. Not part of the JSON."""

    @property
    def calls_per_item(self) -> float:
        """(membership + merge calls) / items."""
        return (self.calls.get("membership", 0) + self.calls.get("merge", 0)) / max(1, self.items)

    def require_clusters(self) -> None:
        """Raise a UsageError if there is no partition yet."""
        if self.policy == TEACHER:
            raise UsageError(
                f"session {self.session!r} holds a teacher's answers for `partita train` and has no clusters; "
                f"`partita trace {self.session}` shows them"
            )
        if not self.clusters:
            going = f"`partita resume {self.session}` goes on"
            if self.status == "running":
                going = f"it is running, and `partita show {self.session}` tells how far it is"
            raise UsageError(f"session {self.session!r} has no partition yet; {going}")

    def cluster(self, number: int) -> ClusterResult:
        """The cluster with this id.

        Raises:
            UsageError: there is none; says which there are.
        """
        for c in self.clusters:
            if c.id == number:
                return c
        there = f"1 to {len(self.clusters)}" if self.clusters else "none yet"
        raise UsageError(f"session {self.session!r} has no cluster {number}; there are {there}")

    def to_json(self) -> dict[str, Any]:
        """As CONTRACT 3 prints it."""
        out = asdict(self)
        del out["texts"], out["placed"]
        if self.why is None:
            del out["why"]
        if self.progress is None:
            del out["progress"]
        if not self.supervised:
            del out["supervised"]
        if not self.corrections:
            del out["corrections"]
        for cluster in out["clusters"]:
            if cluster["confidence"] is None:
                del cluster["confidence"]
        return out
