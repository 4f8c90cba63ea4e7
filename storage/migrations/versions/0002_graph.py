"""Checkpoints of our own saver, and what was decided on an answer.

The tables of LangGraph's stock savers are left where they are: nothing reads them any more, and in a shared PostgreSQL
database they may be another program's.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "decisions",
        sa.Column("answer", _NUMBER, nullable=False, autoincrement=False),
        sa.Column("decided", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("answer", name="pk_decisions"),
        sa.ForeignKeyConstraint(["answer"], ["answers.id"], name="fk_decisions_answer", ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "graph_threads",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("thread_id", sa.Text, nullable=False),
        sa.Column("ns", sa.Text, nullable=False),
        sa.UniqueConstraint("thread_id", "ns", name="uq_graph_threads_thread_id_ns"),
    )
    op.create_table(
        "graph_checkpoints",
        sa.Column("thread", _NUMBER, nullable=False, autoincrement=False),
        sa.Column("checkpoint", sa.LargeBinary, nullable=False),
        sa.Column("parent", sa.LargeBinary),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("thread", "checkpoint", name="pk_graph_checkpoints"),
        _of_thread("graph_checkpoints"),
    )
    op.create_table(
        "graph_writes",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("thread", _NUMBER, nullable=False),
        sa.Column("checkpoint", sa.LargeBinary, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        _of_thread("graph_writes"),
    )
    op.create_index("ix_graph_writes_thread_checkpoint", "graph_writes", ["thread", "checkpoint"])


def _of_thread(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["thread"], ["graph_threads.id"], name=f"fk_{table}_thread", ondelete="CASCADE")
