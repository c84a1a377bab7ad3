"""A device's signed token, opened; and whose device it is that signs.

A device's name belongs to no operator, so every trusted operator can enrol any name. A node that was shown a name
first by one operator's device therefore keeps to that operator: another's device of the same name is another device,
whose epochs say nothing. A renewed certificate of the same operator is fine.
"""

from datasync.domain import limits
from datasync.domain.clock import Instant
from datasync.domain.errors import SignerForeign
from datasync.protocol import envelope
from datasync.protocol.parts import AttachToken, decode_part
from datasync.security.certificates import Role
from datasync.security.trust import Peer, Trust


def opened(raw: bytes, trust: Trust, now: Instant) -> tuple[AttachToken, Peer]:
    """Return a device's token and the device as its certificate proves it. Raises MessageError and its kinds."""
    signed = envelope.verify(raw, AttachToken.CONTEXT, trust, now, bytes_max=limits.CONTROL_BYTES_MAX)
    token = decode_part(AttachToken, signed.body)
    if signed.peer.role is not Role.DEVICE or signed.peer.name != token.device:
        raise SignerForeign(f"{signed.peer.name} signed a token for {token.device}")
    return token, signed.peer


def check_operator(signer: Peer, operator: str) -> None:
    """Raise SignerForeign unless the device is of this operator; the empty one is nobody's yet."""
    if operator and signer.operator != operator:
        raise SignerForeign(f"{signer.name} is a device of {operator} here, and {signer.operator} enrolled the signer")
