"""Erasures: the tombstones of erased streams, and the receipts of the places that erased them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("stream_id", sa.Text(), nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=True),
        sa.Column("erased", sa.LargeBinary(), nullable=False),
        sa.Column("shredded", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", name="pk_erasures"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_erasures_shredded", "erasures", ["shredded"])
    op.create_table(
        "erasure_receipts",
        sa.Column("stream_id", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=True),
        sa.Column("pending", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", "place", name="pk_erasure_receipts"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_erasure_receipts_pending_place", "erasure_receipts", ["pending", "place"])
