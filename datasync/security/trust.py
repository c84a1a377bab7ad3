"""Whom a node believes: the operators' authorities that it was given, and what each may vouch for.

An operator's authority vouches for its own operator's edges, clouds, policy keys, workers and administrators, and for
devices, which belong to nobody; a certificate that says more than its authority may is refused. Checking a certificate
costs two signatures' worth of time, so what was once found true is remembered in a bounded cache, which a node's thread
and its API share; whether it is valid *now*, and not revoked, is asked every time.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError, RevocationStale, SignerRevoked, SignerUntrusted
from datasync.domain.ids import NodeName, node_name, operator_of
from datasync.domain.limits import PEERS_CACHED_MAX
from datasync.security import certificates, files, sealing
from datasync.security.certificates import AuthorityCertificate, Role, Validity
from datasync.security.identity import Identity, private_key_pem, read_signing_key
from datasync.security.recent import Recent
from datasync.security.revocation import RevocationList
from datasync.security.sealing import Kem, SealingPublicKey

AUTHORITY_FILE = "authority.pem"
AUTHORITY_KEY_FILE = "authority.key"
DAYS_MAX = 36_500


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node, as its certificate proved it. A device's ``operator`` is the one that enrolled it."""

    name: NodeName
    role: Role
    operator: str
    verify_key: Ed25519PublicKey = field(compare=False, repr=False)
    sealing_key: SealingPublicKey = field(compare=False, repr=False)
    certificate: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """An operator's certificate authority: who holds it decides which nodes exist."""

    operator: str
    certificate: bytes = field(repr=False)
    key: Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def create(
        cls, operator: str, now: Instant, *, days: int = 3650, entropy: Callable[[int], bytes] = os.urandom
    ) -> Self:
        """Return a new authority for ``operator``. Raises ConfigError when that is no operator's name."""
        _check_days(days)
        try:
            if "/" in node_name(operator):
                raise ValueError(f"{operator!r} is no operator's name: write it without a slash")
        except ValueError as error:
            raise ConfigError(str(error)) from error
        key = Ed25519PrivateKey.from_private_bytes(entropy(32))
        serial = certificates.serial_number(entropy)
        return cls(operator, certificates.issue_authority(operator, key, now=now, days=days, serial=serial), key)

    def enrol(
        self,
        name: NodeName,
        role: Role,
        *,
        now: Instant,
        days: int = 365,
        hosts: Sequence[str] = (),
        kem: Kem = Kem.X25519,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> Identity:
        """Return a new identity for a node, its broker, an operator's policy key, a worker or an administrator.

        ``kem`` is how keys will be sealed to it; ``hosts`` are the names and addresses by which TLS clients may know
        it. Raises ConfigError for a name that does not fit the role, or one of another operator, and for what is no
        host.
        """
        _check_days(days)
        if role is not Role.DEVICE and operator_of(name) != self.operator:
            raise ConfigError(f"{name!r} is not {self.operator}'s: only its own authority can enrol it")
        signing_key = Ed25519PrivateKey.from_private_bytes(entropy(32))
        sealing_key = sealing.draw(kem, entropy)
        try:
            certificates.check_role(node_name(name), role)
            certificate = certificates.issue_node(
                name,
                role,
                signing_key.public_key(),
                sealing_key.public_key(),
                authority=certificates.read_authority(self.certificate),
                key=self.key,
                now=now,
                days=days,
                serial=certificates.serial_number(entropy),
                hosts=hosts,
            )
            certificates.parse(certificate)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return Identity(name, role, certificate, signing_key, sealing_key, entropy(32))

    def renew(
        self, identity: Identity, *, now: Instant, days: int = 365, entropy: Callable[[int], bytes] = os.urandom
    ) -> bytes:
        """Return a new certificate (DER) for an identity of this authority: its name and keys, a new validity.

        Raises ConfigError when the identity is another authority's.
        """
        _check_days(days)
        own = certificates.read_authority(self.certificate)
        present = certificates.parse(identity.certificate)
        if not certificates.is_issued_by(present, own):
            raise ConfigError(f"{identity.name!r} was not enrolled by this authority of {self.operator}")
        return certificates.issue_node(
            identity.name,
            identity.role,
            identity.signing_key.public_key(),
            identity.sealing_key.public_key(),
            authority=own,
            key=self.key,
            now=now,
            days=days,
            serial=certificates.serial_number(entropy),
            hosts=certificates.hosts(present),
        )

    def save(self, folder: Path) -> None:
        """Write the authority's certificate and key. Raises ConfigError rather than overwrite them."""
        files.write_private(folder / AUTHORITY_KEY_FILE, private_key_pem(self.key))
        pem = x509.load_der_x509_certificate(self.certificate).public_bytes(Encoding.PEM)
        files.write_private(folder / AUTHORITY_FILE, pem)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the authority in ``folder``. Raises ConfigError."""
        certificate = _read_authority_pem(folder / AUTHORITY_FILE)
        key = read_signing_key(folder / AUTHORITY_KEY_FILE)
        authority = certificates.read_authority(certificate)
        if key.public_key() != authority.verify_key:
            raise ConfigError("the key is not the one in the certificate", where=str(folder))
        return cls(authority.operator, certificate, key)


@dataclass(frozen=True, slots=True)
class _Proved:
    """What a certificate proved once and for all: everything but whether it is valid now and not revoked."""

    peer: Peer
    authority: bytes
    serial: int
    validities: tuple[Validity, Validity]


class Trust:
    """The authorities that a node believes, what they revoked, and the peers they proved."""

    def __init__(self, authorities: Iterable[bytes]) -> None:
        """Take authorities' certificates (DER). Raises ConfigError when one is no authority's."""
        self._by_subject: dict[bytes, list[AuthorityCertificate]] = {}
        self._proved: Recent[bytes, _Proved] = Recent(PEERS_CACHED_MAX)
        self._lock = threading.Lock()
        self._revoked: dict[bytes, RevocationList] = {}
        self._serials: dict[bytes, frozenset[int]] = {}
        for der in authorities:
            try:
                authority = certificates.read_authority(der)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            self._by_subject.setdefault(authority.subject, []).append(authority)

    @classmethod
    def load(cls, source: Path | Iterable[Path]) -> Self:
        """Return the trust in a folder's ``*.pem`` files, or in the files given. Raises ConfigError, also for none."""
        if isinstance(source, Path):
            paths = sorted(source.glob("*.pem")) if source.is_dir() else [source]
        else:
            paths = list(source)
        if not paths:
            raise ConfigError(
                "there is no operator's certificate", where=str(source), fix="copy each operator's authority.pem there"
            )
        return cls(_read_authority_pem(path) for path in paths)

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """The authorities' certificates (DER)."""
        known = (each.certificate for authorities in self._by_subject.values() for each in authorities)
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in known)

    def verify(self, certificate: bytes, now: Instant) -> Peer:
        """Return the node that a certificate (DER) proves. Raises SignerUntrusted, or SignerRevoked of its kind."""
        proved = self._proof(certificate)
        for validity in proved.validities:
            _check_validity(proved.peer.name, validity, now)
        if self._is_listed(proved):
            raise SignerRevoked(f"{proved.peer.operator} has revoked the certificate of {proved.peer.name!r}")
        return proved.peer

    def is_revoked(self, certificate: bytes) -> bool:
        """Whether a trusted authority revoked a certificate (DER) of its own."""
        try:
            return self._is_listed(self._proof(certificate))
        except SignerUntrusted:
            return False

    def authority(self, certificate: bytes) -> AuthorityCertificate:
        """Return the trusted authority that has this certificate (DER). Raises SignerUntrusted."""
        known = (each for authorities in self._by_subject.values() for each in authorities)
        for each in known:
            if each.certificate.public_bytes(Encoding.DER) == certificate:
                return each
        raise SignerUntrusted("the list is by no authority that is trusted here")

    def revoke(self, authority: AuthorityCertificate, listed: RevocationList) -> bool:
        """Believe an authority's list from now on; return whether it is news.

        Raises RevocationStale for one that is older than the known one, or another of the same number.
        """
        issuer = authority.verify_key.public_bytes_raw()
        known = self._revoked.get(issuer)
        if known == listed:
            return False
        if known is not None and listed.number <= known.number:
            raise RevocationStale(f"{listed.operator}'s list {listed.number} came, and {known.number} is known")
        self._revoked[issuer] = listed
        self._serials[issuer] = frozenset(each.serial for each in listed.revoked)
        return True

    @property
    def revocations(self) -> tuple[RevocationList, ...]:
        """The authorities' lists that are known."""
        return tuple(self._revoked.values())

    def _is_listed(self, proved: _Proved) -> bool:
        return proved.serial in self._serials.get(proved.authority, frozenset())

    def _proof(self, certificate: bytes) -> _Proved:
        digest = hashlib.sha256(certificate).digest()
        with self._lock:
            proved = self._proved.get(digest)
            if proved is None:
                proved = self._prove(certificate)
                self._proved.put(digest, proved)
        return proved

    def _prove(self, der: bytes) -> _Proved:
        try:
            certificate = certificates.parse(der)
            candidates = self._by_subject.get(certificate.issuer.public_bytes(), [])
            authority = next((each for each in candidates if certificates.is_issued_by(certificate, each)), None)
            if authority is None:
                raise ValueError("no trusted operator's authority issued it")
            node = certificates.read_node(certificate)
            if node.role is not Role.DEVICE and operator_of(node.name) != authority.operator:
                raise ValueError(f"{authority.operator} may not vouch for {node.name!r}")
        except ValueError as error:
            raise SignerUntrusted(str(error)) from error
        peer = Peer(node.name, node.role, authority.operator, node.verify_key, node.sealing_key, der)
        issuer = authority.verify_key.public_bytes_raw()
        return _Proved(peer, issuer, certificate.serial_number, (node.validity, authority.validity))


def _check_days(days: int) -> None:
    if not 1 <= days <= DAYS_MAX:
        raise ConfigError(f"a certificate is valid for 1 to {DAYS_MAX} days, not {days}")


def _check_validity(name: NodeName, validity: Validity, now: Instant) -> None:
    if not validity.holds(now):
        state = "not yet" if now.wall_ms < validity.first_ms else "no longer"
        raise SignerUntrusted(
            f"the certificate of {name!r} is {state} valid", fix="renew the certificate, or set the clock"
        )


def _read_authority_pem(path: Path) -> bytes:
    try:
        der = x509.load_pem_x509_certificate(files.read_file(path)).public_bytes(Encoding.DER)
        certificates.read_authority(der)
        return der
    except ValueError as error:
        raise ConfigError(str(error), where=str(path)) from error
