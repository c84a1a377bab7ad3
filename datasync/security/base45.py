"""Base45 (RFC 9285): bytes as the characters that a QR code packs tightest, two bytes in three of them."""

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"

_WEIGHTS = (1, 45, 45 * 45)
_BYTES = {2: 1, 3: 2}
_VALUES = {character: value for value, character in enumerate(ALPHABET)}


def encode(data: bytes) -> str:
    """Return the text of bytes."""
    return "".join(_digits(data[at : at + 2]) for at in range(0, len(data), 2))


def decode(text: str) -> bytes:
    """Return the bytes of a text. Raises ValueError for one that no bytes have."""
    return b"".join(_bytes(text[at : at + 3]) for at in range(0, len(text), 3))


def _digits(pair: bytes) -> str:
    value = int.from_bytes(pair, "big")
    return "".join(ALPHABET[value // weight % 45] for weight in _WEIGHTS[: len(pair) + 1])


def _bytes(digits: str) -> bytes:
    try:
        value = sum(_VALUES[digit] * weight for digit, weight in zip(digits, _WEIGHTS, strict=False))
        return value.to_bytes(_BYTES[len(digits)], "big")
    except (KeyError, OverflowError):
        raise ValueError(f"{digits!r} is no Base45") from None
