"""What a session leaves on disk: items, tables, the ledger, artefacts, LangGraph checkpoints.

Importing this package costs nothing: SQLAlchemy, Alembic, Pillow and NumPy are imported by the modules that use them.
The error tree is the one thing everybody needs, so it is re-exported here.
"""

from storage.errors import (
    CollectionError,
    DatabaseError,
    EndpointError,
    EndpointMisbehaves,
    EndpointRefused,
    EndpointUnreachable,
    ModelUnknown,
    PartitaError,
    Paused,
    PromptError,
    RequestRejected,
    SessionBusy,
    SessionError,
    SessionExists,
    UnknownSession,
    UsageError,
)

__all__ = [
    "CollectionError",
    "DatabaseError",
    "EndpointError",
    "EndpointMisbehaves",
    "EndpointRefused",
    "EndpointUnreachable",
    "ModelUnknown",
    "PartitaError",
    "Paused",
    "PromptError",
    "RequestRejected",
    "SessionBusy",
    "SessionError",
    "SessionExists",
    "UnknownSession",
    "UsageError",
]
