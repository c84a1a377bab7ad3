import hashlib
import hmac
import random
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError
from datasync.domain.ids import node_name
from datasync.domain.tiers import Tier
from datasync.security.identity import Identity, Role
from datasync.security.trust import Authority

FILES = ("certificate.pem", "signing.key", "sealing.key", "secret")


def hkdf(secret: bytes, info: str) -> bytes:
    """RFC 5869 with SHA-256, no salt and one block, from the standard library alone."""
    extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
    return hmac.digest(extracted, info.encode() + b"\x01", hashlib.sha256)


def test_a_saved_identity_loads_as_the_same(edge: Identity, tmp_path: Path) -> None:
    edge.save(tmp_path / "node")
    loaded = Identity.load(tmp_path / "node")
    assert (loaded.name, loaded.role) == (node_name("acme/cbd"), Role.EDGE)
    assert (loaded.certificate, loaded.secret) == (edge.certificate, edge.secret)
    assert loaded.signing_key.private_bytes_raw() == edge.signing_key.private_bytes_raw()
    assert loaded.sealing_key.private_bytes_raw() == edge.sealing_key.private_bytes_raw()


def test_files_are_written_for_their_owner_alone(edge: Identity, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    edge.save(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("name", [*FILES, "."])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_open_to_others_is_refused_with_the_command_that_mends_it(
    edge: Identity, tmp_path: Path, name: str, mode: int
) -> None:
    folder = tmp_path / "the node's"
    edge.save(folder)
    path = folder / name
    path.chmod(mode | 0o100 if path.is_dir() else mode)
    with pytest.raises(ConfigError, match="open to other users") as refused:
        Identity.load(folder)
    assert refused.value.fix.startswith("chmod ")
    subprocess.run(shlex.split(refused.value.fix), check=True)
    assert Identity.load(folder).name == edge.name


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_malformed_file_is_a_configuration_error_that_names_it(
    edge: Identity, tmp_path: Path, name: str
) -> None:
    edge.save(tmp_path / "node")
    path = tmp_path / "node" / name
    path.write_bytes(b"\xff garbage")
    with pytest.raises(ConfigError, match=name):
        Identity.load(tmp_path / "node")
    path.unlink()
    with pytest.raises(ConfigError, match=name):
        Identity.load(tmp_path / "node")


def test_an_identity_is_never_overwritten(edge: Identity, watch: Identity, tmp_path: Path) -> None:
    edge.save(tmp_path / "node")
    with pytest.raises(ConfigError, match="exists"):
        watch.save(tmp_path / "node")
    assert Identity.load(tmp_path / "node").secret == edge.secret


@pytest.mark.parametrize("name", ["signing.key", "sealing.key"])
def test_keys_of_another_node_do_not_load_with_the_certificate(
    edge: Identity, watch: Identity, tmp_path: Path, name: str
) -> None:
    edge.save(tmp_path / "edge")
    watch.save(tmp_path / "watch")
    (tmp_path / "edge" / name).write_bytes((tmp_path / "watch" / name).read_bytes())
    with pytest.raises(ConfigError, match="not the ones in the certificate"):
        Identity.load(tmp_path / "edge")


def test_signing_and_sealing_key_do_not_stand_in_for_each_other(edge: Identity, tmp_path: Path) -> None:
    edge.save(tmp_path)
    (tmp_path / "signing.key").write_bytes((tmp_path / "sealing.key").read_bytes())
    with pytest.raises(ConfigError, match="no Ed25519"):
        Identity.load(tmp_path)


def test_derived_keys_follow_rfc_5869_with_versioned_info(watch: Identity) -> None:
    assert watch.derive("vault") == hkdf(watch.secret, "datasync/derive/1/vault")
    assert watch.pseudonym_key("pid", 12) == hkdf(watch.secret, "datasync/pseudonym-key/1/12/pid")
    stream = watch.stream_key("trips", Tier.EDGE_PRIVATE, 3)
    assert stream.private_bytes_raw() == hkdf(watch.secret, "datasync/stream-key/1/3/edge-private/trips")


def test_every_collection_tier_and_generation_has_a_key_of_its_own(watch: Identity, edge: Identity) -> None:
    keys = [
        identity.stream_key(collection, tier, generation).private_bytes_raw()
        for identity in (watch, edge)
        for collection in ("trips", "0/public/trips", "rides")
        for tier in Tier
        for generation in (0, 1, 10)
    ]
    assert len(set(keys)) == len(keys)


def test_a_secret_never_shows_in_a_repr(watch: Identity) -> None:
    assert watch.secret.hex() not in repr(watch)
    assert repr(watch.secret) not in repr(watch)


def test_the_same_seed_enrols_the_same_identity(now: Instant) -> None:
    def enrolled() -> Identity:
        entropy = random.Random(5).randbytes
        authority = Authority.create("acme", now, entropy=entropy)
        return authority.enrol(node_name("watch-7"), Role.DEVICE, now=now, entropy=entropy)

    first, second = enrolled(), enrolled()
    assert (first.certificate, first.secret) == (second.certificate, second.secret)
