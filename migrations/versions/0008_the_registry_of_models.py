"""Models: what was trained on which streams, and the streams that workers who train were shown."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sightings",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("stream_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.SmallInteger(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("policy_digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("worker", "collection", "purpose", "stream_id", name="pk_sightings"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "models",
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("label", sa.SmallInteger(), nullable=False),
        sa.Column("purposes", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("views", sa.Text(), nullable=False),
        sa.Column("policy_digest", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("erased_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("lineage", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", name="pk_models"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_models_parent", "models", ["parent"])
    op.create_index("ix_models_created_ms_model_id", "models", ["created_ms", "model_id"])
    op.create_index("ix_models_state_created_ms", "models", ["state", "created_ms"])
    op.create_table(
        "model_streams",
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("stream_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "stream_id", name="pk_model_streams"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_model_streams_stream_id", "model_streams", ["stream_id"])
    op.create_table(
        "model_parts",
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "part", name="pk_model_parts"),
    )
