"""``datasync audit``."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from sqlalchemy import Connection, Table

from datasync.cli.main import main
from datasync.domain.clock import Instant
from datasync.domain.ids import node_name
from datasync.nodes.auditing import own_heads
from datasync.protocol import cbor, envelope
from datasync.protocol.parts import HeadStatement
from datasync.security.identity import Identity, Role
from datasync.security.trust import Authority
from datasync.store import audit, decisions, heads, registers, tables
from datasync.store.audit import Event
from datasync.store.chain import Head
from datasync.store.database import Database
from datasync.store.decisions import Decision
from datasync.store.heads import Said

AT_MS = 1_700_000_000_000


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database whose logs have three entries and two."""
    address = f"sqlite:///{tmp_path}/edge.db"
    database = Database.open(address)
    opened = Decision(
        at_ms=AT_MS,
        event="opened",
        worker="router",
        collection="trips",
        purpose="service.routing",
        revision=1,
        digest="d" * 64,
        code="ALLOW",
        rules=("R1",),
    )
    with database.write() as tx:
        for _ in range(3):
            decisions.append(tx, opened)
        audit.append(tx, Event.WORKER_ENROLLED, audit.ADMINISTRATOR, "coach", {"expires_ms": None}, AT_MS)
        audit.append(tx, Event.WORKER_REVOKED, audit.ADMINISTRATOR, "coach", {}, AT_MS)
    database.close()
    return address


def changed(url: str, table: Table, **values: object) -> None:
    database = Database.open(url)
    with database.write() as tx:
        tx.execute(table.update().where(table.c.number == 2).values(**values))
    database.close()


def test_whole_logs_verify(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", "--url", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "entries": {"decisions": 3, "audit": 2},
        "countersigned": {},
        "countersigned_ms": None,
        "wrong": [],
    }
    assert main(["audit", "verify", "--url", url]) == 0
    assert capsys.readouterr().out.startswith("3 entries in the log decisions and 2 entries in the log audit, none")


@pytest.mark.parametrize("log", ["decisions", "audit"])
def test_a_changed_log_does_not(url: str, log: str, capsys: pytest.CaptureFixture[str]) -> None:
    changed(url, tables.metadata.tables[log], at_ms=0)
    assert main(["audit", "verify", "--url", url]) == 1
    assert f"the log {log}: entry 2 was changed" in capsys.readouterr().out


