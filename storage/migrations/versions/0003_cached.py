"""How many of a call's prompt tokens the endpoint had in its cache."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("answers", sa.Column("cached_tokens", sa.Integer))
