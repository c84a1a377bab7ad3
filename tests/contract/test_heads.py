"""The contract of what a cloud keeps of the ends of edges' logs, on SQLite and on PostgreSQL."""

from datasync.store import heads
from datasync.store.chain import Head
from datasync.store.database import Database
from datasync.store.heads import Countersignature, Said, Verdict

SEVENTH, OTHER, EIGHTH = Head(7, "a" * 64), Head(7, "b" * 64), Head(8, "c" * 64)
AT_MS = 1_700_000_000_000


def test_a_newer_head_takes_the_place_of_an_older_one_of_the_same_log(database: Database) -> None:
    with database.write() as tx:
        assert heads.take(tx, "acme/cbd", "audit", SEVENTH, AT_MS) is Verdict.NEWER
        assert heads.take(tx, "acme/cbd", "audit", SEVENTH, AT_MS) is Verdict.NEWER, "said once more"
        assert heads.take(tx, "acme/cbd", "audit", EIGHTH, AT_MS + 1) is Verdict.NEWER
        assert heads.take(tx, "acme/cbd", "decisions", SEVENTH, AT_MS) is Verdict.NEWER
        assert heads.take(tx, "acme/docks", "audit", OTHER, AT_MS) is Verdict.NEWER
    with database.read() as tx:
        assert [(each.node, each.log, each.number, each.hash) for each in heads.all(tx)] == [
            ("acme/cbd", "audit", 8, EIGHTH.hash),
            ("acme/cbd", "decisions", 7, SEVENTH.hash),
            ("acme/docks", "audit", 7, OTHER.hash),
        ]


def test_what_contradicts_is_noted_once_and_does_not_take_its_place(database: Database) -> None:
    with database.write() as tx:
        heads.take(tx, "acme/cbd", "audit", SEVENTH, AT_MS)
        assert heads.take(tx, "acme/cbd", "audit", OTHER, AT_MS + 1) is Verdict.CONTRADICTING
        assert heads.take(tx, "acme/cbd", "audit", Head(6, "d" * 64), AT_MS + 1) is Verdict.CONTRADICTING
        assert heads.take(tx, "acme/cbd", "audit", OTHER, AT_MS - 1) is Verdict.OUTDATED
        assert heads.contradict(tx, "acme/cbd", "audit", AT_MS + 2)
        assert not heads.contradict(tx, "acme/cbd", "audit", AT_MS + 3)
        assert not heads.contradict(tx, "acme/docks", "audit", AT_MS + 3)
        assert heads.take(tx, "acme/cbd", "audit", EIGHTH, AT_MS + 4) is Verdict.NEWER
        expected = Said(
            node="acme/cbd",
            log="audit",
            number=8,
            hash=EIGHTH.hash,
            said_ms=AT_MS + 4,
            contradicted_ms=AT_MS + 2,
        )
        assert heads.get(tx, "acme/cbd", "audit") == expected
        assert heads.get(tx, "acme/docks", "audit") is None


def test_the_newest_countersignature_is_kept(database: Database) -> None:
    with database.write() as tx:
        assert heads.countersignature(tx) is None
        for statement in (b"one", b"\x00two"):
            heads.put_countersignature(tx, Countersignature(statement, AT_MS))
        assert heads.countersignature(tx) == Countersignature(b"\x00two", AT_MS)
