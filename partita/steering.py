"""What a person does to a session's clusters, by the numbers and names that they see.

It is stored as evidence of a person's (`storage.corrections`) and done to whatever the agents come to, now and after
`partita resume` (`graphs.corrections`); the agents' own answers, and what is counted of them, stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphs.corrections import MEANT, Did
from partita.plain import plain
from partita.result import Result
from partita.stored import node_of, result_of
from storage import corrections
from storage.database import Database
from storage.errors import UsageError
from storage.ledger import storable
from storage.sessions import load_session

LONGEST = 200
"""Characters of a cluster's name."""


@dataclass(frozen=True, slots=True)
class Told:
    """A correction as a person reads it."""

    id: int
    did: str
    """As in `graphs.corrections`, or undo."""
    items: list[str]
    others: list[str]
    name: str | None
    of: int | None
    """What an undo undoes."""
    why: str | None
    at: str
    """ISO 8601, UTC."""
    holds: bool

    @property
    def words(self) -> str:
        """As a sentence, safe for a terminal."""
        return in_words(self.did, self.items, self.others, self.name, self.of)


def in_words(did: str, items: Sequence[str], others: Sequence[str], name: str | None, of: int | None) -> str:
    """A correction as a sentence, safe for a terminal."""
    these, those, called = _some(items), _some(others), plain(name or "")
    return {
        "move": f"move {these} to where {those} are",
        "split": f"split off {these}" + (f" as “{called}”" if called else ""),
        "unite": f"unite the clusters of {these} and of {those}",
        "rename": f"call the cluster of {these} “{called}”",
        "together": f"{these} belong together",
        "apart": f"{these} don't belong with {those}",
        "undo": f"undo {of}",
    }[did]


def _some(items: Sequence[str]) -> str:
    return ", ".join(map(plain, items[:2])) + (f" … ({len(items)})" if len(items) > 2 else "")


