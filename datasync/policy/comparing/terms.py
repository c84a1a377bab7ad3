"""The terms of a policy beside who sees what: who workers are, what consent is needed, what is kept, moved, learned.

Each term has an order, from what gives least to what gives most, or is a set; what has neither just changes.
"""

import itertools
from collections.abc import Iterator, Set

from datasync.domain.tiers import Place, Tier
from datasync.policy import fates
from datasync.policy.comparing.changes import Change, term
from datasync.policy.comparing.effects import Effect, contained, joined, ranked
from datasync.policy.compiled import Collection, Policy, Verdict, Worker
from datasync.policy.document import Approve, DpSgd, ModelTransform
from datasync.policy.quantities import duration_text
from datasync.policy.verdicts import verdict

_BASES = ("opt_in", "opt_out", "contract")
_ACTIONS = ("drop", "pseudonymise", "move", "copy")
_FOR_EVER = float("inf")


def changes(old: Policy, new: Policy) -> Iterator[Change]:
    """Yield what changes in the terms of collections, consent, handovers, operators, models and erasure."""
    for name in dict.fromkeys((*new.collections, *old.collections)):
        before, after = old.collections.get(name), new.collections.get(name)
        if before is not None and after is not None:
            yield from _collection(before, after)
        yield from _constants(name, before, after)
    for purpose in sorted(old.basis.keys() & new.basis.keys()):
        if (found := basis_change(old, new, purpose)) is not None:
            yield from term(found[0], "purpose", purpose, found[1])
    yield from _operators(old, new)
    yield from _handovers(old, new)
    yield from _models(old, new)
    yield from _erasure(old, new)


def basis_change(old: Policy, new: Policy, purpose: str) -> tuple[Effect, str] | None:
    """Return what the purpose's new basis does, None when it is the old one: opt_in is the strictest."""
    before, after = old.basis[purpose], new.basis[purpose]
    if before == after:
        return None
    return ranked(_BASES.index(before), _BASES.index(after)), f"consent was {before}, now {after}"


def of_worker(name: str, old: Worker | None, new: Worker | None) -> Iterator[Change]:
    """Yield what changes in who a worker is."""
    if old is None or new is None:
        effect = Effect.WIDENS if old is None else Effect.NARROWS
        yield from term(effect, "worker", name, f"the worker is {'new' if old is None else 'gone'}")
        return
    for what in ("place", "operator", "kind"):
        before, after = getattr(old, what), getattr(new, what)
        effect = Effect.NOTHING if before == after else Effect.CHANGES
        yield from term(effect, "worker", name, f"its {what} was {before or 'none'}, now {after or 'none'}")
    reason = f"its clearance was {old.clearance.label}, now {new.clearance.label}"
    yield from term(ranked(old.clearance, new.clearance), "worker", name, reason)
    effect = contained(old.purposes, new.purposes)
    yield from term(effect, "worker", name, f"its purposes {_set(old.purposes, new.purposes)}")


def _collection(old: Collection, new: Collection) -> Iterator[Change]:
    name = new.name
    for what in ("kind", "subject", "key"):
        before, after = getattr(old, what), getattr(new, what)
        effect = Effect.NOTHING if before == after else Effect.CHANGES
        yield from term(effect, "collection", name, f"its {what} was {before or 'none'}, now {after or 'none'}", name)
    for field in (field for field in new.fields if field in old.fields):
        before, after = old.fields[field].merge, new.fields[field].merge
        effect = Effect.NOTHING if before == after else Effect.CHANGES
        yield from term(effect, "collection", name, f"its changes merged by {before}, now by {after}", name, field)
    for place in Place:
        kept = [schema.retain.get(place) for schema in (old, new)]
        reason = f"kept {_length(kept[0])}, now {_length(kept[1])}"
        yield from term(_longer(*kept), "place", place.value, reason, name)
    reason = "sealed escrow is " + ("kept now" if new.mobility.escrow else "not kept any more")
    yield from term(ranked(old.mobility.escrow, new.mobility.escrow), "place", Place.CLOUD.value, reason, name)


def _constants(name: str, old: Collection | None, new: Collection | None) -> Iterator[Change]:
    for place in Place:
        before, after = (
            frozenset(key for key, tier in schema.meta.items() if tier <= place.highest_tier) if schema else frozenset()
            for schema in (old, new)
        )
        yield from term(contained(before, after), "place", place.value, f"its constants {_set(before, after)}", name)


def _operators(old: Policy, new: Policy) -> Iterator[Change]:
    for name in sorted(old.operators ^ new.operators):
        is_new = name in new.operators
        effect = Effect.WIDENS if is_new else Effect.NARROWS
        yield from term(effect, "operator", name, f"the operator is {'new' if is_new else 'gone'}")


