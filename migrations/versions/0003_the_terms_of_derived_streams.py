"""The terms of derived streams: what one operator's edge made for another's, and on which conditions."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "terms",
        sa.Column("stream_id", sa.Text(), nullable=False),
        sa.Column("stands_for", sa.Text(), nullable=False),
        sa.Column("purposes", sa.Text(), nullable=True),
        sa.Column("retain_ms", sa.BigInteger(), nullable=True),
        sa.Column("onward", sa.Boolean(), nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", name="pk_terms"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_terms_stands_for", "terms", ["stands_for"])
