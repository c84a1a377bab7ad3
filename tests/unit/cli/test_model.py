"""``datasync model``: what a node signed about a model holds, or the command says why not."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import paho.mqtt.publish
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
from datasync.views.client import cursor_of, open_view
from tests.unit.cli.conftest import Site

PATIENCE_S = 30.0

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


@pytest.fixture
def learned(site: Site) -> tuple[str, int]:
    """The token of a worker that trains at the edge, and the cursor of a view of what a plain device published."""
    row = {"user_id": "u4", "at": "2026-01-01T10:00:00Z", "ax": 0.25, "exercise": "ABD", "note": "secret"}
    topic = "ds/1/d/scale-4/json/motion"
    paho.mqtt.publish.single(topic, json.dumps(row), qos=1, hostname="127.0.0.1", port=site.broker["edge"])
    token = json.loads(site.done("enroll", "worker", "edge-trainer", "--url", site.url("edge"), "--json"))["token"]
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with open_view(site.url("edge"), token, "motion", "improve.train") as reader:
            if reader.read_all().num_rows:
                return token, cursor_of(reader)
    raise AssertionError("the row never arrived")


def test_a_model_is_registered_at_a_running_edge_and_goes_with_the_data_that_it_learned_from(
    site: Site, learned: tuple[str, int], tmp_path: Path
) -> None:
    (token, cursor), edge, body = learned, ("--url", site.url("edge")), b"weights that learned how u4 moves"
    (tmp_path / "stride").write_bytes(body)
    view = f"motion:improve.train:0:{cursor}"
    words = ("model", "register", str(tmp_path / "stride"), "--name", "stride", "--view", view)
    model = json.loads(site.done(*words, *edge, "--json", token=token))["model"]
    record = str(tmp_path / "record")
    site.done("model", "lineage", model, "--output", record, *edge)
    authority = str(site.folder / "authority" / "authority.pem")
    site.done("model", "verify", record, "--ca", authority, "--artefact", str(tmp_path / "stride"))
    assert "edge-private" in site.done("model", "list", "--state", "current", *edge)
    assert model in site.done("subject", "where", "scale-4", *edge)

    assert "1 deleted" in site.done("subject", "erase", "scale-4", *edge)
    told = json.loads(site.done("model", "show", model, *edge, "--json"))
    assert (told["state"], told["key_destroyed"], told["streams_erased"]) == ("deleted", True, 2)
    again = site.datasync(*words, *edge, token=token)
    assert (again.returncode, "MODEL_ERASED" in again.stderr) == (1, True)
    assert not [path for path in site.folder.rglob("*") if path.is_file() and body in path.read_bytes()]


def test_what_cannot_be_is_said_with_its_code(site: Site, tmp_path: Path) -> None:
    edge = ("--url", site.url("edge"))
    assert "no models" in site.done("model", "list", "--state", "retrain", *edge)
    ended = site.datasync("model", "show", "0" * 32, *edge)
    assert (ended.returncode, "NOT_FOUND" in ended.stderr) == (1, True)
    ended = site.datasync("model", "register", str(tmp_path / "nothing"), "--name", "x", *edge)
    assert (ended.returncode, "CONFIG_INVALID" in ended.stderr) == (1, True)
