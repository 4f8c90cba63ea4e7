"""What a session is asked to do by another process and how far it is, and versions of prompt sets."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("wish", sa.Text))
    op.add_column("sessions", sa.Column("progress", sa.JSON))
    op.create_table(
        "prompt_sets",
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("prompt_set", sa.JSON, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
