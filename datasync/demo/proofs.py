"""What can be proven afterwards from what the nodes keep: whose every segment is, and that no log was changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from datasync.demo.town import Node, Town
from datasync.domain.errors import DatasyncError
from datasync.domain.ids import StreamId
from datasync.nodes.auditing import Witnesses, find
from datasync.protocol import checkpoint
from datasync.security.trust import Trust
from datasync.security.vault import Vault
from datasync.store import checkpoints, segments
from datasync.store.opening import open_segment

PAGE_SEGMENTS = 256


@dataclass(frozen=True, slots=True)
class Proof:
    """What one edge or cloud can prove: of how many segments by how many signatures; how long its logs are."""

    place: str
    segments: int
    unproven: int
    """Segments that no checkpoint here signs, or that are others than it says."""
    signatures: int
    entries: Mapping[str, int]
    wrong: tuple[str, ...]
    """What is wrong with its logs."""

    @property
    def is_clean(self) -> bool:
        """Whether everything is proven."""
        return not self.unproven and not self.wrong


def proofs(town: Town) -> tuple[Proof, ...]:
    """Verify once more, from their databases, what edges and cloud hold and what they logged."""
    return tuple(_proof(node) for node in town.servers)


def _proof(node: Node) -> Proof:
    with node.store() as (database, vault), database.read() as tx:
        findings = find(tx, Witnesses(node.name, Trust.load(node.folder / "trust")))
        held, unproven, signatures = _segments(tx, vault)
    return Proof(str(node.name), held, unproven, signatures, findings.entries, tuple(map(str, findings.wrong)))


def _segments(tx: Connection, vault: Vault) -> tuple[int, int, int]:
    """Return how many segments there are, how many of them are not proven, and by how many signatures the others."""
    held = unproven = after = 0
    known: dict[int, Mapping[tuple[StreamId, int], str]] = {}
    while page := segments.page(tx, after_id=after, limit=PAGE_SEGMENTS):
        bodies = segments.bodies(tx, [each.id for each in page])
        known |= _signed(tx, {each.checkpoint for each in page} - known.keys())
        for each in page:
            signed = known.get(each.checkpoint or 0, {}).get((each.stream, each.seq_first))
            try:
                found: Any = open_segment(vault, each, bodies[each.id]).hash
            except DatasyncError:
                found = None
            unproven += found is None or signed != found
        held, after = held + len(page), page[-1].id
    return held, unproven, len(known)


def _signed(tx: Connection, wanted: set[int | None]) -> dict[int, Mapping[tuple[StreamId, int], str]]:
    """Return by checkpoint the hashes that its stream signed. Raises SignatureInvalid, CheckpointInvalid."""
    found: dict[int, Mapping[tuple[StreamId, int], str]] = {}
    for stored in checkpoints.get(tx, [each for each in wanted if each is not None]):
        parsed = checkpoint.parse(stored.body)
        checkpoint.verify(parsed)
        found[stored.id] = {(parsed.stream, each.seq_first): each.hash for each in parsed.entries}
    return found