class Steering:
    """Corrects one session. Every method gives the correction's id.

    Args:
        seen: what the numbers of clusters are meant by; otherwise what the session has come to when one is given.

    Raises:
        UnknownSession: no session of that name.
        UsageError: from any method, where there is no such item or cluster, or nothing to do; nothing is stored then.
    """

    def __init__(self, db: Database, session: str, seen: Result | None = None) -> None:
        self._db, self._record, self._seen = db, load_session(db, session), seen

    def move(self, items: Sequence[str], to: int, why: str | None = None) -> int:
        """Put items into the cluster with the id `to`."""
        result, chosen = self._chosen(items)
        target = result.cluster(to)
        if not set(chosen) - set(target.items):
            raise UsageError(f"cluster {to} ({target.name}) holds {_listed(chosen)} already")
        # Where all of the target are among those that move, they say themselves which cluster is meant.
        stay = [item for item in target.items if item not in set(chosen)] or target.items
        return self._say("move", chosen, stay, why=why)

    def split(self, items: Sequence[str], name: str | None = None, why: str | None = None) -> int:
        """Make items a cluster of their own; without a name it is called after the one they leave."""
        result, chosen = self._chosen(items)
        node = node_of(self._db, self._record.id)
        for cluster in result.clusters:
            if {node[item] for item in cluster.items} == {node[item] for item in chosen}:
                raise UsageError(f"{_listed(chosen)}: that is all of cluster {cluster.id}, there is nothing to split")
        return self._say("split", chosen, name=name, why=why)

    def unite(self, clusters: Sequence[int], why: str | None = None) -> int:
        """Make two or more clusters one; it keeps the name of the largest. The id is that of the last of these."""
        return self.unite_all(clusters, why)[-1]

    def unite_all(self, clusters: Sequence[int], why: str | None = None) -> list[int]:
        """The same, with the ids of all corrections that it takes: one for each cluster after the first."""
        result = self._result()
        found = [result.cluster(number) for number in dict.fromkeys(clusters)]
        if len(found) < 2:
            raise UsageError("name two clusters, or more")
        first, *rest = found
        return [self._say("unite", first.items, cluster.items, why=why) for cluster in rest]

    def rename(self, cluster: int, name: str, why: str | None = None) -> int:
        """Call a cluster otherwise."""
        if not name.strip():
            raise UsageError("the name is empty")
        return self._say("rename", self._result().cluster(cluster).items, name=name, why=why)

    def together(self, items: Sequence[str], why: str | None = None) -> int:
        """Say that items belong together: they stand where most of them do; where no cluster holds more of them than
        another, where a person placed one of them last, otherwise where the first of them stands."""
        result, chosen = self._chosen(items, least=2)
        if any(set(chosen) <= set(cluster.items) for cluster in result.clusters):
            raise UsageError(f"{_listed(chosen)} are together already")
        return self._say("together", chosen, why=why)

    def apart(self, items: Sequence[str], others: Sequence[str], why: str | None = None) -> int:
        """Say that `items` don't belong with `others`: those that stand with one of them leave, with their copies."""
        result, chosen = self._chosen(items)
        _, kept = self._chosen(others)
        node = node_of(self._db, self._record.id)
        leaving = {node[item] for item in chosen}
        if (both := set(chosen) & set(kept)) or all(node[item] in leaving for item in kept):
            raise UsageError(f"{_listed(sorted(both or kept))}: an item is not apart from itself")
        kept = [item for item in kept if node[item] not in leaving]
        if not any(set(chosen) & set(c.items) and set(kept) & set(c.items) for c in result.clusters):
            raise UsageError(f"{_listed(chosen)} and {_listed(kept)} are apart already")
        return self._say("apart", chosen, kept, why=why)

    def undo(self, number: int | None = None) -> Told:
        """Undo a correction, the last that holds where no id is given. Undoing what undid one brings it back."""
        undone = corrections.undo(self._db, self._record.id, number)
        return next(one for one in self.told() if one.id == undone.id)

    def told(self) -> list[Told]:
        """Everything that was said, in order."""
        names = {node: name for name, node in reversed(node_of(self._db, self._record.id).items())}

        def named(nodes: Sequence[int]) -> list[str]:
            return [names[node] for node in nodes if node in names]

        return [
            Told(
                id=one.id,
                did=one.subject["did"],
                items=named(one.subject.get("items", ())),
                others=named(one.subject.get("others", ())),
                name=one.subject.get("name"),
                of=one.subject.get("of"),
                why=one.why,
                at=one.at.isoformat(timespec="seconds"),
                holds=one.holds,
            )
            for one in corrections.said(self._db, self._record.id)
        ]

    def _result(self) -> Result:
        result = result_of(self._db, self._record.name) if self._seen is None else self._seen
        result.require_clusters()
        return result

    def _chosen(self, items: Sequence[str], least: int = 1) -> tuple[Result, list[str]]:
        result, chosen = self._result(), list(dict.fromkeys(items))
        there = {item for cluster in result.clusters for item in cluster.items}
        if unknown := [item for item in chosen if item not in there]:
            raise UsageError(
                f"no cluster holds {_listed(unknown)}: items are named as `partita export {self._record.name} "
                "--to items.csv` lists them"
            )
        if len(chosen) < least:
            raise UsageError("name two items, or more")
        return result, chosen

    def _say(
        self,
        did: Did,
        items: Sequence[str],
        others: Sequence[str] = (),
        name: str | None = None,
        why: str | None = None,
    ) -> int:
        node = node_of(self._db, self._record.id)
        if did in ("unite", "rename"):  # they only say which cluster is meant
            items = items[:MEANT]
        if did in ("unite", "move"):
            others = others[:MEANT]
        told = {"did": did, "items": _nodes(items, node), "others": _nodes(others, node), "name": _name(name)}
        return corrections.say(self._db, self._record.id, told, why)


def _nodes(items: Sequence[str], node: Mapping[str, int]) -> list[int]:
    return list(dict.fromkeys(node[item] for item in items))


def _name(name: str | None) -> str | None:
    if name is None or not (words := storable(" ".join(name.split()))):
        return None
    if len(words) > LONGEST:
        raise UsageError(f"the name has {len(words)} characters: give one of up to {LONGEST}")
    return words


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
