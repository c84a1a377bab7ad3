"""Parts of messages: what is refused before anything is done with it."""

from typing import Any

import pytest

from datasync.domain.errors import MessageError
from datasync.protocol import cbor
from datasync.protocol.messages import decode
from datasync.protocol.parts import ConsentStatement, EraseStatement, Model, StreamNote, decode_part

SMALL_ORDER = (bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little"))
RIGHT = bytes.fromhex("3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29")
PARTS: list[tuple[type[Model], dict[str, Any]]] = [
    (StreamNote, {"collection": "steps", "tier": 1}),
    (ConsentStatement, {"purpose": "test.run", "given": True, "stamp": 1, "signature": bytes(64)}),
    (EraseStatement, {"generation": 0, "stamp": 1, "signature": bytes(64)}),
]


@pytest.mark.parametrize(("part", "others"), PARTS, ids=lambda each: getattr(each, "__name__", ""))
@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_a_streams_key_of_small_order_is_refused(part: type[Model], others: dict[str, Any], key: bytes) -> None:
    decode_part(part, cbor.dumps({"public_key": RIGHT} | others))
    with pytest.raises(MessageError, match="small order"):
        decode_part(part, cbor.dumps({"public_key": key} | others))


def test_one_stream_of_small_order_spoils_its_message() -> None:
    notes = [{"public_key": key, "collection": "steps", "tier": 1} for key in (RIGHT, SMALL_ORDER[0])]
    said = {"t": "prepare", "handover": "a" * 32, "device": "watch-1", "incarnation": 1, "epoch": 1}
    said |= {"streams": notes, "manifest": {}, "root": "0" * 64}
    with pytest.raises(MessageError, match="small order"):
        decode(cbor.dumps(said))
    decode(cbor.dumps(said | {"streams": notes[:1]}))