def test_the_log_of_administration_is_shown_whole_or_by_kind(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "show", "--url", url, "--kind", "administration"]) == 0
    out = capsys.readouterr().out
    assert "worker-enrolled" in out
    assert '{"expires_ms": null}' in out
    assert main(["audit", "show", "--url", url, "--kind", "worker-revoked", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert (json.loads(line)["number"], json.loads(line)["subject"]) == (2, "coach")


def test_heads_at_the_cloud_fail_when_an_edge_contradicted_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"sqlite:///{tmp_path}/cloud.db"
    database = Database.open(address)
    with database.write() as tx:
        heads.take(tx, "acme/cbd", "audit", Head(7, "a" * 64), AT_MS)
    assert main(["audit", "heads", "--url", address]) == 0
    assert "acme/cbd" in capsys.readouterr().out
    with database.write() as tx:
        heads.contradict(tx, "acme/cbd", "audit", AT_MS + 1)
    database.close()
    assert main(["audit", "heads", "--url", address, "--json"]) == 1
    (said,) = json.loads(capsys.readouterr().out)["heads"]
    assert (said["number"], said["hash"], said["contradicted_ms"]) == (7, "a" * 64, AT_MS + 1)


def test_the_log_is_shown_as_a_table_and_as_lines(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "show", "--url", url]) == 0
    assert capsys.readouterr().out.count("service.routing") == 3
    assert main(["audit", "show", "--url", url, "--json", "--after", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["number"] for line in lines] == [2, 3]
    assert lines[0]["rules"] == ["R1"]


def test_a_database_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", "--url", f"sqlite:///{tmp_path}/none.db"]) == 1
    assert "STORE_FAILED" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()


class Edge:
    """An edge's folder, in which the cloud's countersignature of its logs is kept."""

    def __init__(self, folder: Path) -> None:
        now = Instant(AT_MS, 0)
        self.folder = folder
        self.authority = Authority.create("acme", now)
        self.cloud = self.authority.enrol(node_name("acme/cloud"), Role.CLOUD, now=now)
        self.authority.enrol(node_name("acme/cbd"), Role.EDGE, now=now).save(folder / "identity")
        (folder / "trust").mkdir(mode=0o700)
        pem = load_der_x509_certificate(self.authority.certificate).public_bytes(Encoding.PEM)
        (folder / "trust" / "acme.pem").write_bytes(pem)
        self.config.write_text(EDGE)

    @property
    def config(self) -> Path:
        return self.folder / "edge.toml"

    def countersign(self, signer: Identity, node: str = "acme/cbd") -> list[Said]:
        """Let a node sign where the logs end now; return that as a cloud keeps it."""
        with self.writing() as tx:
            ends = own_heads(tx)
            statement = HeadStatement(node=node_name(node), heads=ends, stamp=1)
            signed = envelope.sign(signer, HeadStatement.CONTEXT, cbor.dumps(statement.model_dump()))
            heads.put_countersignature(tx, heads.Countersignature(signed, AT_MS))
        return [Said(node=node, log=each.log, number=each.number, hash=each.hash, said_ms=AT_MS) for each in ends]

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        database = Database.open(f"sqlite:///{self.folder}/edge.db")
        with database.write() as tx:
            yield tx
        database.close()

    def rewrite(self) -> None:
        """Change an entry, and all hashes so that the log is whole again."""
        with self.writing() as tx:
            tx.execute(tables.audit.delete())
            tx.execute(tables.counters.delete().where(tables.counters.c.name == "audit"))
            registers.put(tx, "audit head", [0, ""])
            for subject in ("nobody", "coach"):
                audit.append(tx, Event.WORKER_ENROLLED, audit.ADMINISTRATOR, subject, {}, AT_MS)

    def verify(self, *words: str) -> int:
        return main(["audit", "verify", "--config", str(self.config), *words])


EDGE = """
identity = "identity"
trust = "trust"
database = "sqlite:///edge.db"
keys = "sqlite:///keys.db"
node_key = "node.key"
broker = "mqtt://localhost"
backbone = "mqtt://localhost"
cloud = "acme/cloud"
admin_token_hash = "8b7df143d91c716ecfa5fc1730022f6b421b05cedee8fd52b1fc65a96030ad52"
"""


@pytest.fixture
def edge(url: str, tmp_path: Path) -> Edge:
    return Edge(tmp_path)


def test_with_the_configuration_the_countersignature_is_checked(edge: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    assert edge.verify() == 0
    assert "the cloud has countersigned nothing here" in capsys.readouterr().out
    edge.countersign(edge.cloud)
    assert edge.verify() == 0
    assert "the cloud countersigned the log audit up to entry 2 at 2023-11-14T22:13:20.000Z" in capsys.readouterr().out
    edge.rewrite()
    assert edge.verify() == 1
    assert "entry 2 of the log audit is another one, compared with what the cloud countersigned" in (
        capsys.readouterr().out
    )


def test_a_countersignature_of_another_signer_or_of_another_node_does_not_hold(
    edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    edge.countersign(edge.authority.enrol(node_name("acme/docks"), Role.EDGE, now=Instant(AT_MS, 0)))
    assert edge.verify() == 1
    edge.countersign(edge.authority.enrol(node_name("acme/other"), Role.CLOUD, now=Instant(AT_MS, 0)))
    assert edge.verify() == 1
    edge.countersign(
        Authority.create("acme", Instant(AT_MS, 0)).enrol(edge.cloud.name, Role.CLOUD, now=Instant(AT_MS, 0))
    )
    assert edge.verify() == 1
    edge.countersign(edge.cloud, "acme/docks")
    assert edge.verify() == 1
    assert capsys.readouterr().out.count("the countersignature does not hold") == 4


def test_who_took_the_countersignature_away_is_found_by_what_the_cloud_was_told(
    edge: Edge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [asdict(each) for each in edge.countersign(edge.cloud)]
    others = [{**each, "node": "acme/docks", "hash": "0" * 64} for each in told]
    file = tmp_path / "heads.json"
    file.write_text(json.dumps({"heads": [*told, *others]}))
    assert edge.verify("--heads", str(file)) == 0
    edge.rewrite()
    with edge.writing() as tx:
        tx.execute(tables.registers.delete().where(tables.registers.c.name == "countersigned"))
    assert edge.verify() == 0
    assert edge.verify("--heads", str(file)) == 1
    assert "is another one, compared with what the cloud was told" in capsys.readouterr().out
    file.write_text("[]")
    assert edge.verify("--heads", str(file)) == 1
    assert "datasync audit heads --json" in capsys.readouterr().err
