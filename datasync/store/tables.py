"""The one schema of every place: a device, an edge and a cloud have the same tables and leave unused ones empty.

Times are milliseconds since 1970, identifiers are text, structured values are JSON text or packed CBOR. What
is read often and is small (``segments``) is kept apart from what is large (``bodies``), so that looking for
segments and marking them never touches their contents. ``migrations/`` builds the same schema; a test compares.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite makes a primary key the table's own row number, the fastest key it has, only when it is an INTEGER.
_ROW_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

registers = Table(
    "registers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("last", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

streams = Table(
    "streams",
    metadata,
    Column("stream_id", Text, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("device", Text),
    Column("collection", Text, nullable=False),
    Column("tier", SmallInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("have", LargeBinary, nullable=False),
    Column("safe", LargeBinary, nullable=False),
    Column("signed", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index(None, "device", "collection", "tier"),
    sqlite_with_rowid=False,
)

terms = Table(
    "terms",
    metadata,
    Column("stream_id", Text, primary_key=True),
    Column("stands_for", Text, nullable=False),
    Column("purposes", Text),
    Column("retain_ms", BigInteger),
    Column("onward", Boolean, nullable=False),
    Column("operator", Text, nullable=False),
    Column("rule", Text),
    Column("revision", BigInteger, nullable=False),
    Index(None, "stands_for"),
    sqlite_with_rowid=False,
)

segments = Table(
    "segments",
    metadata,
    Column("id", _ROW_NUMBER, primary_key=True, autoincrement=False),
    Column("position", BigInteger),
    Column("stream_id", Text, nullable=False),
    Column("collection", Text, nullable=False),
    Column("tier", SmallInteger, nullable=False),
    Column("seq_first", BigInteger, nullable=False),
    Column("seq_last", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("captured", BigInteger, nullable=False),
    Column("time_min_ms", BigInteger),
    Column("time_max_ms", BigInteger),
    Column("policy_digest", Text, nullable=False),
    Column("meta", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("checkpoint", BigInteger),
    UniqueConstraint("stream_id", "seq_first"),
    Index(None, "collection", "tier", "position"),
    Index(None, "collection", "captured", "id"),
    Index(None, "state", "id"),
)

bodies = Table(
    "bodies",
    metadata,
    Column("id", _ROW_NUMBER, ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", _ROW_NUMBER, primary_key=True, autoincrement=False),
    Column("stream_id", Text, nullable=False),
    Column("seq_first", BigInteger, nullable=False),
    Column("seq_last", BigInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("stream_id", "seq_last", "seq_first"),
    Index(None, "state", "id"),
)

attachments = Table(
    "attachments",
    metadata,
    Column("device", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("incarnation", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("edge", Text),
    Column("previous", Text),
    Column("handover", Text),
    Column("nonce", Text),
    Column("mode", Text),
    Column("token", LargeBinary),
    Column("session_key", LargeBinary),
    Column("certificate", LargeBinary),
    Column("owes", Boolean, nullable=False),
    Column("detail", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Index(None, "state"),
    Index(None, "owes"),
)

handovers = Table(
    "handovers",
    metadata,
    Column("handover", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("peer", Text),
    Column("phase", Text, nullable=False),
    Column("incarnation", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("planned", Boolean, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("frozen_ms", BigInteger),
    Column("active_ms", BigInteger),
    Column("finished_ms", BigInteger),
    Column("segments", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Index(None, "device", "started_ms"),
    Index(None, "phase", "started_ms"),
)

consents = Table(
    "consents",
    metadata,
    Column("stream_id", Text, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("given", Boolean, nullable=False),
    Column("stamp", BigInteger, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Index(None, "state"),
    sqlite_with_rowid=False,
)

peers = Table(
    "peers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("address", Text),
    Column("nonce", Text),
    Column("load", Float),
    Column("seen_ms", BigInteger, nullable=False),
    Index(None, "role", "name"),
)

workers = Table(
    "workers",
    metadata,
    Column("worker_id", Text, primary_key=True),
    Column("token_hash", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("purposes", Text),
    UniqueConstraint("token_hash"),
)

policies = Table(
    "policies",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False),
    Column("source", LargeBinary, nullable=False),
    Column("bundle", LargeBinary, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("active", Boolean, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("collection", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("rules", Text, nullable=False),
    Column("fields", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index(None, "event", "number"),
)

heads = Table(
    "heads",
    metadata,
    Column("node", Text, primary_key=True),
    Column("log", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("said_ms", BigInteger, nullable=False),
    Column("contradicted_ms", BigInteger),
    sqlite_with_rowid=False,
)

erasures = Table(
    "erasures",
    metadata,
    Column("stream_id", Text, primary_key=True),
    Column("stamp", BigInteger, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("collection", Text),
    Column("erased", LargeBinary, nullable=False),
    Column("shredded", Boolean, nullable=False),
    Index(None, "shredded"),
    sqlite_with_rowid=False,
)

erasure_receipts = Table(
    "erasure_receipts",
    metadata,
    Column("stream_id", Text, primary_key=True),
    Column("place", Text, primary_key=True),
    Column("signed", LargeBinary),
    Column("pending", Boolean, nullable=False),
    Index(None, "pending", "place"),
    sqlite_with_rowid=False,
)

sightings = Table(
    "sightings",
    metadata,
    Column("worker", Text, primary_key=True),
    Column("collection", Text, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("stream_id", Text, primary_key=True),
    Column("tier", SmallInteger, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("policy_digest", Text, nullable=False),
    sqlite_with_rowid=False,
)

models = Table(
    "models",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("label", SmallInteger, nullable=False),
    Column("purposes", Text, nullable=False),
    Column("parent", Text),
    Column("views", Text, nullable=False),
    Column("policy_digest", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("key_id", Text),
    Column("state", Text, nullable=False),
    Column("erased_ms", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
    Column("lineage", LargeBinary, nullable=False),
    Index(None, "parent"),
    Index(None, "created_ms", "model_id"),
    Index(None, "state", "created_ms"),
    sqlite_with_rowid=False,
)

model_streams = Table(
    "model_streams",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("stream_id", Text, primary_key=True),
    Index(None, "stream_id"),
    sqlite_with_rowid=False,
)

model_parts = Table(
    "model_parts",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

data_keys = Table(
    "data_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("stream_id", Text, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index(None, "stream_id"),
)