def _handovers(old: Policy, new: Policy) -> Iterator[Change]:
    operators = sorted(old.operators | new.operators)
    collections = list(dict.fromkeys((*new.collections, *old.collections)))
    for source, to, name in itertools.product(operators, operators, collections):
        before, after = verdict(old, source, to, name), verdict(new, source, to, name)
        found = {
            reason: effect for reason, effect in _verdict(before, after, old, new, name) if effect is not Effect.NOTHING
        }
        if found:
            yield Change(
                effect=joined(found.values()), scope="handover", name=f"{source} to {to}", collection=name,
                reasons=tuple(found),
            )  # fmt: skip


def _verdict(old: Verdict, new: Verdict, before: Policy, after: Policy, name: str) -> Iterator[tuple[str, Effect]]:
    """Yield what each term of a verdict does; where nothing moved, or nothing will, only the action counts."""
    yield f"was {old.action}, now {new.action}", ranked(_ACTIONS.index(old.action), _ACTIONS.index(new.action))
    if "drop" in (old.action, new.action):
        return
    yield f"up to {old.max_tier.label}, now {new.max_tier.label}", ranked(old.max_tier, new.max_tier)
    fields = (old.fields, new.fields)
    if None in fields and fields != (None, None):
        fields = (_moved(old, before, name), _moved(new, after, name))
    yield f"its fields {_set(*fields)}", contained(*fields)
    yield f"its purposes {_set(old.purposes, new.purposes)}", contained(old.purposes, new.purposes)
    yield f"the consents that it requires {_set(old.requires, new.requires)}", contained(new.requires, old.requires)
    kept = (old.retain_ms, new.retain_ms)
    yield f"kept by the target {_length(kept[0])}, now {_length(kept[1])}", _longer(*kept)
    yield f"given on {_is(old.onward)}, now {_is(new.onward)}", ranked(old.onward, new.onward)


def _moved(found: Verdict, policy: Policy, name: str) -> frozenset[str]:
    return frozenset(policy.collections[name].fields) if found.fields is None else found.fields


def _models(old: Policy, new: Policy) -> Iterator[Change]:
    """Yield the ways to lower a model's label that come, go, or ask for less."""
    before, after = _ways(old), _ways(new)
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            is_new = name in after
            reason = f"models may {'now' if is_new else 'not any more'} be lowered by it"
            yield from term(Effect.WIDENS if is_new else Effect.NARROWS, "models", name, reason)
        else:
            yield from term(_way(before[name], after[name]), "models", name, "what it asks for is different")


def _ways(policy: Policy) -> dict[str, ModelTransform]:
    models, specs = policy.document.models, policy.document.transforms
    found = {name: specs[name] for name in (() if models is None else models.lower_by)}
    return {name: spec for name, spec in found.items() if isinstance(spec, DpSgd | Approve)}


def _way(old: ModelTransform, new: ModelTransform) -> Effect:
    if old.op != new.op or old.source != new.source:
        return Effect.CHANGES
    effects = [ranked(-Tier.parse(old.to), -Tier.parse(new.to))]
    if isinstance(old, DpSgd) and isinstance(new, DpSgd):
        effects += [ranked(old.epsilon, new.epsilon), ranked(old.delta, new.delta)]
        effects.append(ranked(old.unit == "row", new.unit == "row"))  # a row's privacy is less than a person's
    return joined(effects)


def _erasure(old: Policy, new: Policy) -> Iterator[Change]:
    withdraw = [policy.document.consent.withdraw for policy in (old, new)]
    purged = [None if each is None else each.purge for each in withdraw]
    reason = f"after a withdrawal, data are kept {_length(purged[0])}, now {_length(purged[1])}"
    yield from term(_longer(*purged), "consent", "withdrawal", reason)
    erasure = [policy.document.erasure for policy in (old, new)]
    left = [None if each is None else each.compact for each in erasure]
    reason = f"what is erased may lie in files {_length(left[0])}, now {_length(left[1])}"
    yield from term(_longer(*left), "erasure", "compaction", reason)
    for tier in reversed(Tier):
        before, after = fates.fate(old, tier), fates.fate(new, tier)
        reason = f"was {before.name.lower()}, now {after.name.lower()}"
        yield from term(ranked(-before, -after), "erasure", f"{tier.label} models", reason)


def _longer(old_ms: int | None, new_ms: int | None) -> Effect:
    """Return the effect of another length of time; None is for ever."""
    return ranked(_FOR_EVER if old_ms is None else old_ms, _FOR_EVER if new_ms is None else new_ms)


def _length(length_ms: int | None) -> str:
    return "for ever" if length_ms is None else duration_text(length_ms)


def _is(value: bool) -> str:
    return "yes" if value else "no"


def _set(old: Set[str] | None, new: Set[str] | None) -> str:
    """Return in words how a set differs from an older one; None is the set of all."""
    if old is None or new is None:
        before, after = ("all" if each is None else ", ".join(sorted(each)) or "none" for each in (old, new))
        return f"were {before}, now {after}"
    parts = [f"gain {', '.join(sorted(new - old))}"] if new - old else []
    return " and ".join([*parts, *([f"lose {', '.join(sorted(old - new))}"] if old - new else [])])
