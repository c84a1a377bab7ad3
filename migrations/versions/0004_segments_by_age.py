"""Segments by age: those of a collection in the order of their capture, to find what is kept no longer."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_segments_collection_captured_id", "segments", ["collection", "captured", "id"])
