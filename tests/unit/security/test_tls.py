"""TLS contexts: what they insist on, and what keeps a node from having one."""

import ssl
from pathlib import Path

import pytest

from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError, PeerRefused
from datasync.domain.ids import node_name
from datasync.security.identity import SIGNING_FILE, Identity
from datasync.security.tls import NODES, Caller, calling, listening
from datasync.security.trust import Trust


@pytest.fixture
def folder(edge: Identity, tmp_path: Path) -> Path:
    edge.save(tmp_path / "identity")
    return tmp_path / "identity"


def test_a_server_speaks_tls_1_3_alone_and_resumes_nothing(folder: Path, trust: Trust) -> None:
    for context in (listening(folder), listening(folder, trust)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.num_tickets == 0


def test_a_server_asks_for_certificates_where_it_is_said_whose(folder: Path, trust: Trust) -> None:
    assert listening(folder).verify_mode is ssl.CERT_NONE
    required = listening(folder, trust)
    assert required.verify_mode is ssl.CERT_REQUIRED
    assert sorted(required.get_ca_certs(binary_form=True)) == sorted(trust.certificates)


def test_a_client_believes_the_trusted_authorities_and_no_others(folder: Path, trust: Trust) -> None:
    for context in (calling(trust), calling(trust, folder)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert sorted(context.get_ca_certs(binary_form=True)) == sorted(trust.certificates)


def test_a_key_that_others_can_read_is_refused_with_the_command_that_closes_it(folder: Path) -> None:
    (folder / SIGNING_FILE).chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        listening(folder)


def test_a_key_that_is_not_the_certificates_is_refused(folder: Path, watch: Identity, tmp_path: Path) -> None:
    watch.save(tmp_path / "other")
    (folder / SIGNING_FILE).write_bytes((tmp_path / "other" / SIGNING_FILE).read_bytes())
    with pytest.raises(ConfigError, match="TLS cannot use the identity"):
        listening(folder)


def test_a_caller_takes_whom_it_means(trust: Trust, edge: Identity, watch: Identity, now: Instant) -> None:
    def caller(name: str | None) -> Caller:
        return Caller(node_name(name) if name else None, trust, calling(trust), lambda: now, NODES)

    for name in ("acme/cbd", None):
        caller(name).check(edge.certificate)
    with pytest.raises(PeerRefused, match="acme/cbd was called, and device watch-7 answered"):
        caller("acme/cbd").check(watch.certificate)
    with pytest.raises(PeerRefused, match="showed no certificate"):
        caller("acme/cbd").check(None)


def test_a_certificate_that_has_expired_meanwhile_is_not_believed(trust: Trust, edge: Identity, now: Instant) -> None:
    later = Instant(now.wall_ms + 400 * 86_400_000, 0)
    with pytest.raises(PeerRefused, match="no longer valid"):
        Caller(edge.name, trust, calling(trust), lambda: later).check(edge.certificate)
