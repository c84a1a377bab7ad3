"""Runs a module as ``python -m`` does, but nobody signs or seals messages: what protection is measured by.

A message is its signer's certificate, which says who sends it, and its body. Everything else stays as it is: whom to
trust, what may be said by whom, the signatures of streams, encryption at rest.

Usage: ``python -m tests.benchmarks.bare -m MODULE ARGUMENT…``
"""

import runpy
import sys

from datasync.domain.clock import Instant
from datasync.protocol import envelope
from datasync.protocol.envelope import Envelope, Opener, Sealer
from datasync.security.identity import Identity
from datasync.security.trust import Peer, Trust

_LENGTH_BYTES = 4
_MARK = b"\xd0"
"""What a sealed body begins with."""


def _sign(identity: Identity, _context: str, body: bytes) -> bytes:
    return len(identity.certificate).to_bytes(_LENGTH_BYTES, "big") + identity.certificate + body


def _verify(data: bytes, _context: str, trust: Trust, now: Instant, *, bytes_max: int) -> Envelope:
    assert len(data) <= bytes_max, len(data)
    ends = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
    return Envelope(trust.verify(data[_LENGTH_BYTES:ends], now), data[ends:])


def _seal(_self: Sealer, _peer: Peer, _context: str, plaintext: bytes) -> bytes:
    return _MARK + plaintext


def _open(_self: Opener, data: bytes, _context: str, _sender: Peer) -> bytes:
    return data.removeprefix(_MARK)


def main() -> None:
    """Run the module; its exit is this program's."""
    _, option, module, *arguments = sys.argv
    assert option == "-m", option
    for name, instead in (("sign", _sign), ("verify", _verify)):
        setattr(envelope, name, instead)
    setattr(Sealer, "seal", _seal)  # noqa: B010 - mypy refuses to assign a method
    setattr(Opener, "open", _open)  # noqa: B010
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
