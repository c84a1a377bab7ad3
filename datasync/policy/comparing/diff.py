"""What a new policy lets anybody know that the old one did not, and the other way around.

Compiled forms are compared, never texts: for each worker, collection, field and purpose the form and the rows that the
worker sees; for each place and field the forms that it holds, whether or not anybody reads them; and the terms on which
data are kept, moved and learned from. What cannot be proven to narrow is told as widening or as a mere change, so a
diff with neither is a promise: what is visible under the new policy was visible under the old one, in the same form or
in one from which it could have been made.
"""

from collections.abc import Iterable, Iterator

from datasync.domain.tiers import Place
from datasync.policy.comparing import terms
from datasync.policy.comparing.changes import Change
from datasync.policy.comparing.coarseness import told
from datasync.policy.comparing.effects import Effect, joined, ranked
from datasync.policy.comparing.sights import Rows, Sight, all_told, held, seen
from datasync.policy.compiled import Policy

Compared = dict[tuple[Rows, Rows], Effect]
"""What was worked out already: fields that the same rules cover share their rows."""


def diff(old: Policy, new: Policy) -> tuple[Change, ...]:
    """Return every change from one policy to another: workers first, then places, then terms, each in stable order."""
    return (*_workers(old, new), *_places(old, new), *terms.changes(old, new))


def may_widen(changes: Iterable[Change]) -> bool:
    """Whether any of the changes widens something, or cannot be proven not to."""
    return any(change.effect.may_widen for change in changes)


def _workers(old: Policy, new: Policy) -> Iterator[Change]:
    compared: Compared = {}
    for name in _either(old.workers, new.workers):
        yield from terms.of_worker(name, old.workers.get(name), new.workers.get(name))
        for collection in _either(old.collections, new.collections):
            for field in _fields(old, new, collection):
                yield from _field(old, new, name, collection, field, compared)


def _field(old: Policy, new: Policy, worker: str, collection: str, field: str, compared: Compared) -> Iterator[Change]:
    """Yield for each purpose how what the worker sees of the field changes."""
    readers = (old.workers.get(worker), new.workers.get(worker))
    for purpose in sorted(set[str]().union(*(reader.purposes for reader in readers if reader is not None))):
        before, after = (
            None if reader is None else seen(policy, reader, collection, field, purpose)
            for policy, reader in zip((old, new), readers, strict=True)
        )
        effect, reasons = _seen_change(before, after, compared)
        basis = None if before is None or after is None else terms.basis_change(old, new, purpose)
        if basis is not None:
            effect, reasons = joined((effect, basis[0])), (*reasons, basis[1])
        if effect is not Effect.NOTHING:
            yield Change(
                effect=effect, scope="worker", name=worker, collection=collection, field=field, purpose=purpose,
                old=_some(before), new=_some(after), reasons=reasons,
            )  # fmt: skip


def _seen_change(old: Sight | None, new: Sight | None, compared: Compared) -> tuple[Effect, tuple[str, ...]]:
    if old is None or new is None:
        if new is not None:
            return Effect.WIDENS, (f"not visible before, now {new.words}, {new.form.tier.label}",)
        return (Effect.NOTHING, ()) if old is None else (Effect.NARROWS, (f"was {old.words}, now not visible",))
    effects, reasons = [told(old.made, new.made), _compared(old.rows, new.rows, compared)], []
    if effects[0] is not Effect.NOTHING:
        reasons.append(f"was {old.words}, now {new.words}{_only_if_unclear(effects[0])}")
    elif old.form.tier != new.form.tier:
        # The same values under a lower label: what is made from them may go further.
        effects.append(ranked(-old.form.tier, -new.form.tier))
        reasons.append(f"was {old.form.tier.label}, now {new.form.tier.label}")
    if effects[1] is not Effect.NOTHING:
        reasons.append(_rows_change(old, new) + _only_if_unclear(effects[1]))
    return joined(effects), tuple(reasons)


def _compared(old: Rows, new: Rows, known: Compared) -> Effect:
    if (old, new) not in known:
        known[old, new] = old.compared(new)
    return known[old, new]


def _places(old: Policy, new: Policy) -> Iterator[Change]:
    for place in Place:
        for collection in _either(old.collections, new.collections):
            for field in _fields(old, new, collection):
                before, after = (held(policy, collection, field, place) for policy in (old, new))
                effect = all_told(before, after)
                if effect is not Effect.NOTHING:
                    yield Change(
                        effect=effect, scope="place", name=place.value, collection=collection, field=field,
                        old=tuple(before), new=tuple(after), reasons=(_held_change(before, after, effect),),
                    )  # fmt: skip


def _held_change(old: list[Sight], new: list[Sight], effect: Effect) -> str:
    before, after = (", and ".join(sight.words for sight in sights) or "nothing" for sights in (old, new))
    if before != after:
        return f"held {before}, now {after}{_only_if_unclear(effect)}"
    pairs = zip(old, new, strict=True)
    rows = (_rows_change(one, two) for one, two in pairs if one.rows.texts != two.rows.texts)
    return f"{'; '.join(dict.fromkeys(rows)) or f'held {before} of another type'}{_only_if_unclear(effect)}"


def _rows_change(old: Sight, new: Sight) -> str:
    gone = [text for text in old.rows.texts if text not in new.rows.texts]
    come = [text for text in new.rows.texts if text not in old.rows.texts]
    parts = [f"no longer: {'; '.join(gone)}"] if gone else []
    parts += [f"now: {'; '.join(come)}"] if come else []
    return ", ".join(parts) or "conditions look at columns in another form"


def _only_if_unclear(effect: Effect) -> str:
    return " (neither contains the other, as far as can be proven)" if effect is Effect.CHANGES else ""


def _some(sight: Sight | None) -> tuple[Sight, ...]:
    return () if sight is None else (sight,)


def _fields(old: Policy, new: Policy, collection: str) -> list[str]:
    schemas = [policy.collections[collection].fields for policy in (old, new) if collection in policy.collections]
    return _either(schemas[0], schemas[-1])


def _either(old: Iterable[str], new: Iterable[str]) -> list[str]:
    """Return the names of both, the new policy's first, each in its order."""
    return list(dict.fromkeys((*new, *old)))
