"""The split: a captured batch becomes one layer for each tier, and each layer holds what its tier may.

Layer T has the columns whose form is at tier T. A row that ``raise`` lifts to T is absent from the layers below T, and
layer T then has further columns: for fields without a form at T, the form that a reader at T would see, filled for
the lifted rows and null for the others. A tier that has no forms of its own and is a target of ``raise`` always has
these columns, so that its layer has the rows of the batch like any other. In every layer of documents one more column
says which document each row changes.

What is computed once for a collection (which transform on which column, which column in which layer) is a plan kept in
the policy's memo; for each batch only kernels run. Chains with a common beginning share its work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasync.domain.clock import Instant
from datasync.domain.errors import RecordError
from datasync.domain.tiers import Tier
from datasync.policy import documents
from datasync.policy.arrays import clean, pick
from datasync.policy.compiled import Collection, Form, Lift, Policy
from datasync.policy.problems import nearest
from datasync.policy.rows import from_column, from_values
from datasync.policy.transforms import Context, Step, SubjectKey

if TYPE_CHECKING:
    import pandas as pd

Rows: TypeAlias = "Sequence[Mapping[str, Any]] | pa.RecordBatch | pa.Table | pd.DataFrame"


@dataclass(frozen=True, slots=True)
class Layer:
    """The part of a batch that belongs to one tier.

    ``positions`` are the rows' indices in the captured batch, increasing; None when the layer has all of them.
    """

    tier: Tier
    batch: pa.RecordBatch
    positions: npt.NDArray[np.int64] | None


def split(
    policy: Policy, collection: str, batch: pa.RecordBatch, *, subject_key: SubjectKey, now: Instant
) -> tuple[Layer, ...]:
    """Return the layers of a batch, low tier to high.

    ``batch`` has the collection's input schema, as :func:`to_batch` makes it. ``subject_key`` gives the device's
    32-byte HMAC key for a transform and a rotation period. Raises CollectionUnknown and RecordError.
    """
    plan = _plan_of(policy, collection)
    if not batch.schema.equals(plan.schema):
        raise RecordError(f"the batch is not in the schema of {collection}", fix="make it with to_batch")
    context = Context(subject_key, now)
    columns = [clean(column) for column in batch.columns]
    for source, step in plan.steps:
        columns.append(step.kernel(columns[source], context))
    if plan.identity is not None:
        columns.append(plan.identity.of(columns, context))
    lifted = _lifted(plan.lifts, batch, now)
    return tuple(_layer(layer, columns, lifted) for layer in plan.layers)


def to_batch(collection: Collection, rows: Rows) -> pa.RecordBatch:
    """Return a user's rows in the collection's input schema. Raises RecordError, which names row and field.

    A document's row changes the fields that are not null in it, and has its subject and key. ``rows`` are mappings
    (a missing field is null), an Arrow batch or table, or a pandas frame (where NaN means null).
    """
    batch = _converted(collection, rows)
    if collection.key is not None:
        documents.check_identified(batch, collection.subject, collection.key)
    return batch


def _converted(collection: Collection, rows: Rows) -> pa.RecordBatch:
    if _is_frame(rows):
        rows = pa.Table.from_pandas(rows, preserve_index=False)
    if isinstance(rows, pa.Table):
        columns = {name: rows.column(index).combine_chunks() for index, name in enumerate(rows.column_names)}
        return _from_columns(collection, columns, rows.column_names, rows.num_rows)
    if isinstance(rows, pa.RecordBatch):
        columns = dict(zip(rows.schema.names, rows.columns, strict=True))
        return _from_columns(collection, columns, rows.schema.names, rows.num_rows)
    return _from_mappings(collection, cast("Sequence[Mapping[str, Any]]", rows))


@dataclass(frozen=True, slots=True)
class _LayerPlan:
    """Which columns a layer has: slots of its own forms, and of the forms that lifted rows bring along."""

    tier: Tier
    own: tuple[int, ...]
    own_schema: pa.Schema
    lifted: tuple[int, ...]
    full_schema: pa.Schema
    has_forms: bool


@dataclass(frozen=True, slots=True)
class _Identity:
    """Where a document's subject and key stand, and what its pseudonyms' key is called."""

    subject: int
    key: int
    key_name: str

    def of(self, columns: Sequence[pa.Array], context: Context) -> pa.Array:
        return documents.identities(columns[self.subject], columns[self.key], context.subject_key(self.key_name, 0))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Slots are the captured columns in order, the results of ``steps`` (input slot, step), and a document's name."""

    schema: pa.Schema
    steps: tuple[tuple[int, Step], ...]
    identity: _Identity | None
    lifts: tuple[Lift, ...]
    layers: tuple[_LayerPlan, ...]


def _plan_of(policy: Policy, name: str) -> _Plan:
    key = ("split", name)
    plan: _Plan | None = policy.memo.get(key)
    if plan is None:
        plan = policy.memo[key] = _plan(policy.collection(name))
    return plan


