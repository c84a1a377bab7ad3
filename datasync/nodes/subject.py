"""A subject's own place: it has the keys of the subject's streams, so here alone can be said that they be erased.

What was recorded until then is captured first, so that it goes too. The statements are durable here before anybody is
told, and the device's rows go in the same transaction; what is recorded from then on goes into new streams, which
nobody can link to the old ones. The device then tells its edge, whichever that is, again and again, until every place
has signed that nothing is left. It expects that of each edge it ever attached to, of the cloud, and of those that the
edge names. Of a plain device, which signs nothing, its edge has the keys, and does this at its administrator's word.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from datasync.domain.errors import NotFound
from datasync.domain.ids import NodeName, stream_id
from datasync.domain.tiers import Place, Tier
from datasync.nodes.erasing import Erasing, Pursuit, way_to
from datasync.nodes.node import Erase as EraseInput
from datasync.nodes.node import Node, Turn
from datasync.policy.problems import nearest
from datasync.protocol.messages import Erase, Erased
from datasync.protocol.parts import EraseStatement
from datasync.security.identity import Role
from datasync.security.trust import Peer
from datasync.store import erasures, streams
from datasync.store.streams import Stream
from datasync.sync.capture import begin_anew

StreamKey = Callable[[str, Tier, int], Ed25519PrivateKey]

SUBJECT = "the subject"
"""Who wanted it, in the audit log of the subject's own place."""


class Wanted(NamedTuple):
    """What is to be erased: of one collection or (None) of all; ``everything``: what is private to the user as well."""

    collection: str | None
    everything: bool


def state(
    turn: Turn, node: Node, erasing: Erasing, device: NodeName, stream_key: StreamKey, wanted: Wanted
) -> list[Stream]:
    """Say, for the streams of a device whose keys are here, that they be erased; erase them here; return them."""
    known = [each for each in streams.of_device(turn.tx, device) if wanted.collection in (None, each.collection)]
    doomed = [each for each in known if wanted.everything or each.tier < Tier.USER_PRIVATE]
    statements = [_signed(turn, node, stream_key, each) for each in doomed]
    begin_new_generations(turn, device, known)
    erasing.erase(turn, statements, SUBJECT)
    return doomed


def check(turn: Turn, node: Node, device: NodeName, collection: str | None) -> None:
    """Raise NotFound unless the device has, or by the policy may have, rows of a collection (None: of any)."""
    known = {each.collection for each in streams.of_device(turn.tx, device)}
    if node.policy is not None:
        known |= node.policy.collections.keys()
    if collection is not None and collection not in known:
        raise NotFound(f"{device} has no rows of a collection {collection!r}", fix=nearest(collection, known))


def begin_new_generations(turn: Turn, device: NodeName, before: Iterable[Stream]) -> None:
    """Let what is captured from now on of these streams' collections be of streams that are later than these."""
    latest: dict[str, int] = {}
    for each in before:
        latest[each.collection] = max(each.generation, latest.get(each.collection, 0))
    for collection, generation in latest.items():
        begin_anew(turn.tx, device, collection, generation)


class Wishes(Erasing):
    """What a device's subject wants erased, and how far that is."""

    def __init__(self, node: Node, began_anew: Callable[[Turn], None]) -> None:
        """``began_anew`` is called when streams were erased and others are captured into."""
        super().__init__(node, Role.EDGE)
        self._began_anew = began_anew
        self._pursuit = Pursuit(None)

    def wish(self, turn: Turn, asked: EraseInput, edges: Iterable[NodeName]) -> None:
        """Erase what is asked; the answer, once the keys here are destroyed, is the streams."""
        wanted = Wanted(asked.collection, asked.everything)
        doomed = state(turn, self._node, self, self._node.name, self._node.kit.identity.stream_key, wanted)
        within = [each.stream for each in doomed if each.tier <= Place.EDGE.highest_tier]
        erasures.expect(turn.tx, within, edges)
        self._began_anew(turn)
        self._pursuit.soon(turn.now)
        self.answer(asked.ticket, [each.stream for each in doomed])

    def tell(self, turn: Turn, edge: NodeName) -> None:
        """Tell the present edge what is awaited, if it is time."""
        self._pursuit.pursue(self._node, turn, *way_to(self._node, Role.EDGE, edge))

    def tell_again(self, turn: Turn) -> None:
        """Another edge serves the device, or the same one again."""
        self._pursuit.soon(turn.now)

    def _on_erase(self, turn: Turn, peer: Peer, message: Erase) -> None:
        """An edge repeats what this device once said: one that was restored from an old copy has forgotten it."""
        known = streams.get(turn.tx, [stream_id(each.public_key) for each in message.statements])
        begin_new_generations(turn, self._node.name, known.values())
        super()._on_erase(turn, peer, message)
        if known:
            self._began_anew(turn)

    def _on_erased(self, turn: Turn, peer: Peer, message: Erased) -> None:
        super()._on_erased(turn, peer, message)
        ours = erasures.among(turn.tx, message.streams)
        erasures.expect(turn.tx, sorted(ours), message.pending)


def _signed(turn: Turn, node: Node, stream_key: StreamKey, stream: Stream) -> EraseStatement:
    unsigned = EraseStatement(
        public_key=stream.public_key,
        generation=stream.generation,
        stamp=node.stamp(turn.now).pack(),
        signature=bytes(64),
    )
    key = stream_key(stream.collection, stream.tier, stream.generation)
    return unsigned.model_copy(update={"signature": key.sign(unsigned.signed_bytes())})
