"""Compiling collections: types, chains and the forms that they make, constants, and rows that are lifted.

What is checked here keeps two promises. A value goes down only through transforms that fit it, one tier at a time as
each says. And a layer has one form of a field, made by a chain that the policy lists for a place that holds the layer.
"""

from dataclasses import replace

import pyarrow as pa

from datasync.domain.limits import META_ENTRIES_MAX
from datasync.domain.tiers import Place, Tier
from datasync.policy import problems as codes
from datasync.policy.compiled import Collection, Field, Form, Lift, Mobility
from datasync.policy.document import (
    AnyCollection,
    AnyTransform,
    DocumentSpec,
    FieldSpec,
    Merge,
    ModelTransform,
    Raise,
    StreamSpec,
)
from datasync.policy.predicate import BindError, Predicate, Scope, Test, bind
from datasync.policy.problems import nearest
from datasync.policy.transforms import IDENTIFIERS, NUMBERS, Step, commutes, fit
from datasync.policy.tree import Path, Report
from datasync.policy.types import TIMESTAMP, arrow_type, type_name

Transforms = dict[str, AnyTransform]


def check_transforms(transforms: Transforms, report: Report) -> None:
    """Add a problem for each transform that does not lead down."""
    for name, spec in transforms.items():
        if Tier.parse(spec.to) >= Tier.parse(spec.source):
            message = f"{name} leads from {spec.source} to {spec.to}, which is not down"
            report.add(codes.VALUE_INVALID, ("transforms", name, "to"), message, "lower is towards public")


def compile_collection(name: str, spec: AnyCollection, transforms: Transforms, report: Report) -> Collection:
    """Return the compiled collection; what is wrong goes to the report, and the result is then not to be used."""
    path = ("collections", name)
    fields = {
        each: _field((*path, "fields", each), each, field, transforms, report) for each, field in spec.fields.items()
    }
    _check_roles(path, spec, fields, report)
    if isinstance(spec, DocumentSpec):
        _check_document(path, spec, fields, report)
    else:
        _check_no_merge(path, spec, report)
    return Collection(
        name=name,
        kind=spec.kind,
        subject=spec.subject,
        time=spec.time if isinstance(spec, StreamSpec) else None,
        key=spec.key if isinstance(spec, DocumentSpec) else None,
        meta={each: Tier.parse(label) for each, label in spec.meta.items()},
        fields=fields,
        forms={each: _forms((*path, "fields", each), field, report) for each, field in fields.items()},
        lifts=tuple(_lift((*path, "raise", index), each, fields, report) for index, each in enumerate(spec.raised)),
        mobility=Mobility(spec.mobility.hot, spec.mobility.escrow),
        retain={Place(place): length_ms for place, length_ms in (spec.retain or {}).items()},
        input_schema=pa.schema([(field.name, field.type) for field in fields.values()]),
    )


def _check_roles(path: Path, spec: AnyCollection, fields: dict[str, Field], report: Report) -> None:
    for role in ("subject", "time", "key"):
        name = getattr(spec, role, None)
        if name is not None and name not in fields:
            report.add(codes.NAME_UNKNOWN, (*path, role), f"there is no field {name}", nearest(name, fields))
        elif role == "time" and name is not None and fields[name].type != TIMESTAMP:
            report.add(codes.VALUE_INVALID, (*path, role), f"{name} is no timestamp", "name a field of type timestamp")
    for name in spec.meta:
        if name in fields:
            message = f"{name} is a field and a constant"
            report.add(codes.NAME_DUPLICATE, (*path, "meta", name), message, "rename one of them", key=True)
    if len(spec.meta) > META_ENTRIES_MAX:
        report.add(codes.VALUE_INVALID, (*path, "meta"), "too many constants", f"keep at most {META_ENTRIES_MAX}")


def _check_document(path: Path, spec: DocumentSpec, fields: dict[str, Field], report: Report) -> None:
    """Subject and key tell documents apart; every other field merges, and what lowers its tier must not change that."""
    for role in ("subject", "key"):
        name = getattr(spec, role)
        if name in fields and fields[name].type not in (*IDENTIFIERS, pa.null()):
            message = f"{name} is a {type_name(fields[name].type)}, by which no document is told apart"
            report.add(
                codes.VALUE_INVALID, (*path, role), message, "name a field of type string, bytes, int32 or int64"
            )
        if name in fields and spec.fields[name].merge is not None:
            at, message = (*path, "fields", name, "merge"), f"{name} tells documents apart, so it never changes"
            report.add(codes.VALUE_INVALID, at, message, "remove it")
    if spec.key == spec.subject:
        report.add(codes.VALUE_INVALID, (*path, "key"), "the key is the subject", "name another field")
    for name, field in fields.items():
        _check_merge((*path, "fields", name), spec.fields[name].merge or "lww", field, report)


def _check_merge(path: Path, merge: Merge, field: Field, report: Report) -> None:
    if field.type == pa.null():
        return
    wanted = {"counter": (NUMBERS, "a number"), "max": ((*NUMBERS, TIMESTAMP), "a number or a timestamp")}
    kinds, words = wanted.get("max" if merge == "min" else merge, ((), ""))
    if merge == "union" and not pa.types.is_list(field.type):
        kinds, words = (pa.null(),), "a list of scalars"
    if kinds and field.type not in kinds:
        message = f"{field.name} is a {type_name(field.type)}, and {merge} merges {words}"
        report.add(codes.VALUE_INVALID, (*path, "merge"), message, f"use lww, or make the field {words}")
    for place, chain in field.up.items():
        for index, step in enumerate(chain):
            if not commutes(step.spec, merge):
                message = f"{step.name} changes what {merge} would merge: changes are transformed before they merge"
                report.add(codes.CHAIN_INVALID, (*path, "up", place.value, index), message, "use drop, or merge: lww")


