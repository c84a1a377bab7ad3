"""A node's key in a file that a passphrase opens.

The file is JSON. The key is sealed (AES-256-GCM) under what scrypt (RFC 7914) makes of the passphrase; salt, nonce and
scrypt's parameters are in the file and authenticated, so that later versions may raise the parameters. They are bounded
when they are read: a file that somebody changed must not take all memory.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasync.domain.errors import ConfigError

SCHEMA = "datasync.node-key/v1"
CHARACTERS_MIN = 12


@dataclass(frozen=True, slots=True)
class Cost:
    """scrypt's parameters: it takes 128 * n * r bytes of memory, and time for n * r * p."""

    n: int
    r: int
    p: int


COST = Cost(n=1 << 16, r=8, p=2)
"""64 MiB, about half a second; as OWASP's Password Storage Cheat Sheet advises."""


class _Sealed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["datasync.node-key/v1"]
    kdf: Literal["scrypt"]
    n: Annotated[int, Field(ge=2, le=1 << 20)]
    r: Annotated[int, Field(ge=1, le=32)]
    p: Annotated[int, Field(ge=1, le=16)]
    salt: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    nonce: Annotated[str, Field(pattern="^[0-9a-f]{24}$")]
    sealed: Annotated[str, Field(pattern="^[0-9a-f]{96}$")]

    def context(self) -> bytes:
        """Return what is authenticated with the key: all but the key itself."""
        return json.dumps(self.model_dump(exclude={"sealed"}), sort_keys=True).encode()


def seal(key: bytes, passphrase: str, entropy: Callable[[int], bytes], cost: Cost = COST) -> bytes:
    """Return the file's content for a key (32 bytes). Raises ConfigError for a passphrase that is too short."""
    if len(passphrase) < CHARACTERS_MIN:
        raise ConfigError(f"a passphrase has at least {CHARACTERS_MIN} characters", fix="choose a longer one")
    salt, nonce = entropy(16), entropy(12)
    parts = {"salt": salt.hex(), "nonce": nonce.hex(), "sealed": "0" * 96}
    blank = _Sealed.model_validate({"format": SCHEMA, "kdf": "scrypt"} | asdict(cost) | parts)
    sealed = AESGCM(_stretch(blank, passphrase)).encrypt(nonce, key, blank.context())
    return blank.model_copy(update={"sealed": sealed.hex()}).model_dump_json(indent=2).encode() + b"\n"


def unseal(content: bytes, passphrase: str, where: str) -> bytes:
    """Return the key in a file's content. Raises ConfigError for a wrong passphrase or a malformed file."""
    try:
        said = _Sealed.model_validate_json(content)
        if said.n & (said.n - 1) or 128 * said.n * said.r > 1 << 30:
            raise ValueError("scrypt's n must be a power of two, and 128 * n * r at most 1 GiB")
    except ValueError as error:
        first = error.errors(include_input=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        fix = "make it with: datasync keys init|encrypt"
        raise ConfigError(f"the file holds no key under a passphrase: {first}", where=where, fix=fix) from None
    try:
        return AESGCM(_stretch(said, passphrase)).decrypt(
            bytes.fromhex(said.nonce), bytes.fromhex(said.sealed), said.context()
        )
    except InvalidTag:
        fix = "give the passphrase with which the file was made"
        raise ConfigError("the passphrase is wrong, or the file was changed", where=where, fix=fix) from None


def stretch(passphrase: str, salt: bytes, cost: Cost = COST) -> bytes:
    """Return what scrypt makes of a passphrase: a key of 32 bytes."""
    return Scrypt(salt=salt, length=32, n=cost.n, r=cost.r, p=cost.p).derive(
        passphrase.encode(errors="surrogateescape")
    )


def _stretch(said: _Sealed, passphrase: str) -> bytes:
    return stretch(passphrase, bytes.fromhex(said.salt), Cost(said.n, said.r, said.p))
