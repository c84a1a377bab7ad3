"""Documents as rows: each row changes some fields of one document, and names it by a pseudonym of its own.

A document is told apart by its subject and its key. Neither may be seen at every tier, and pseudonyms of the subject
change with time; so each row carries, in every layer, one more column: an HMAC of both under a key of the device that
never changes. It says which rows belong together, and nothing else.
"""

import hmac

import numpy as np
import pyarrow as pa

from datasync.domain.errors import RecordError
from datasync.policy.transforms import PSEUDONYM_HEX_DIGITS, identifier_bytes

COLUMN = "_doc"
"""No field is called so: fields begin with a letter."""

FIELD = pa.field(COLUMN, pa.string())


def key_name(collection: str) -> str:
    """Return what the device derives the key of a collection's documents from; no transform is called so."""
    return f"document:{collection}"


def check_identified(batch: pa.RecordBatch, subject: str, key: str) -> None:
    """Raise RecordError unless each row says whose document it changes, and which."""
    for name in (subject, key):
        if batch.column(name).null_count:
            row = int(np.flatnonzero(batch.column(name).is_null().to_numpy(zero_copy_only=False))[0])
            detail = f"row {row} has no {name}, and a document is told by {subject} and {key}"
            raise RecordError(detail, fix=f"give {name} in every row")


def identities(subject: pa.Array, key: pa.Array, secret: bytes) -> pa.Array:
    """Return which document each row changes: the first 16 bytes of HMAC-SHA256 (RFC 2104), in hex.

    ``subject`` and ``key`` have no nulls. What is authenticated is the subject's length in 8 bytes, subject and key.
    """
    subjects, keys = subject.dictionary_encode(), key.dictionary_encode()
    codes = subjects.indices.to_numpy().astype(np.int64) * max(1, len(keys.dictionary)) + keys.indices.to_numpy()
    distinct, places = np.unique(codes, return_inverse=True)
    owners, names = identifier_bytes(subjects.dictionary), identifier_bytes(keys.dictionary)
    pairs = (divmod(code, len(names)) for code in distinct.tolist())
    pseudonyms = [
        hmac.digest(secret, len(owners[s]).to_bytes(8) + owners[s] + names[k], "sha256").hex()[:PSEUDONYM_HEX_DIGITS]
        for s, k in pairs
    ]
    return pa.array(pseudonyms, pa.string()).take(pa.array(places))
