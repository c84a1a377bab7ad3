"""Checkpoints: streams sign many segments at once, so a segment names what signs it.

Segments of before bear a signature each, in a form that is read no more; no release wrote them. A place that has any is
not upgraded: begin it anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_EMPTY = b"\x80"
"""A range set of nothing: an empty CBOR list."""


def upgrade() -> None:
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM segments")):
        raise RuntimeError("the database has segments in the form before checkpoints: begin it anew")
    op.create_table(
        "checkpoints",
        sa.Column("id", _ROW_NUMBER, autoincrement=False, nullable=False),
        sa.Column("stream_id", sa.Text(), nullable=False),
        sa.Column("seq_first", sa.BigInteger(), nullable=False),
        sa.Column("seq_last", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoints"),
        sa.UniqueConstraint("stream_id", "seq_last", "seq_first", name="uq_checkpoints_stream_id_seq_last_seq_first"),
    )
    op.create_index("ix_checkpoints_state_id", "checkpoints", ["state", "id"])
    op.add_column("segments", sa.Column("checkpoint", sa.BigInteger(), nullable=True))
    op.drop_column("segments", "verified")
    op.add_column("streams", sa.Column("signed", sa.LargeBinary(), nullable=True))
    op.execute(sa.text("UPDATE streams SET signed = :empty").bindparams(empty=_EMPTY))
    with op.batch_alter_table("streams") as streams:
        streams.alter_column("signed", existing_type=sa.LargeBinary(), nullable=False)
