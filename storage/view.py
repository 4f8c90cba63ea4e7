"""A session's checkpoints for other programs to look at: reads like the checkpointer, and refuses every change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from sqlalchemy import select

from storage.checkpoints import strict_serializer
from storage.database import Database
from storage.errors import SessionError
from storage.saver import Checkpointer
from storage.tables import graph_threads

ONLY_SHOWN = (
    "Partita's sessions are only shown here, nothing of them can be run or changed: "
    "`partita run`, `partita resume` and `partita correct` do that."
)


class CheckpointView(Checkpointer):
    """A saver that reads checkpoints while other processes write them.

    Its methods for event loops are the saver's, which call these.
    """

    def __init__(self, db: Database) -> None:
        super().__init__(db, strict_serializer())

    def thread_ids(self) -> set[str]:
        """The names of all threads."""
        with self.db.reading() as connection:
            return set(connection.scalars(select(graph_threads.c.thread_id).where(graph_threads.c.ns == "")))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> NoReturn:
        """Refused."""
        raise SessionError(ONLY_SHOWN)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> NoReturn:
        """Refused."""
        raise SessionError(ONLY_SHOWN)

    def delete_thread(self, thread_id: str) -> None:
        """Refused, but for a thread that isn't there."""
        if str(thread_id) in self.thread_ids():
            raise SessionError(ONLY_SHOWN)

    def delete_for_runs(self, run_ids: Sequence[str]) -> NoReturn:
        """Refused."""
        raise SessionError(ONLY_SHOWN)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> NoReturn:
        """Refused."""
        raise SessionError(ONLY_SHOWN)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> NoReturn:
        """Refused."""
        raise SessionError(ONLY_SHOWN)
