"""Whether one form of a field tells less than another: whether it could be made from the other and nothing else.

What was done to the value is compared, not the names under which it was done: a geohash of a geohash is the shorter
one, and what follows a ``drop`` is nothing. Only an ``hmac`` is known by its name too, for its key is: pseudonyms under
one key can be linked with those of other collections, so one key is never better than another.

Less than might be expected is comparable. Rounding to fewer decimals is not made from rounding to more (0.4996 becomes
0.50 and 0, and 0.5004 becomes 0.50 and 1), and keeping less of a text is not made from keeping more of it (of a text
too short for the one the other shows a part). Each is as a further step of the chain. A pseudonym is made under a key
of the subject's device, so it tells apart devices that have the same value: of a field that is not the subject it is
made from nothing but another pseudonym.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datasync.policy.comparing.effects import Effect, proven
from datasync.policy.compiled import Collection, Form
from datasync.policy.document import Bucket, Constant, Drop, Geohash, Hmac, Mask, RowTransform, Truncate
from datasync.policy.quantities import duration_text
from datasync.policy.transforms import Step
from datasync.policy.types import type_name


@dataclass(frozen=True, slots=True)
class Operation:
    """What one step does: ``meaning`` is equal for steps that make the same of every value."""

    spec: RowTransform = field(compare=False, repr=False)
    meaning: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Making:
    """How a form is made: the type that was captured, whether it is the subject, and what was done, in fewest steps."""

    captured: str
    is_subject: bool
    operations: tuple[Operation, ...]

    @property
    def tells_devices_apart(self) -> bool:
        """Whether equal values of different subjects are known to be of different ones."""
        return any(isinstance(operation.spec, Hmac) for operation in self.operations)


def making(collection: Collection, form: Form) -> Making:
    """Return how a form of the collection is made."""
    done: list[Operation] = []
    for step in steps(collection, form):
        operation = Operation(step.spec, _meaning(step))
        while done and _replaces(operation.spec, done[-1].spec):
            done.pop()
        done.append(operation)
    return Making(type_name(collection.fields[form.field].type), form.field == collection.subject, tuple(done))


def steps(collection: Collection, form: Form) -> Sequence[Step]:
    """Return the steps of a form's chain."""
    chains: list[tuple[Step, ...]] = [(), *collection.fields[form.field].up.values()]
    return next(chain for chain in chains if tuple(step.name for step in chain) == form.chain)


def told(old: Making, new: Making) -> Effect:
    """Return what it does to show a value as ``new`` instead of as ``old``."""
    if old.captured != new.captured:
        return Effect.CHANGES
    return proven(no_more=_is_made_from(new, old), no_less=_is_made_from(old, new))


def described(collection: Collection, form: Form) -> str:
    """Return how a form is made, in words."""
    done = [f"{step.name} ({_words(step.spec)})" for step in steps(collection, form)]
    return " then ".join(done) if done else "as it is"


def _is_made_from(new: Making, old: Making) -> bool:
    """Whether whoever has any value as ``old`` could make ``new`` of it."""
    after, before = list(new.operations), list(old.operations)
    if after and isinstance(after[-1].spec, Drop | Constant):
        return True
    while after and before and after[0] == before[0]:
        after, before = after[1:], before[1:]
    if len(before) == 1 and after and _is_coarser(after[0], before[0]):
        after, before = after[1:], []
    makes_pseudonyms = any(isinstance(operation.spec, Hmac) for operation in after)
    return not before and (not makes_pseudonyms or old.is_subject or old.tells_devices_apart)


def _is_coarser(new: Operation, old: Operation) -> bool:
    match new.spec, old.spec:
        case Geohash() as after, Geohash() as before:
            return after.precision <= before.precision
        case Truncate() as after, Truncate() as before:
            return after.unit % before.unit == 0
        case Bucket() as after, Bucket() as before:
            return {*after.edges} <= {*before.edges}
        case Mask() as after, Mask():
            return after.keep == 0
        case Hmac() as after, Hmac() as before if new.meaning[:2] == old.meaning[:2]:
            # A pseudonym that lives shorter links less, if it also ends whenever the longer one did.
            return after.rotate is not None and (before.rotate is None or before.rotate % after.rotate == 0)
    return new == old


def _replaces(later: RowTransform, earlier: RowTransform) -> bool:
    """Whether two steps do what the later of them does alone."""
    match later, earlier:
        case (Drop() | Constant(), _) | (Geohash(), Geohash()):
            return True
        case Truncate() as after, Truncate() as before:
            return after.unit % before.unit == 0
    return False


def _meaning(step: Step) -> tuple[Any, ...]:
    match step.spec:
        case Hmac(rotate=rotate):
            return ("hmac", step.name, rotate)
        case Constant(value=value):
            return ("constant", type(value).__name__, value)
    return (step.spec.op, *step.spec.model_dump(exclude={"op", "source", "to"}).values())


def _words(spec: RowTransform) -> str:
    match spec:
        case Hmac(rotate=None):
            return "hmac, never rotated"
        case Hmac(rotate=int() as rotate_ms):
            return f"hmac, rotated every {duration_text(rotate_ms)}"
        case Truncate(unit=unit_ms):
            return f"truncate to {duration_text(unit_ms)}"
        case Bucket(edges=edges):
            return f"bucket at {', '.join(f'{edge:g}' for edge in edges)}"
        case Drop():
            return "drop"
    rest = spec.model_dump(exclude={"op", "source", "to"})
    return " ".join([spec.op, *(f"{key} {value}" for key, value in rest.items())])
