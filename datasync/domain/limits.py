"""Limits on everything: a value beyond one is refused before it costs memory or time.

Units are last in the names. A limit that operators may want to change is in the nodes' configuration,
with these as its ceilings or defaults.
"""

MESSAGE_BYTES_MAX = 16 << 20
"""One MQTT message, checked before it is parsed."""

CONTROL_BYTES_MAX = 1 << 20
"""One message that carries no segments."""

SEGMENT_BYTES_MAX = 8 << 20
SEGMENT_ROWS_MAX = 65_536
"""Rows of one segment; a longer batch is cut."""

SEQUENCE_MAX = (1 << 53) - 1
"""The highest sequence number: exact in every JSON reader."""

EPOCH_LEAP_MAX = 1 << 20
"""How far one attach may move an epoch: a device that claims more is refused."""

RANGES_MAX = 4_096
"""Ranges in one range set on the wire."""

STREAMS_PER_DEVICE_MAX = 256
CONSENTS_PER_DEVICE_MAX = 1_024
"""Statements of one device, one for each stream and purpose: they move together, in one message."""

SEGMENTS_PER_MESSAGE_MAX = 512
CHECKPOINT_SEGMENTS_MAX = 64
"""Segments that one signature of their stream is over; one entry has at most 56 bytes."""

CHECKPOINT_BYTES_MAX = 4_096
CHECKPOINTS_CARRIED_MAX = 128
"""Checkpoints that an attach and a fence carry: those that the edge before may not have heard of."""

JSON_ROWS_MAX = 10_000
JSON_BYTES_MAX = 1 << 20
POLICY_BYTES_MAX = 1 << 20
BUNDLE_BYTES_MAX = POLICY_BYTES_MAX + (64 << 10)
"""A signed policy: its source, and the signer's certificate."""

POLICY_DEPTH_MAX = 16
"""How deep a policy's YAML may nest; the format itself needs 7."""

POLICY_VALUES_MAX = 100_000
"""How many values a policy's YAML may have; reading so many takes seconds."""

POLICY_PROBLEMS_MAX = 50
"""Problems that one load reports; a policy with more has one cause."""

DIFF_PIECES_MAX = 1_000
"""Pieces that a set of rows is cut into to prove that others contain it; beyond it, it is not proven."""

LOG_LINE_BYTES_MAX = 1 << 20
"""One line of a decision log that is replayed."""

AUDIT_DETAIL_BYTES_MAX = 4_096
AUDIT_NAME_CHARACTERS_MAX = 512
"""What one entry of the audit log says, and whom it names."""

WINDOW_BYTES = 4 << 20
"""Bytes that a sender has unacknowledged at one time."""

FLUSH_ROWS = 1_000
FLUSH_MS = 200
SIGN_MS = 200
"""A device signs a collection again after so long at the earliest, unless many rows are unsigned."""

BATCH_BYTES_MAX = 512 << 10
"""Columns of one batch of recorded rows in memory; a larger one is cut, so that its layers fit a segment each and a
message together, whatever transforms make of them."""

ROW_BYTES_MAX = 4 << 20
"""One row; it is a batch by itself, and the only one that may be over ``BATCH_BYTES_MAX``."""

PENDING_ROWS_MAX = 1_000_000
"""Rows recorded but not yet durable on a device; beyond it ``record`` waits."""

RETRY_MS = 1_000
"""The first interval after which something unacknowledged is sent again; it doubles up to ``RETRY_MS_MAX``."""

RETRY_MS_MAX = 15_000

EDGES_MAX = 1_024
"""Edges that one device may ever attach to."""

ERASE_STATEMENTS_MAX = 64
ERASE_RECEIPTS_MAX = 256
"""Statements that erase streams, and receipts for them, in one message."""

ERASE_RECEIPT_BYTES_MAX = 8_192
ERASE_RETRY_MS_MAX = 600_000
"""The longest interval at which a place that does not answer is told again what to erase."""

GENERATION_MAX = (1 << 31) - 1
"""How often the streams of one collection may begin anew."""

MODEL_BYTES_MAX = 64 << 20
MODEL_PART_BYTES = 1 << 20
"""A model's artefact, and the parts that it is kept in, each encrypted by itself."""

MODEL_VIEWS_MAX = 64
MODEL_POLICIES_MAX = 1_024
"""Readings of views that one model may name, and policies under which these were shown, counted for each."""

MODELS_PER_WORKER_MAX = 256
"""Models of one worker that a node keeps, those apart that were deleted."""

LINEAGE_BYTES_MAX = 256 << 10
"""A signed record of where a model comes from."""

LOGS_MAX = 8
"""Logs of one node whose heads it says."""

PREVIOUS_MAX = 8
"""Edges that one attach may name as places where state can be."""

SOURCES_MAX = 64
"""Edges that one edge waits for on behalf of one device, over all its attaches."""

CERTIFICATE_BYTES_MAX = 4_096
PEERS_CACHED_MAX = 8_192
"""Peers whose proved certificate, and whose content key, a node remembers; the least used are forgotten."""

KEYS_CACHED_MAX = 16_384
"""Data keys that a vault keeps unwrapped."""

CBOR_DEPTH_MAX = 16
CBOR_ITEMS_MAX = 1 << 17
"""Values in one message, nested ones included."""

SEGMENT_DECODED_BYTES_MAX = 64 << 20
"""What the columns of one segment may take in memory after decompression."""

SEGMENT_COLUMNS_MAX = 256
VECTOR_LENGTH_MAX = 65_536
NAME_CHARACTERS_MAX = 128
"""Characters of a collection's, a column's or a constant's name."""

META_ENTRIES_MAX = 32
META_TEXT_CHARACTERS_MAX = 256
