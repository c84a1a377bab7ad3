"""``datasync model``: what a node signed about a model holds, or the command says why not."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate

from datasync.cli.main import main
from datasync.domain.ids import node_name
from datasync.nodes.shell import system_clock
from datasync.protocol import cbor, envelope
from datasync.protocol.parts import ModelLineage
from datasync.security.identity import Role
from datasync.security.trust import Authority
from tests.unit.cli.conftest import Site

BODY = b"weights"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A folder with a node's record, the model, and the authorities of its operator and of another."""
    for operator, node in (("acme", "acme/cbd"), ("globex", "globex/docks")):
        authority = Authority.create(operator, system_clock())
        pem = load_der_x509_certificate(authority.certificate).public_bytes(Encoding.PEM)
        (tmp_path / f"{operator}.pem").write_bytes(pem)
        signer = authority.enrol(node_name(node), Role.EDGE, now=system_clock())
        signed = envelope.sign(signer, ModelLineage.CONTEXT, cbor.dumps(_lineage().model_dump()))
        (tmp_path / f"{operator}.cose").write_bytes(signed)
    (tmp_path / "model").write_bytes(BODY)
    return tmp_path


def _lineage() -> ModelLineage:
    views = [{"collection": "trips", "purpose": "improve", "after": 0, "until": 9, "policies": ["d" * 64]}]
    fields: dict[str, Any] = {
        "model": "1" * 32,
        "name": "stride",
        "worker": "coach",
        "node": "acme/cbd",
        "label": 1,
        "views": views,
        "parent": None,
        "parent_digest": None,
        "streams": 2,
        "streams_digest": "5" * 64,
        "policy": "d" * 64,
        "digest": hashlib.sha256(BODY).hexdigest(),
        "size_bytes": len(BODY),
        "created_ms": 1_700_000_000_000,
    }
    return ModelLineage.model_validate(fields)


def verified(folder: Path, name: str, ca: str, *more: str) -> int:
    return main(["model", "verify", str(folder / name), "--ca", str(folder / ca), *more])


def test_a_record_says_where_a_model_comes_from(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verified(record, "acme.cose", "acme.pem", "--artefact", str(record / "model")) == 0
    shown = capsys.readouterr().out
    assert "trips:improve:0:9" in shown
    assert "edge-private" in shown
    assert verified(record, "acme.cose", "acme.pem", "--json") == 0
    assert json.loads(capsys.readouterr().out)["worker"] == "coach"


def test_a_record_that_is_not_a_trusted_nodes_word_or_another_models_is_refused(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verified(record, "acme.cose", "globex.pem") == 1
    assert "[SIGNER_UNTRUSTED]" in capsys.readouterr().err
    assert verified(record, "globex.cose", "globex.pem") == 1
    assert "[SIGNER_FOREIGN]" in capsys.readouterr().err
    (record / "model").write_bytes(b"others")
    assert verified(record, "acme.cose", "acme.pem", "--artefact", str(record / "model")) == 1
    assert "[SIGNATURE_INVALID]" in capsys.readouterr().err
    changed = bytearray((record / "acme.cose").read_bytes())
    changed[-70] ^= 1
    (record / "acme.cose").write_bytes(changed)
    assert verified(record, "acme.cose", "acme.pem") == 1
    assert verified(record, "acme.cose", "acme.pem", "--artefact", str(record / "nothing")) == 1


def test_at_a_running_node_models_are_listed(site: Site) -> None:
    assert json.loads(site.done("model", "list", "--url", site.url("edge"), "--json")) == []
    assert "no models" in site.done("model", "list", "--state", "retrain", "--url", site.url("edge"))
    ended = site.datasync("model", "show", "0" * 32, "--url", site.url("edge"))
    assert (ended.returncode, "NOT_FOUND" in ended.stderr) == (1, True)
