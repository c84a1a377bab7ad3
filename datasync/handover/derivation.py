"""Derivation: what of a batch's layers goes to another operator, where a verdict does not let the originals go.

Each layer keeps the columns that the verdict lists, if the layer's tier is one that may move and if the policy in
force would still make the column as it was made. All layers stay, with or without columns, because views join the
layers of a batch; a layer above the highest tier that moves has the rows that are left in the layers below it, and no
column. A row that was raised above that tier does not move, nor does the number of it.

``pseudonymise`` puts another pseudonym in the place of each one, and of the subject whatever it looks like: an HMAC
under a key of the giver for the receiving operator. The same person stays the same person there, and is nobody's
whom another operator knows. Where the verdict lists fields, it lists all that moves: constants do not.
"""

import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from datasync.domain.ids import stream_id
from datasync.domain.tiers import Tier
from datasync.policy import documents
from datasync.policy.compiled import Collection, Verdict
from datasync.policy.document import Hmac
from datasync.policy.transforms import PSEUDONYM_HEX_DIGITS, Step
from datasync.protocol import segment
from datasync.protocol.segment import Header, Meta, Segment
from datasync.store.opening import Layer

PseudonymKey = Callable[[str], bytes]
"""The giver's 32-byte key for the receiving operator, by the transform that made the pseudonyms."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a verdict leaves of a collection, as the policy in force has it."""

    verdict: Verdict
    collection: Collection
    pseudonym_key: PseudonymKey

    def layers(self, originals: Sequence[Layer], then: Collection) -> list[Layer]:
        """Return what moves of the layers of one batch; nothing when no layer is of a tier that moves.

        ``then`` is the collection as the policy had it that split the batch. Headers still name the original streams.
        """
        movable = [layer for layer in originals if layer.header.tier <= self.verdict.max_tier]
        if not movable:
            return []
        rows = max(movable, key=lambda layer: layer.header.tier).numbers
        return [
            self._reduced(layer, then) if layer.header.tier <= self.verdict.max_tier else self._emptied(layer, rows)
            for layer in originals
        ]

    def _reduced(self, layer: Layer, then: Collection) -> Layer:
        columns = dict(self._columns(layer, then))
        fields = [pa.field(name, column.type) for name, column in columns.items()]
        batch = layer.batch.select([])
        for field, column in zip(fields, columns.values(), strict=True):
            batch = batch.append_column(field, column)
        timed = then.time in columns
        header = replace(
            layer.header,
            meta=self._meta(layer.header),
            time_min_ms=layer.header.time_min_ms if timed else None,
            time_max_ms=layer.header.time_max_ms if timed else None,
        )
        return Layer(header, batch, layer.numbers)

    def _emptied(self, layer: Layer, rows: npt.NDArray[np.int64]) -> Layer:
        left = np.isin(layer.numbers, rows, assume_unique=True)
        batch = layer.batch.filter(pa.array(left))
        batch = batch.select([name for name in batch.schema.names if name == documents.COLUMN])
        for name in batch.schema.names:
            batch = batch.set_column(0, name, self._identity(batch.column(name)))
        meta = self._meta(layer.header)
        header = replace(layer.header, rows=batch.num_rows, meta=meta, time_min_ms=None, time_max_ms=None)
        return Layer(header, batch, layer.numbers[left])

    def _columns(self, layer: Layer, then: Collection) -> Iterator[tuple[str, pa.Array]]:
        for name, column in zip(layer.batch.schema.names, layer.batch.columns, strict=True):
            if name == documents.COLUMN:
                yield name, self._identity(column)
            elif self._moves(name, layer.header.tier, then):
                moved = self._field(name, column, _steps(then, name, layer.header.tier))
                if moved is not None:
                    yield name, moved

    def _moves(self, name: str, tier: Tier, then: Collection) -> bool:
        if self.verdict.fields is not None and name not in self.verdict.fields:
            return False
        now = self.collection
        if name not in then.fields or name not in now.fields or then.fields[name].type != now.fields[name].type:
            return False
        if then.seen(name, tier) is None or then.seen(name, tier) != now.seen(name, tier):
            return False
        before, after = _steps(then, name, tier), _steps(now, name, tier)
        return [step.spec for step in before] == [step.spec for step in after]

    def _field(self, name: str, column: pa.Array, steps: Sequence[Step]) -> pa.Array | None:
        if self.verdict.action != "pseudonymise":
            return column
        made_by = next((step.name for step in steps if isinstance(step.spec, Hmac)), None)
        if made_by is None and name != self.collection.subject:
            return column
        if column.type != pa.string():
            return column if made_by is not None else None  # a constant in a pseudonym's place; or a number that is one
        return pseudonyms(column, self.pseudonym_key(made_by or f"subject:{self.collection.name}"))

    def _identity(self, column: pa.Array) -> pa.Array:
        if self.verdict.action != "pseudonymise":
            return column
        return pseudonyms(column, self.pseudonym_key(documents.key_name(self.collection.name)))

    def _meta(self, header: Header) -> Meta:
        ceiling, tiers, fields = min(header.tier, self.verdict.max_tier), self.collection.meta, self.verdict.fields
        return {
            name: value
            for name, value in header.meta.items()
            if name in tiers and tiers[name] <= ceiling and (fields is None or name in fields)
        }


def as_segment(layer: Layer, key: Ed25519PrivateKey) -> Segment:
    """Return the layer as a segment of the stream whose key this is.

    The segment names none before it: of a derived stream, what has expired or is there already was left out.
    """
    public_key = key.public_key().public_bytes_raw()
    header = replace(layer.header, stream=stream_id(public_key), public_key=public_key, previous="")
    return segment.encode(header, layer.batch, layer.numbers - header.seq_first, segment.salt_of(header, key))


def pseudonyms(column: pa.Array, key: bytes) -> pa.Array:
    """Return the first 16 bytes of HMAC-SHA256 (RFC 2104) of each text, in hex; what is null stays null."""
    encoded = column.dictionary_encode()
    digests = [
        hmac.digest(key, value.encode(), "sha256").hex()[:PSEUDONYM_HEX_DIGITS]
        for value in encoded.dictionary.to_pylist()
    ]
    return pa.array(digests, pa.string()).take(encoded.indices)


def _steps(collection: Collection, name: str, tier: Tier) -> Sequence[Step]:
    """Return the transforms that made what is seen of a field at a tier."""
    form = collection.seen(name, tier)
    chains: list[tuple[Step, ...]] = [(), *collection.fields[name].up.values()]
    wanted = () if form is None else form.chain
    return next(steps for steps in chains if tuple(step.name for step in steps) == wanted)