def _plan(collection: Collection) -> _Plan:
    slots: dict[tuple[str, tuple[str, ...]], int] = {(name, ()): index for index, name in enumerate(collection.fields)}
    steps: list[tuple[int, Step]] = []
    for field in collection.fields.values():
        for chain in field.up.values():
            source: tuple[str, ...] = ()
            for step in chain:
                made = (*source, step.name)
                if (field.name, made) not in slots:
                    steps.append((slots[field.name, source], step))
                    slots[field.name, made] = len(slots)
                source = made
    identity = _identity(collection)
    document = None if identity is None else len(slots)
    layers = tuple(_layer_plan(collection, tier, slots, document) for tier in collection.tiers())
    return _Plan(collection.input_schema, tuple(steps), identity, collection.lifts, layers)


def _identity(collection: Collection) -> _Identity | None:
    if collection.key is None:
        return None
    names = list(collection.fields)
    key_name = documents.key_name(collection.name)
    return _Identity(names.index(collection.subject), names.index(collection.key), key_name)


def _layer_plan(
    collection: Collection, tier: Tier, slots: Mapping[tuple[str, tuple[str, ...]], int], document: int | None
) -> _LayerPlan:
    own = collection.forms_at(tier)
    lifted: tuple[Form, ...] = ()
    if any(lift.to == tier for lift in collection.lifts):
        seen = (collection.seen(name, tier) for name in collection.fields)
        lifted = tuple(form for form in seen if form is not None and form.tier < tier)
    identity = ([], []) if document is None else ([document], [documents.FIELD])
    own_fields = [*identity[1], *(pa.field(form.field, form.type) for form in own)]
    return _LayerPlan(
        tier,
        (*identity[0], *(slots[form.field, form.chain] for form in own)),
        pa.schema(own_fields),
        tuple(slots[form.field, form.chain] for form in lifted),
        pa.schema([*own_fields, *(pa.field(form.field, form.type) for form in lifted)]),
        bool(own),
    )


def _lifted(lifts: Sequence[Lift], batch: pa.RecordBatch, now: Instant) -> npt.NDArray[np.int8] | None:
    """Return the tier that each row is lifted to (0: none); None when no row is."""
    lifted = np.zeros(batch.num_rows, dtype=np.int8)
    for lift in lifts:
        # A row of which it is unknown whether it is more private is taken to be.
        holds = lift.where.holds(batch, {}, now, unknown=True)
        lifted = np.maximum(lifted, np.where(holds, np.int8(lift.to), np.int8(0)))
    return lifted if lifted.any() else None


def _layer(plan: _LayerPlan, columns: Sequence[pa.Array], lifted: npt.NDArray[np.int8] | None) -> Layer:
    chosen, schema = [columns[slot] for slot in plan.own], plan.own_schema
    here = None if lifted is None or not plan.lifted else lifted == plan.tier
    if plan.lifted and ((here is not None and here.any()) or not plan.has_forms):
        shown = np.zeros(len(columns[0]), dtype=bool) if here is None else here
        chosen, schema = [*chosen, *(pick(columns[slot], shown) for slot in plan.lifted)], plan.full_schema
    positions = None if lifted is None else _positions(lifted <= plan.tier)
    if positions is not None:
        indices = pa.array(positions)
        chosen = [column.take(indices) for column in chosen]
    return Layer(plan.tier, pa.RecordBatch.from_arrays(chosen, schema=schema), positions)


def _positions(kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64] | None:
    return None if kept.all() else np.flatnonzero(kept)


def _from_columns(
    collection: Collection, columns: Mapping[str, pa.Array], names: Sequence[str], rows: int
) -> pa.RecordBatch:
    _check_names(collection, names)
    if len(set(names)) < len(names):
        raise RecordError("two columns have the same name", fix="keep one of them")
    arrays = [
        from_column(columns[field.name], field) if field.name in columns else pa.nulls(rows, field.type)
        for field in collection.input_schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=collection.input_schema)


def _from_mappings(collection: Collection, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise RecordError(f"row {index} is no mapping of fields to values", fix='give {"field": value, ...}')
        if not row.keys() <= collection.fields.keys():
            _check_names(collection, list(row), f"row {index}: ")
    arrays = [from_values([row.get(field.name) for row in rows], field) for field in collection.input_schema]
    return pa.RecordBatch.from_arrays(arrays, schema=collection.input_schema)


def _check_names(collection: Collection, names: Sequence[Any], where: str = "") -> None:
    for name in names:
        if name not in collection.fields:
            detail = f"{where}{collection.name} has no field {name}"
            raise RecordError(detail, fix=nearest(name, collection.fields))


def _is_frame(rows: object) -> "TypeGuard[pd.DataFrame]":
    """Whether this is a pandas frame; pandas is the user's to install and is not imported for the question."""
    return type(rows).__module__.partition(".")[0] == "pandas"
