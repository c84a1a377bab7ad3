"""Accounts in the store: an edge's account of a device as a row of ``attachments``, and its secrets beside it.

The session keys are what the device sealed to this edge in its attach: its own key for what will move on from here,
and by edge the keys under which state of the previous ones arrives. They are kept wrapped by the vault.
"""

from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import Connection

from datasync.domain.ids import HandoverId, NodeName
from datasync.handover.machine import Account, duties
from datasync.handover.states import EdgeState
from datasync.protocol import cbor
from datasync.protocol.parts import SessionKeys, decode_part
from datasync.security.vault import Vault
from datasync.security.wrapping import session_label
from datasync.store import attachments
from datasync.store.attachments import Attachment


def load(tx: Connection, device: NodeName) -> Account:
    """Return this edge's account of a device; of one never heard of, an ``UNKNOWN`` one."""
    row = attachments.get(tx, device)
    return Account(device) if row is None else _account(row)


def load_all(tx: Connection, states: Iterable[EdgeState]) -> list[Account]:
    """Return the accounts in the given states."""
    return [_account(row) for row in attachments.all(tx, states)]


def load_owing(tx: Connection) -> list[Account]:
    """Return the accounts that owe something."""
    return [_account(row) for row in attachments.owing(tx)]


def with_remains(tx: Connection) -> list[NodeName]:
    """Return the devices of erased accounts of which a stream is still here."""
    return [NodeName(name) for name in attachments.with_streams(tx, [EdgeState.ERASED])]


def save(tx: Connection, account: Account, me: NodeName, now_ms: int) -> None:
    """Store the account; its secrets stay as they are."""
    row = attachments.get(tx, account.device)
    attachments.put(
        tx,
        Attachment(
            device=account.device,
            state=account.state,
            incarnation=account.known[0],
            epoch=account.known[1],
            edge=account.target or me,
            handover=account.handover,
            nonce=account.nonce.hex() or None,
            mode=account.mode,
            token=account.token or None,
            session_key=None if row is None else row.session_key,
            certificate=None if row is None else row.certificate,
            owes=bool(duties(account)),
            detail={
                "served": list(account.served),
                "operator": account.operator,
                "target": account.target,
                "cold": list(account.cold),
                "pending": list(account.pending),
                "unreleased": list(account.unreleased),
                "registered": account.registered,
            },
            since_ms=account.since_ms,
            updated_ms=now_ms,
        ),
    )


def save_keys(tx: Connection, vault: Vault, device: NodeName, keys: SessionKeys | None) -> None:
    """Keep the device's session keys with its account, which is there already; None forgets them."""
    row = attachments.get(tx, device)
    assert row is not None, device
    wrapped = None if keys is None else vault.wrap(cbor.dumps(keys.model_dump()), session_label(device))
    attachments.put(tx, replace(row, session_key=wrapped))


def load_keys(tx: Connection, vault: Vault, device: NodeName) -> SessionKeys | None:
    """Return the device's session keys, None when there are none."""
    row = attachments.get(tx, device)
    if row is None or row.session_key is None:
        return None
    return decode_part(SessionKeys, vault.unwrap(row.session_key, session_label(device)))


def forget_keys(tx: Connection, vault: Vault, account: Account) -> None:
    """Let the session keys go under which nothing can arrive any more: those of edges that gave all they had."""
    keys = load_keys(tx, vault, account.device)
    if keys is not None and not keys.previous.keys() <= set(account.pending):
        kept = {edge: keys.previous[edge] for edge in account.pending if edge in keys.previous}
        save_keys(tx, vault, account.device, SessionKeys(session=keys.session, previous=kept))


def _account(row: Attachment) -> Account:
    detail = row.detail
    return Account(
        device=NodeName(row.device),
        state=EdgeState(row.state),
        known=(row.incarnation, row.epoch),
        served=tuple(detail["served"]),
        operator=detail["operator"],
        token=row.token or b"",
        nonce=bytes.fromhex(row.nonce or ""),
        handover=HandoverId(row.handover) if row.handover else None,
        target=detail["target"],
        cold=tuple(detail["cold"]),
        pending=tuple(detail["pending"]),
        unreleased=tuple(detail["unreleased"]),
        registered=detail["registered"],
        since_ms=row.since_ms,
    )
