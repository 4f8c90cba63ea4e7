"""Partita: one collection, many partitions.

from partita import cluster, Session

result = cluster("photos/", by="suit")
for c in result.clusters:
    print(c.name, c.size)
Session(result.session).export("clusters.csv")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partita.api import Session, cluster
    from partita.result import Result
    from storage.errors import PartitaError

__version__ = "0.1.0"
__all__ = ["PartitaError", "Result", "Session", "__version__", "cluster"]

_LAZY = {
    "cluster": "partita.api",
    "Session": "partita.api",
    "Result": "partita.result",
    "PartitaError": "storage.errors",
}


def __getattr__(name: str) -> Any:
    # Importing partita stays cheap; what a session needs is imported when it is first used.
    if name in _LAZY:
        import importlib

        from partita.rooms import stranger

        if (said := stranger()) is not None:
            raise ImportError(said)
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'partita' has no attribute {name!r}")
