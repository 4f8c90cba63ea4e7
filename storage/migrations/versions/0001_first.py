"""The first tables: sessions, items, prompts, answers (the ledger), artefacts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("criterion", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("prompt_set", sa.JSON, nullable=False),
        sa.Column("prompt_set_hash", sa.Text, nullable=False),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("seconds", sa.JSON, nullable=False),
        sa.Column("why", sa.Text),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.UniqueConstraint("name", name="uq_sessions_name"),
    )
    op.create_table(
        "items",
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("content_hash", sa.Text),
        sa.Column("kind", sa.Text),
        sa.Column("text", sa.Text),
        sa.Column("node", sa.Integer),
        sa.Column("why", sa.Text),
        sa.PrimaryKeyConstraint("session_id", "position", name="pk_items"),
        _of_session("items"),
    )
    op.create_table(
        "prompts",
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_prompts"),
    )
    op.create_table(
        "answers",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("component", sa.Integer),
        sa.Column("step", sa.Integer),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("subject", sa.JSON, nullable=False),
        sa.Column("prompt_hash", sa.Text, nullable=False),
        sa.Column("reply", sa.Text, nullable=False),
        sa.Column("conclusion", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("vector", sa.LargeBinary),
        sa.UniqueConstraint("session_id", "key", name="uq_answers_session_id_key"),
        _of_session("answers"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_answers_session_id_kind", "answers", ["session_id", "kind"])
    op.create_table(
        "artefacts",
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("part", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("parts", sa.Integer, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "name", "part", name="pk_artefacts"),
        _of_session("artefacts"),
    )


def _of_session(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=f"fk_{table}_session_id", ondelete="CASCADE")
