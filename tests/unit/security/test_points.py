import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from datasync.security import points

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
L = 2**252 + 27742317777372353535851937790883648493

Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    k = D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + k, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, P)
    return x % P, y % P


def multiply(n: int, point: Point) -> Point:
    result = (0, 1)
    while n:
        if n & 1:
            result = add(result, point)
        point, n = add(point, point), n >> 1
    return result


def square_root(a: int) -> int | None:
    x = pow(a, (P + 3) // 8, P)
    for root in (x, x * pow(2, (P - 1) // 4, P) % P):
        if root * root % P == a % P:
            return root
    return None


def torsion_points() -> set[Point]:
    """The eight points whose order divides 8, by the curve's own arithmetic (RFC 8032, section 5.1)."""
    found: set[Point] = set()
    y = 3
    while len(found) < 8:
        x = square_root((y * y - 1) * pow(D * y * y + 1, -1, P))
        if x is not None:
            step = multiply(L, (x, y))
            point = step
            for _ in range(8):
                found.add(point)
                point = add(point, step)
        y += 1
    return found


def encodings(number: int) -> list[bytes]:
    """All 32-byte strings that implementations read as this field element, with either top bit."""
    values = range(number, 2**255, P)
    return [(value | bit).to_bytes(32, "little") for value in values for bit in (0, 1 << 255)]


SMALL_EDWARDS = sorted({raw for _, y in torsion_points() for raw in encodings(y)})
SMALL_MONTGOMERY = sorted(
    {raw for _, y in torsion_points() if y != 1 for raw in encodings((1 + y) * pow(1 - y, -1, P) % P)}
    | set(encodings(P - 1))  # of order 4 on the twist
)


@pytest.mark.parametrize("raw", SMALL_EDWARDS, ids=bytes.hex)
def test_an_ed25519_key_of_small_order_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="small order"):
        points.verify_key(raw)


@pytest.mark.parametrize("raw", SMALL_MONTGOMERY, ids=bytes.hex)
def test_an_x25519_key_of_small_order_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="small order"):
        points.sealing_key(raw)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        points.verify_key(bytes(length))
    with pytest.raises(ValueError, match="32 bytes"):
        points.sealing_key(bytes(length))


def test_ordinary_keys_are_returned() -> None:
    signing = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    sealing = X25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    assert points.verify_key(signing.public_bytes_raw()) == signing
    assert points.sealing_key(sealing.public_bytes_raw()) == sealing
