"""Consent: what a node holds of what subjects said and, at a device, the subject's own voice.

A statement is signed with its stream's key, which the device alone has: other nodes pass it on and obey it, and
nobody can make one there. What is said at a device holds for all its streams and for those to come.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, select, tuple_

from datasync.api import models
from datasync.api.routes import Answer, Body, Call, Parameters
from datasync.domain.clock import HybridTime
from datasync.domain.errors import ConsentForeign, RequestError
from datasync.domain.ids import is_hex_id
from datasync.domain.tiers import Place, Tier
from datasync.policy.compiled import Policy
from datasync.store import consents, tables
from datasync.store.consents import Said


class ConsentPage(models.Page):
    """Which consents, by stream and purpose."""

    device: models.Word | None = None
    stream: models.Word | None = None


class ConsentPath(Parameters):
    """Which purpose."""

    purpose: models.Word


class Choice(Body):
    """Whether the subject allows it."""

    given: bool


class Consent(Answer):
    """What one stream's key signed for one purpose, and when by the device's hybrid clock."""

    device: Annotated[str | None, Field(description="Null where it is not told whose streams are, as in the cloud.")]
    stream: str
    collection: str
    tier: str
    purpose: str
    given: bool
    stamp_ms: int
    stamp_counter: int


class SaidConsent(Answer):
    """What a device's subject said last of a purpose; null when nothing, and then its basis decides."""

    purpose: str
    basis: str
    given: bool | None
    stamp_ms: int | None


class Consents(Answer):
    """One page of consents; `said` has every purpose of the policy at a device, and nothing elsewhere."""

    said: list[SaidConsent]
    consents: list[Consent]
    next: models.Next


async def list_consents(call: Call[ConsentPage, None]) -> Consents:
    """Return one page of what is held here."""
    backend = call.service.backend
    policy = backend.policy() if backend.place is Place.DEVICE else None
    return await call.service.read(partial(_page, page=call.parameters, policy=policy))


async def state_consent(call: Call[ConsentPath, Choice]) -> SaidConsent:
    """Say what this device's subject allows.

    Raises ConsentForeign at any other node, NotFound for an unknown purpose, Conflict for too many, PolicyMissing.
    """
    backend, purpose = call.service.backend, call.parameters.purpose
    if backend.place is not Place.DEVICE:
        raise ConsentForeign(f"{backend.name} holds nobody's keys to sign with", fix="ask the subject's own device")
    await backend.say_consent(purpose, call.body.given)
    said = await call.service.read(consents.said)
    return _said(call.service.policy(), purpose, said)


def _page(tx: Connection, page: ConsentPage, policy: Policy | None) -> Consents:
    table, streams = tables.consents, tables.streams
    key = (table.c.stream_id, table.c.purpose)
    query = select(*key, table.c.given, table.c.stamp, streams.c.device, streams.c.collection, streams.c.tier)
    query = query.join_from(table, streams, streams.c.stream_id == table.c.stream_id)
    if page.device is not None:
        query = query.where(streams.c.device == page.device)
    if page.stream is not None:
        query = query.where(table.c.stream_id == page.stream)
    if page.after is not None:
        query = query.where(tuple_(*key) > tuple_(*_key(page.after)))
    found = tx.execute(query.order_by(*key).limit(page.limit + 1)).all()
    rows, more = found[: page.limit], len(found) > page.limit
    said = {} if policy is None else consents.said(tx)
    return Consents(
        said=[] if policy is None else [_said(policy, purpose, said) for purpose in sorted(policy.basis)],
        consents=[_consent(row) for row in rows],
        next=f"{rows[-1].stream_id}.{rows[-1].purpose}" if more else None,
    )


def _consent(row: Any) -> Consent:
    stamp = HybridTime.unpack(row.stamp)
    return Consent(
        device=row.device,
        stream=row.stream_id,
        collection=row.collection,
        tier=Tier(row.tier).label,
        purpose=row.purpose,
        given=row.given,
        stamp_ms=stamp.wall_ms,
        stamp_counter=stamp.counter,
    )


def _said(policy: Policy, purpose: str, said: Mapping[str, Said]) -> SaidConsent:
    last = said.get(purpose)
    return SaidConsent(
        purpose=purpose,
        basis=policy.basis[purpose],
        given=None if last is None else last.given,
        stamp_ms=None if last is None else last.stamp.wall_ms,
    )


def _key(after: str) -> tuple[str, str]:
    stream, _, purpose = after.partition(".")
    if not is_hex_id(stream) or not purpose:
        raise RequestError("the parameter 'after' is not the `next` of another page")
    return stream, purpose