def _check_no_merge(path: Path, spec: StreamSpec, report: Report) -> None:
    for name, field in spec.fields.items():
        if field.merge is not None:
            at = (*path, "fields", name, "merge")
            report.add(codes.VALUE_INVALID, at, "rows of a stream do not merge", "remove it, or use kind: document")


def _field(path: Path, name: str, spec: FieldSpec, transforms: Transforms, report: Report) -> Field:
    try:
        kind = arrow_type(spec.type)
    except ValueError as error:
        message, _, fix = str(error).partition(": ")
        report.add(codes.VALUE_INVALID, (*path, "type"), message, fix)
        return Field(name, pa.null(), Tier.parse(spec.tier), {}, "lww")
    raw = Field(name, kind, Tier.parse(spec.tier), {}, spec.merge or "lww")
    chains = {
        Place(place): _chain((*path, "up", place), raw, Place(place), names, transforms, report)
        for place, names in spec.up.items()
    }
    return replace(raw, up={place: chain for place, chain in chains.items() if chain})


def _chain(
    path: Path, raw: Field, place: Place, names: tuple[str, ...], transforms: Transforms, report: Report
) -> tuple[Step, ...]:
    """Return the fitted steps of a chain; empty when a problem was added."""
    if raw.tier <= place.highest_tier:
        message = f"{raw.name} is {raw.tier.label}, which the {place} holds as it is; the chain would not be used"
        report.add(codes.CHAIN_INVALID, path, message, "remove the chain or raise the field's tier", key=True)
        return ()
    steps: list[Step] = []
    for index, name in enumerate(names):
        step = _step((*path, index), raw, steps, name, transforms, report)
        if step is None:
            return ()
        steps.append(step)
    if steps[-1].to > place.highest_tier:
        message = f"the chain ends at {steps[-1].to.label}, and the {place} holds at most {place.highest_tier.label}"
        report.add(codes.CHAIN_INVALID, path, message, "add a transform that leads further down")
        return ()
    return tuple(steps)


def _step(path: Path, raw: Field, before: list[Step], name: str, transforms: Transforms, report: Report) -> Step | None:
    spec = transforms.get(name)
    if spec is None:
        report.add(codes.NAME_UNKNOWN, path, f"there is no transform {name}", nearest(name, transforms))
        return None
    if isinstance(spec, ModelTransform):
        report.add(codes.CHAIN_INVALID, path, f"{name} lowers models, not rows", "name it in models: lower_by")
        return None
    tier = before[-1].to if before else raw.tier
    if spec.source != tier.label:
        message = f"{name} leads from {spec.source}, and {raw.name} is {tier.label} here"
        report.add(codes.CHAIN_INVALID, path, message, f"use a transform from {tier.label}")
        return None
    try:
        return fit(name, spec, before[-1].type if before else raw.type, before[-1] if before else None)
    except ValueError as error:
        message, _, fix = str(error).partition(": ")
        report.add(codes.CHAIN_INVALID, path, message, fix)
        return None


def _forms(path: Path, field: Field, report: Report) -> dict[Tier, Form]:
    """Return the field's forms by tier, high to low."""
    forms = {field.tier: Form(field.name, field.tier, (), field.type)}
    for place, chain in field.up.items():
        _check_listed_below((*path, "up", place.value), field, place, chain, report)
        names, last = tuple(step.name for step in chain), chain[-1]
        forms[last.to] = Form(field.name, last.to, names, last.type)
    return dict(sorted(forms.items(), reverse=True))


def _check_listed_below(path: Path, field: Field, place: Place, chain: tuple[Step, ...], report: Report) -> None:
    """A chain that ends below its place's tier makes a form that the lower place receives: it must be listed there.

    So no two chains make different forms at one tier.
    """
    for lower in Place:
        ends_there = chain[-1].to == lower.highest_tier < place.highest_tier
        if ends_there and [step.name for step in field.up.get(lower, ())] != [step.name for step in chain]:
            message = f"the chain ends at {chain[-1].to.label}, so the {lower} would receive {field.name} too"
            fix = f"list the chain for the {lower} as well, or end it at {place.highest_tier.label}"
            report.add(codes.CHAIN_INVALID, path, message, fix)


def _lift(path: Path, spec: Raise, fields: dict[str, Field], report: Report) -> Lift:
    """Return a compiled ``raise``. Its conditions see the rows as they were captured."""
    tier = Tier.parse(spec.to)
    if tier == Tier.PUBLIC:
        report.add(codes.VALUE_INVALID, (*path, "to"), "nothing is below public", "write edge-private or user-private")
    scope = Scope({name: field.type for name, field in fields.items() if field.type != pa.null()})
    tests: list[Test] = []
    for index, clause in enumerate(spec.where):
        try:
            tests.append(bind(clause, scope))
        except BindError as error:
            report.add(codes.WHERE_INVALID, (*path, "where", index, error.part), error.message, error.fix)
    return Lift(tier, Predicate(tuple(tests)))
